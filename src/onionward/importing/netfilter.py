"""Commands of iptables and ip6tables, and what stands around them in scripts."""

from __future__ import annotations

import re

from onionward.importing import torrc
from onionward.importing.chains import Parsed, Rule, at_hooks
from onionward.importing.found import Found, Note, network_of
from onionward.importing.options import options_of
from onionward.importing.words import Command, commands, shortened

_PASSES = frozenset({"RETURN", "ACCEPT"})
# what scripts do besides, and where it went
_BESIDES = {
    "useradd": "accounts that do not exist: `onionward up --create-users`",
    "adduser": "accounts that do not exist: `onionward up --create-users`",
    "systemctl": "tor is started and ended by onionward; at boot: `onionward enable`",
    "service": "tor is started and ended by onionward; at boot: `onionward enable`",
    "modprobe": "the kernel loads what rules need by itself",
}
_QUIET = frozenset(
    [
        "echo",
        "printf",
        "exit",
        "set",
        "cd",
        "test",
        "[",
        "[[",
        "return",
        "sleep",
        "clear",
        "cat",
        "trap",
        "shift",
        "true",
        "false",
        "read",
        "touch",
        "chmod",
        "vim",
        "sudo",
        "nameserver",
        "lookup",
        "search",
        "options",
        "domain",
        "case",
        "esac",
        "in",
        "*)",
        "which",
        "command",
        "id",
        # where a function is made or called; its commands are looked at by themselves
        "start",
        "stop",
        "restart",
        "status",
        "function",
    ]
)
# what redirects to tor
_TURNS = frozenset({"REDIRECT", "DNAT", "TPROXY"})
# of iptables-save(8), with -c
_COUNTERS = re.compile(r"\[\d+:\d+\]")
# what does not make an exception narrower than its network
_PLAIN = frozenset({"-t", "-A", "-j", "-d", "-m", "--comment", "--state", "--syn"})
# what makes a refusal one of something in particular
_NARROW = ("-d", "-s", "-o", "-i", "--dport", "--sport", "--uid-owner", "--gid-owner", "--mark")


def read(text: str, name: str, found: Found) -> None:
    """A script, the output of iptables-save, or a torrc: line by line, whatever it is."""
    table = "filter"
    rules: list[Rule] = []
    for command in commands(text):
        place = f"{name}:{command.line}"
        words = command.words
        while words and (words[0] in ("sudo", "exec", "command") or _is_path_of(words[0], "sudo")):
            words = words[1:]
            while words and words[0].startswith("-"):
                words = words[2 if words[0] == "-u" else 1 :]
        if words and _COUNTERS.fullmatch(words[0]):
            words = words[1:]
        if not words:
            continue
        program = words[0].rpartition("/")[2]
        if program in ("iptables", "ip6tables", "iptables-nft", "iptables-legacy"):
            _add(Rule(options_of(words[1:]), place, program.startswith("ip6")), rules, found)
        elif re.fullmatch(r"\*(raw|mangle|nat|filter)", words[0]):
            table = words[0][1:]
        elif words[0] in ("-A", "-I"):
            rules.append(Rule(options_of(("-t", table, *words)), place, ip6=False))
        elif words[0].startswith(":") and len(words) > 1:
            chain, policy = words[0][1:], words[1]
            rules.append(Rule(options_of(("-t", table, "-P", chain, policy)), place, ip6=False))
        elif words[0] == "COMMIT":
            continue
        elif words[0].lower() in torrc.OPTIONS:
            torrc.read_line(words, place, found)
        else:
            _besides(program, Command(words, command.line), place, found)
    for rule in at_hooks(rules):
        _rule(rule.parsed, rule.place, found, ip6=rule.ip6)


def _add(rule: Rule, rules: list[Rule], found: Found) -> None:
    """Add a rule; one that deletes an exception takes it out again, for that only closes."""
    if not (chain := rule.parsed.has.get("-D")):
        rules.append(rule)
        return

    def words(one: Parsed) -> dict[str, str]:
        return {option: value for option, value in one.has.items() if option not in ("-A", "-D")}

    for other in reversed(rules):
        same = words(other.parsed) == words(rule.parsed) and other.ip6 == rule.ip6
        if same and other.parsed.chain == chain and other.parsed.negated == rule.parsed.negated:
            if rule.parsed.target in _PASSES:
                rules.remove(other)
            else:
                found.leave_out(rule.place, f"a rule is deleted: taken as if {other.place} stayed")
            return
    found.leave_out(rule.place, "deletes a rule that no line before has made")


def _is_path_of(word: str, program: str) -> bool:
    return word.rpartition("/")[2] == program


def _besides(program: str, command: Command, place: str, found: Found) -> None:
    words = " ".join(command.words)
    if program in ("sysctl", "echo") and "disable_ipv6" in words:
        if re.search(r"disable_ipv6\s*=\s*0\b|^echo\s+0\b", words):
            found.leave_out(
                place, f"{shortened(words)}: IPv6 goes through Tor like IPv4, and stays on"
            )
            return
        found.ip6 = True
        found.change(place, "IPv6 was switched off: it goes through Tor like IPv4, and may stay on")
    elif program in ("iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"):
        found.leave_out(
            place, f"{program}: rules of others stay as they are, and come back as such"
        )
    elif program in ("cp", "mv", "rm", "ln") and "resolv.conf" in words:
        found.keep(place, "resolv.conf: onionward puts its own there, and the old one back")
    elif program == "sysctl":
        found.leave_out(place, f"{words}: kernel settings are onionward's own matter")
    elif program == "nameserver":
        found.keep(place, f"{words}: onionward writes resolv.conf, and puts the old one back")
    elif program in ("echo", "printf") and "nameserver" in words:
        found.keep(place, "resolv.conf: onionward writes it, and puts the old one back")
    elif program in _BESIDES:
        found.leave_out(place, f"{program}: {_BESIDES[program]}")
    elif program == "tor" or "/init.d/tor" in words:
        found.leave_out(place, "tor is started and ended by onionward")
    elif program not in _QUIET and program:
        found.leave_out(place, f"not understood, and left out: {shortened(words)}")


def _rule(rule: Parsed, place: str, found: Found, *, ip6: bool) -> None:
    found.ip6 |= ip6
    table, chain = rule.table, rule.chain
    if "-F" in rule.has or "-X" in rule.has:
        found.change(
            place, "flushing: rules of others stay; onionward has chains or tables of its own"
        )
        return
    target = rule.has.get("-j", "")
    if "-P" in rule.has:
        if rule.has["-P"] == "OUTPUT" and target == "DROP" and table != "nat":
            found.refused = found.refused or place
            found.keep(place, "everything else is refused")
        return
    if not chain:
        return
    found.rules = True
    if chain == "OUTPUT" and target in ("DROP", "REJECT") and not any(map(rule.get, _NARROW)):
        found.refused = found.refused or place
    if target in _TURNS:
        _redirected(rule, chain, place, found)
    elif table == "nat" and target in _PASSES:
        _not_redirected(rule, chain, place, found)
    elif table == "filter":
        _filtered(rule, chain, target, place, found)
    elif target in ("DROP", "REJECT"):
        found.keep(place, "what is not redirected is refused")
    else:
        found.leave_out(place, f"a rule for {target or 'nothing'} in {table} {chain}")


def _redirected(rule: Parsed, chain: str, place: str, found: Found) -> None:
    names = rule.get("--dport") in ("53", "domain")
    destination = rule.get("-d")
    if any(n and not n.prefixlen for n in map(network_of, destination.split(","))):
        destination = ""  # it is everything
    if (port := rule.get("--to-ports")).isdecimal():
        found.turned_to.setdefault(int(port), place)
    if "--syn" in rule.has:
        found.change(
            place,
            "--syn: only what opens a connection was redirected; what is left of one that "
            "connection tracking has forgotten leaked. Every packet goes to tor now",
        )
    if chain == "PREROUTING":
        if interface := rule.get("-i"):
            found.add_lan(interface, place)
        else:
            found.change(place, "clients of no interface in particular: name it, as [[lan]]")
    elif owner := rule.get("--uid-owner"):
        _routed_account(owner, place, found)
    elif group := rule.get("--gid-owner"):
        found.unnamed.append(Note(place, f"the group {group}"))
    elif names:
        found.keep(place, "names are asked of tor's resolver")
    elif destination:
        _redirected_network(destination, place, found)
    elif rule.get("-p") in ("tcp", ""):
        found.route_host(place)
        for option in ("--uid-owner", "--gid-owner"):
            if excepted := rule.excepted(option):
                _excepted_account(excepted, place, found)
        if excepted := rule.excepted("-d"):
            _bypassed(excepted, place, found)


def _redirected_network(destination: str, place: str, found: Found) -> None:
    """Addresses that stand for names under .onion, as they are nobody's; others are somebody's."""
    known = {str(network) for network, _ in found.virtual.values()}
    networks = [network_of(text) for text in destination.split(",")]
    if destination not in known and not all(n is not None and not n.is_global for n in networks):
        found.host = True
        found.change(
            place,
            f"only {destination} went through Tor, and there is no such scope: everything that "
            "this machine sends does now",
        )
        return
    found.mapped |= {network: place for network in networks if network is not None}
    if destination not in known:
        found.keep(place, f"{destination} goes to tor")
    found.onion = True
    found.keep(place, "addresses of names under .onion go to tor")


def _routed_account(owner: str, place: str, found: Found) -> None:
    if re.fullmatch(r"\d+-\d+", owner):
        found.unnamed.append(Note(place, f"user ids {owner}"))
        return
    found.add_user(owner, place)
    found.change(
        place,
        f"what {owner} sends without a socket (ping, the end of a closed connection) and its "
        "queries to resolvers on this machine went around the rules; they do not now",
    )


def _excepted_account(owner: str, place: str, found: Found) -> None:
    """Tor's, most likely; the first whose name does not say otherwise."""
    is_name = re.fullmatch(r"[A-Za-z_][\w.-]*", owner) and "tor" not in owner.lower()
    if not is_name and found.tor_account in ("", owner):
        found.tor_account = owner
        found.keep(place, "tor's own traffic leaves; onionward makes an account for it alone")
        return
    found.change(
        place,
        f"what {owner} sent left in clear; it goes through Tor now. To leave it as it was: "
        '[[user]] with its name and route = "direct"',
    )


def _not_redirected(rule: Parsed, chain: str, place: str, found: Found) -> None:
    owner = rule.get("--uid-owner")
    to = rule.get("-d")
    if owner and rule.get("--dport") in ("9051", "9151"):
        found.control.setdefault(owner, place)
    elif (owner or rule.get("--gid-owner")) and not to:
        _excepted_account(owner or rule.get("--gid-owner"), place, found)
    elif rule.get("-i") and chain == "PREROUTING" and to:
        found.change(
            place, f"clients reached {to} around Tor: nothing of theirs is forwarded any more"
        )
    elif to:
        _bypassed_by(rule, to, place, found)
    elif "lo" in (rule.get("-o"), rule.get("-i")):
        found.keep(place, "what stays on loopback is left alone, but for names")
    else:
        found.change(
            place,
            "an exception from the redirection that names no network: what it let out goes "
            "through Tor now, or nowhere",
        )


def _bypassed_by(rule: Parsed, to: str, place: str, found: Found) -> None:
    """Bypass what an exception lets out for everybody; less than that is let out no more."""
    if narrow := sorted(option for option in rule.has if not _lets_out_all(rule, option)):
        found.change(
            place,
            f"{to} was let out only in part ({' '.join(narrow)}): it goes through Tor now, or "
            "nowhere. To bypass all of it: [bypass] networks",
        )
        return
    if rule.get("-p") == "tcp":
        found.change(place, f"{to} was excepted for TCP: what is bypassed is so for all but names")
    _bypassed(to, place, found)


def _lets_out_all(rule: Parsed, option: str) -> bool:
    """Whether an exception with this option still is one for everybody's TCP."""
    if option in rule.negated:
        # tor, whose traffic leaves anyway
        return option in ("--uid-owner", "--gid-owner")
    return option in _PLAIN or (option == "-p" and rule.get("-p") in ("tcp", "all"))


def _bypassed(to: str, place: str, found: Found) -> None:
    for text in to.split(","):
        found.bypass_network(text, place)


def _filtered(rule: Parsed, chain: str, target: str, place: str, found: Found) -> None:
    states = rule.has.get("--state", "")
    if chain == "OUTPUT" and target == "ACCEPT" and "ESTABLISHED" in states:
        found.change(
            place,
            "ESTABLISHED was accepted: connections from before went on in clear, and so did what "
            "connection tracking took for answers. They are cut now",
        )
    elif chain == "OUTPUT" and target == "ACCEPT" and rule.get("-d"):
        for network in map(network_of, rule.get("-d").split(",")):
            if network is not None and not network.is_loopback:
                found.accepted.setdefault(network, place)
    elif chain == "OUTPUT" and target == "ACCEPT" and (owner := rule.get("--uid-owner")):
        if owner not in found.users:
            _excepted_account(owner, place, found)
        if owner == found.tor_account:
            found.change(
                place, "all that tor's account sends was accepted: now TCP of tor itself only"
            )
    elif chain == "INPUT" and target == "ACCEPT" and rule.get("-p") == "tcp":
        for port in rule.get("--dport").split(","):
            if port.isdecimal():
                found.inbound[int(port)] = place
    elif target in ("DROP", "REJECT"):
        found.keep(place, "everything else is refused")
    elif target == "ACCEPT":
        found.leave_out(place, f"accepted in {chain}: decided by the policy")
    else:
        found.leave_out(place, f"a rule for {target or 'nothing'} in filter {chain}")

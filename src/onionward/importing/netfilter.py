"""Commands of iptables and ip6tables, and what stands around them in scripts."""

from __future__ import annotations

import re

from onionward.importing import torrc
from onionward.importing.chains import Parsed, Rule, at_hooks
from onionward.importing.found import Found, Note
from onionward.importing.words import Command, commands

_WITH_VALUE = frozenset(
    [
        "-t",
        "-A",
        "-I",
        "-i",
        "-o",
        "-p",
        "-s",
        "-d",
        "-j",
        "-g",
        "-m",
        "-P",
        "--table",
        "--append",
        "--insert",
        "--in-interface",
        "--out-interface",
        "--protocol",
        "--source",
        "--destination",
        "--src",
        "--dst",
        "--jump",
        "--match",
        "--policy",
        "--dport",
        "--dports",
        "--destination-port",
        "--destination-ports",
        "--sport",
        "--sports",
        "--source-port",
        "--to-ports",
        "--to-port",
        "--to-destination",
        "--to-source",
        "--uid-owner",
        "--gid-owner",
        "--state",
        "--ctstate",
        "--reject-with",
        "--icmp-type",
        "--comment",
        "--set-mark",
        "--mark",
        "--limit",
        "--log-prefix",
        "--tcp-option",
        "-N",
        "-D",
        "-F",
        "-X",
        "--delete",
        "--flush",
        "--new-chain",
        "--delete-chain",
    ]
)
_SAME = {
    "--table": "-t",
    "--append": "-A",
    "--insert": "-A",
    "-I": "-A",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--protocol": "-p",
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--jump": "-j",
    "--policy": "-P",
    "--dports": "--dport",
    "--destination-port": "--dport",
    "--destination-ports": "--dport",
    "--to-port": "--to-ports",
    "--ctstate": "--state",
    "--flush": "-F",
}
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
    ]
)


# what redirects to tor
_TURNS = frozenset({"REDIRECT", "DNAT", "TPROXY"})


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
        if not words:
            continue
        program = words[0].rpartition("/")[2]
        if program in ("iptables", "ip6tables", "iptables-nft", "iptables-legacy"):
            rules.append(Rule(options_of(words[1:]), place, program.startswith("ip6")))
        elif re.fullmatch(r"\*(raw|mangle|nat|filter)", words[0]):
            table = words[0][1:]
        elif words[0] in ("-A", "-I"):
            rules.append(Rule(options_of(("-t", table, *words)), place, ip6=False))
        elif words[0].lower() in torrc.OPTIONS:
            torrc.read_line(words, place, found)
        else:
            _besides(program, Command(words, command.line), place, found)
    for rule in at_hooks(rules):
        _rule(rule.parsed, rule.place, found, ip6=rule.ip6)


def _is_path_of(word: str, program: str) -> bool:
    return word.rpartition("/")[2] == program


def _besides(program: str, command: Command, place: str, found: Found) -> None:
    words = " ".join(command.words)
    if program in ("sysctl", "echo") and "disable_ipv6" in words:
        found.ip6 = True
        found.change(place, "IPv6 was switched off: it goes through Tor like IPv4, and may stay on")
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
        found.leave_out(place, f"not understood, and left out: {words[:60]}")


def options_of(words: tuple[str, ...]) -> Parsed:
    """Options of iptables; both places of "!" are understood."""
    parsed = Parsed()
    place, negated = 0, False
    while place < len(words):
        word = words[place]
        place += 1
        if word == "!":
            negated = True
            continue
        option = _SAME.get(word, word)
        value = ""
        if word in _WITH_VALUE and place < len(words):
            if words[place] == "!":
                negated, place = True, place + 1
            if place < len(words) and not words[place].startswith("-"):
                value, place = words[place], place + 1
        if option.startswith("-"):
            parsed.has[option] = value or parsed.has.get(option, "")
            if negated:
                parsed.negated.add(option)
        negated = False
    return parsed


def _rule(rule: Parsed, place: str, found: Found, *, ip6: bool) -> None:
    found.ip6 |= ip6
    table, chain = rule.table, rule.chain
    if "-F" in rule.has or "-X" in rule.has:
        found.change(
            place, "flushing: rules of others stay; onionward has chains or tables of its own"
        )
        return
    if "-P" in rule.has or not chain:
        return
    found.rules = True
    target = rule.has.get("-j", "")
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
    names = rule.get("--dport") == "53"
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
    elif destination := rule.get("-d"):
        if destination not in {str(network) for network, _ in found.virtual.values()}:
            found.keep(place, f"{destination} goes to tor")
        found.onion = True
        found.keep(place, "addresses of names under .onion go to tor")
    elif rule.get("-p") in ("tcp", ""):
        found.route_host(place)
        for option in ("--uid-owner", "--gid-owner"):
            if excepted := rule.excepted(option):
                _excepted_account(excepted, place, found)
        if excepted := rule.excepted("-d"):
            _bypassed(excepted, place, found)


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
        found.control.append(owner)
        found.keep(place, f"{owner} may speak to tor's control port, through a filter")
    elif (owner or rule.get("--gid-owner")) and not to:
        _excepted_account(owner or rule.get("--gid-owner"), place, found)
    elif rule.get("-i") and chain == "PREROUTING" and to:
        found.change(
            place, f"clients reached {to} around Tor: nothing of theirs is forwarded any more"
        )
    elif to:
        _bypassed(to, place, found)
    elif "lo" in (rule.get("-o"), rule.get("-i")):
        found.keep(place, "what stays on loopback is left alone, but for names")
    else:
        found.change(
            place,
            "an exception from the redirection that names no network: what it let out goes "
            "through Tor now, or nowhere",
        )


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
        _bypassed(rule.get("-d"), place, found)
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

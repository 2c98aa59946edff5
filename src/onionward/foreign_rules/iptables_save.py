"""What iptables-save(8) prints → chains; what is not understood may hold or not."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from onionward.foreign_rules.chains import UNKNOWN, Branch, Chain, Condition, Rule, Verdict

PREFIX = "onionward-"
"""Of our own chains, which are nobody else's business."""

_PRIORITIES = {
    ("raw", ""): -300,
    ("mangle", ""): -150,
    ("nat", "PREROUTING"): -100,
    ("nat", "OUTPUT"): -100,
    ("nat", "POSTROUTING"): 100,
    ("security", ""): 50,
}
_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_VERDICTS = {
    "ACCEPT": Verdict("accept"),
    "DROP": Verdict("drop"),
    "REJECT": Verdict("drop"),
    "RETURN": Verdict("return"),
    **dict.fromkeys(("QUEUE", "NFQUEUE", "SNAT", "MASQUERADE"), Verdict("accept")),
    **dict.fromkeys(("DNAT", "REDIRECT", "NETMAP", "TPROXY"), Verdict("accept", translates=True)),
}
_WITHOUT_EFFECT = frozenset(
    (
        *("AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "HL", "HMARK"),
        *("IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK", "SET"),
        *("TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"),
    )
)
# options with one argument that says what to match
_KEYS = {
    "-p": "meta l4proto",
    "-i": "meta iifname",
    "-o": "meta oifname",
    "--ctstate": "ct state",
    "--state": "ct state",
    "--uid-owner": "meta skuid",
    "--dport": "th dport",
    "--dports": "th dport",
    "--destination-port": "th dport",
    "--sport": "th sport",
    "--sports": "th sport",
    "--dst-type": "fib daddr type",
    "--src-type": "fib saddr type",
}
_NUMBERS = {"ipv6-icmp": "icmpv6", "6": "tcp", "17": "udp"}
_MODULES = frozenset(
    ("tcp", "udp", "conntrack", "state", "owner", "multiport", "comment", "addrtype")
)


class _Read(NamedTuple):
    """One rule, read."""

    chain: str
    rule: Rule


def chains(text: str, tool: str, family: str) -> tuple[Chain, ...]:
    """Chains of all tables.

    Args:
        text: what the tool has printed.
        tool: that prints it, for people.
        family: "ip" or "ip6".

    """
    found: list[Chain] = []
    table = ""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:].strip(), {}, {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name] = policy
        elif line.startswith("-A ") and not _is_ours(line):
            read = _rule(line, family)
            rules.setdefault(read.chain, []).append(read.rule)
        elif line == "COMMIT":
            for name, policy in policies.items():
                built_in = name in _BUILT_IN
                found.append(
                    Chain(
                        tool=tool,
                        family=family,
                        table=table,
                        name=name,
                        rules=tuple(rules.get(name, ())),
                        hook=name.lower() if built_in else None,
                        priority=_PRIORITIES.get((table, name), _PRIORITIES.get((table, ""), 0)),
                        drops=built_in and policy == "DROP",
                    )
                )
    return tuple(found)


def _is_ours(line: str) -> bool:
    return line.startswith(f"-A {PREFIX}") or line.rpartition(" ")[2].startswith(PREFIX)


def _rule(line: str, family: str) -> _Read:
    words = shlex.split(line)
    chain, rest = words[1], words[2:]
    conditions: list[Condition] = []
    either: tuple[Condition, ...] = ()
    negated = False
    while rest:
        option = rest.pop(0)
        if option == "!":
            negated = True
            continue
        arguments: list[str] = []
        while rest and rest[0] != "!" and not rest[0].startswith("-"):
            arguments.append(rest.pop(0))
        if option in ("-j", "-g"):
            each = [[*conditions, one] for one in either] or [conditions]
            found = (b for found in each for b in _branch(option, arguments, found))
            return _Read(chain, Rule(tuple(found), line))
        if option == "--ctstate" and not (negated or either) and "DNAT" in arguments[0]:
            either = _state_or_translated(arguments[0])
            negated = False
            continue
        conditions += _conditions(option, arguments, family, negated=negated)
        negated = False
    return _Read(chain, Rule((), line))


def _state_or_translated(argument: str) -> tuple[Condition, ...]:
    """What one list asks that names DNAT, which is a matter of its own, among states."""
    states = tuple(word.lower() for word in argument.split(",") if word != "DNAT")
    if "snat" in states:
        return (UNKNOWN,)
    translated = Condition("ct status dnat", ("yes",))
    return (translated, Condition("ct state", states)) if states else (translated,)


def _conditions(
    option: str, arguments: list[str], family: str, *, negated: bool
) -> tuple[Condition, ...]:
    match option, arguments:
        case "-m", [module] if module in _MODULES:
            return ()
        case "--comment", _:
            return ()
        case "--tcp-flags", [_, wanted]:
            return (Condition("tcp flags", ("+".join(wanted.lower().split(",")),), negated),)
        case "--syn", []:
            return (Condition("tcp flags", ("syn",), negated),)
        case "-s", [network]:
            return (Condition(f"{family} saddr", (network,), negated),)
        case "-d", [network]:
            return (Condition(f"{family} daddr", (network,), negated),)
        case _, [argument] if option in _KEYS:
            return (Condition(_KEYS[option], _values(option, argument), negated),)
    return (UNKNOWN,)


def _values(option: str, argument: str) -> tuple[str, ...] | None:
    values = argument.split(",")
    if _KEYS[option].startswith("th "):
        return tuple(value.replace(":", "-") for value in values)
    if option in ("-i", "-o"):
        return tuple(f"{value[:-1]}*" if value.endswith("+") else value for value in values)
    words = [value.lower() for value in values]
    if option == "-p":
        return tuple(_NUMBERS.get(word, word) for word in words)
    if {"dnat", "snat"} & set(words):
        return None
    return tuple(words)


def _branch(option: str, arguments: list[str], conditions: list[Condition]) -> tuple[Branch, ...]:
    target = arguments[0] if arguments else ""
    if target in _WITHOUT_EFFECT:
        return ()
    verdict = _VERDICTS.get(target)
    if verdict is None:
        verdict = Verdict("goto" if option == "-g" else "jump", target)
    return (Branch(tuple(conditions), verdict),)

"""nft's JSON (libnftables-json(5)) → chains; what is not understood may hold or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from onionward.foreign_rules.chains import UNKNOWN, Branch, Chain, Condition, Rule, Verdict

FAMILIES = ("inet", "ip", "ip6")
_VERDICTS = {
    "accept": Verdict("accept"),
    "drop": Verdict("drop"),
    "reject": Verdict("drop"),
    "return": Verdict("return"),
    # a program judges, or the packet is translated: no later rule of the chain does
    **dict.fromkeys(("queue", "snat", "masquerade", "fwd", "synproxy"), Verdict("accept")),
    **dict.fromkeys(("dnat", "redirect", "tproxy"), Verdict("accept", translates=True)),
}
_WITHOUT_EFFECT = frozenset(
    (
        *("counter", "log", "last", "comment", "continue", "mangle", "notrack", "secmark", "flow"),
        *("set", "map", "dup", "ct helper", "ct timeout", "ct expectation"),
    )
)
_MOST = 2**32 - 1
_RANGES: Mapping[str, Callable[[int], str]] = {
    "<": lambda number: f"0-{number - 1}",
    "<=": lambda number: f"0-{number}",
    ">": lambda number: f"{number + 1}-{_MOST}",
    ">=": lambda number: f"{number}-{_MOST}",
}
_SAME = {
    "meta oif": "meta oifname",
    "meta iif": "meta iifname",
}


def chains(objects: Iterable[Mapping[str, Any]]) -> tuple[Chain, ...]:
    """Chains of the families that IP packets of this machine meet.

    Args:
        objects: what `nft --json list ruleset` has in "nftables".

    """
    heads: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    for entry in objects:
        if (chain := entry.get("chain")) and chain["family"] in FAMILIES:
            heads[chain["family"], chain["table"], chain["name"]] = chain
        elif (rule := entry.get("rule")) and rule["family"] in FAMILIES:
            key = (rule["family"], rule["table"], rule["chain"])
            rules.setdefault(key, []).append(Rule(_branches(rule["expr"]), str(rule["handle"])))
    return tuple(
        Chain(
            tool="nft",
            family=family,
            table=table,
            name=name,
            rules=tuple(rules.get((family, table, name), ())),
            hook=head.get("hook"),
            priority=head.get("prio", 0),
            drops=head.get("policy") == "drop",
        )
        for (family, table, name), head in heads.items()
    )


def has_extensions(objects: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    """Families and tables with what only iptables can print."""
    return frozenset(
        (rule["family"], rule["table"])
        for entry in objects
        if (rule := entry.get("rule")) and any("xt" in statement for statement in rule["expr"])
    )


def _branches(statements: Sequence[Mapping[str, Any]]) -> tuple[Branch, ...]:
    conditions: list[Condition] = []
    for statement in statements:
        ((kind, value),) = statement.items()
        if kind == "match":
            conditions.append(_condition(value))
        elif kind in _VERDICTS:
            return (Branch((*conditions, *_implied(kind, value)), _VERDICTS[kind]),)
        elif kind in ("jump", "goto"):
            return (Branch(tuple(conditions), _leading(kind, value)),)
        elif kind == "vmap":
            return tuple(_mapped(tuple(conditions), value))
        elif kind not in _WITHOUT_EFFECT:
            conditions.append(UNKNOWN)
    return ()


def _leading(kind: str, value: Mapping[str, Any]) -> Verdict:
    return Verdict("jump" if kind == "jump" else "goto", value["target"])


def _implied(kind: str, value: Any) -> tuple[Condition, ...]:
    """What a reject is for, which nft does not print."""
    if kind != "reject" or not isinstance(value, dict):
        return ()
    match value.get("type"):
        case "tcp reset":
            return (Condition("meta l4proto", ("tcp",)),)
        case "icmp":
            return (Condition("meta nfproto", ("ipv4",)),)
        case "icmpv6":
            return (Condition("meta nfproto", ("ipv6",)),)
    return ()


def _mapped(conditions: tuple[Condition, ...], value: Mapping[str, Any]) -> Iterator[Branch]:
    key = _key(value["key"])
    data = value["data"]
    pairs = data.get("set") if isinstance(data, dict) else None
    if not isinstance(pairs, list):
        # a named map: anything may be in it
        yield Branch((*conditions, UNKNOWN), Verdict("accept"))
        return
    for element, verdict in pairs:
        ((kind, target),) = verdict.items()
        values = _values(element)
        condition = UNKNOWN if key is None or values is None else Condition(key, values)
        if kind in ("jump", "goto"):
            yield Branch((*conditions, condition), _leading(kind, target))
        elif kind in _VERDICTS:
            yield Branch((*conditions, condition), _VERDICTS[kind])


def _condition(match: Mapping[str, Any]) -> Condition:
    left, right, operator = match["left"], match["right"], match["op"]
    if isinstance(left, dict) and "&" in left:
        return _of_bits(left["&"], right, operator)
    key, values = _key(left), _values(right)
    if isinstance(right, int) and operator in _RANGES:
        values, operator = (_RANGES[operator](right),), "=="
    if key is None or values is None or operator not in ("==", "!=", "in"):
        return UNKNOWN
    if key == "ct status":
        return _status(values) if operator in ("==", "in") else UNKNOWN
    return Condition(key, values, negated=operator == "!=")


def _of_bits(operands: Sequence[Any], right: Any, operator: str) -> Condition:
    key, mask, wanted = _key(operands[0]), _values(operands[1]), _values(right)
    if key is None or mask is None or wanted is None or operator not in ("==", "!="):
        return UNKNOWN
    if key == "ct status" and mask == wanted and operator == "==":
        return _status(wanted)
    if key == "tcp flags" and "syn" in mask:
        # of what is judged, the first packets have this flag alone, and the others another one
        return Condition("tcp flags", ("+".join(wanted),), negated=operator == "!=")
    return UNKNOWN


def _status(values: tuple[str, ...]) -> Condition:
    return Condition("ct status dnat", ("yes",)) if values == ("dnat",) else UNKNOWN


def _key(left: Any) -> str | None:
    """What an expression asks for, in nft's words."""
    if not isinstance(left, dict):
        return None
    match left:
        case {"meta": {"key": str(name)}}:
            key = f"meta {name}"
        case {"ct": {"key": str(name), **rest}} if not rest:
            key = f"ct {name}"
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            key = f"{protocol} {name}"
        case {"fib": {"result": "type", "flags": flags}}:
            key = f"fib {' . '.join([flags] if isinstance(flags, str) else flags)} type"
        case _:
            return None
    return _SAME.get(key, key)


def _values(right: Any) -> tuple[str, ...] | None:
    """Alternatives; None when they are not known here, as those of a named set."""
    if isinstance(right, bool):
        return None
    if isinstance(right, int):
        return (str(right),)
    if isinstance(right, str):
        return None if right.startswith("@") else (right,)
    if isinstance(right, list):
        return _all(right)
    match right:
        case {"set": list(elements)}:
            return _all(elements)
        case {"set": element}:
            return _values(element)
        case {"elem": {"val": value}}:
            return _values(value)
        case {"prefix": {"addr": address, "len": length}}:
            return (f"{address}/{length}",)
        case {"range": [low, high]}:
            return (f"{low}-{high}",)
    return None


def _all(elements: Sequence[Any]) -> tuple[str, ...] | None:
    found: list[str] = []
    for element in elements:
        values = _values(element)
        if values is None:
            return None
        found += values
    return tuple(found)

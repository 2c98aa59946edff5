"""The part of pf.conf(5) that is emitted, read by the published grammar of each dialect.

Written from the BNF of the manual pages, without a look at the renderer: words that a dialect does
not know, or that stand at the wrong place, are an error.

    openbsd      rule = action [dir] "quick" ["on" if] [af] [proto] hosts {filteropt}, where
                 filteropt may be route-to, rdr-to, divert-to
    openbsd-4.6  translation before filter; rule = action [dir] "quick" ["on" if] [route] [af]
    freebsd      [proto] hosts {filteropt}; rdr = ["no"] "rdr" ["pass"] "on" if [af] [proto] hosts
                 ["->" address "port" number]
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from onionward.networks import Network

Item = TypeVar("Item")

_TOKEN = re.compile(r'"[^"]*"|->|><|<=|<\w+>|[{}(),!]|[^\s{}(),!]+')
PROTOCOLS = frozenset({"tcp", "udp", "icmp", "icmp6"})
ICMP_TYPES = frozenset({"echoreq"})
ICMP6_TYPES = frozenset({"echoreq", "neighbrsol", "neighbradv", "routersol", "routeradv"})


class GrammarError(Exception):
    """Not what pf.conf(5) says."""


@dataclass(frozen=True)
class Host:
    """One of a host list: everything, a network, a table or the addresses of an interface."""

    kind: str
    negated: bool = False
    network: Network | None = None
    name: str = ""


@dataclass(frozen=True)
class Range:
    """Numbers from the first to the last."""

    first: int
    last: int

    def holds(self, number: int | None) -> bool:
        return number is not None and self.first <= number <= self.last


@dataclass(frozen=True)
class Parsed:
    """A rule as it was read."""

    text: str
    kind: str  # pass, drop, return, rdr, no rdr
    direction: str = ""
    interface: str = ""
    interface_negated: bool = False
    family: int | None = None
    protocols: frozenset[str] = frozenset()
    source: tuple[Host, ...] = (Host("any"),)
    source_ports: tuple[Range, ...] = ()
    to: tuple[Host, ...] = (Host("any"),)
    ports: tuple[Range, ...] = ()
    users: tuple[Range, ...] = ()
    icmp_types: frozenset[str] = frozenset()
    flags: str = "S/SA"
    sloppy: bool = False
    turned: str = ""
    redirect: tuple[str, str, int] | None = None  # verb, address, port
    label: str = ""


@dataclass
class Anchor:
    """All that was read: tables, then translation and filter rules in their order."""

    tables: dict[str, tuple[Network, ...]] = field(default_factory=dict)
    translation: list[Parsed] = field(default_factory=list)
    filter: list[Parsed] = field(default_factory=list)


class _Line:
    def __init__(self, text: str) -> None:
        self.text = text
        self.words = _TOKEN.findall(text)
        self.place = 0

    def peek(self) -> str:
        return self.words[self.place] if self.place < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        self.place += 1
        return word

    def accept(self, word: str) -> bool:
        if self.peek() == word:
            self.place += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise GrammarError(f"{word!r} expected instead of {self.peek()!r}: {self.text}")

    def wrong(self, words: str) -> GrammarError:
        return GrammarError(f"{words}: {self.text}")


def parse(text: str, dialect: str) -> Anchor:
    """Read an anchor's text.

    Raises:
        GrammarError: it is not in the dialect.

    """
    anchor = Anchor()
    for line in _logical(text):
        words = _Line(line)
        if words.accept("table"):
            name, networks = _table(words)
            if anchor.translation or anchor.filter or name in anchor.tables:
                raise words.wrong("a table after rules, or twice")
            anchor.tables[name] = networks
        elif words.peek() in ("rdr", "no"):
            if dialect == "openbsd" or anchor.filter:
                raise words.wrong("translation is not allowed here")
            anchor.translation.append(_translation(words))
        else:
            anchor.filter.append(_filter(words, dialect))
        if words.peek():
            raise words.wrong(f"{words.peek()!r} at the end")
    for rule in (*anchor.translation, *anchor.filter):
        for host in (*rule.source, *rule.to):
            if host.kind == "table" and host.name not in anchor.tables:
                raise GrammarError(f"no table <{host.name}>: {rule.text}")
    return anchor


def _logical(text: str) -> list[str]:
    """Lines without comments; a table's braces may span several."""
    found: list[str] = []
    open_braces = 0
    for raw in text.splitlines():
        line = raw if raw.count('"') >= 2 else raw.split("#", 1)[0]
        if raw.startswith("#") or not line.strip():
            continue
        if open_braces:
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
        open_braces += line.count("{") - line.count("}")
    return found


def _table(words: _Line) -> tuple[str, tuple[Network, ...]]:
    name = words.take()
    if not re.fullmatch(r"<\w{1,31}>", name):
        raise words.wrong("not the name of a table")
    words.expect("const")
    words.expect("{")
    networks = []
    while not words.accept("}"):
        networks.append(ipaddress.ip_network(words.take()))
        words.accept(",")
    return name.strip("<>"), tuple(networks)


def _translation(words: _Line) -> Parsed:
    negated = words.accept("no")
    words.expect("rdr")
    if not negated:
        words.expect("pass")
    fields = _match(words, "")
    redirect = None
    if not negated:
        words.expect("->")
        redirect = ("rdr-to", *_endpoint(words, fields))
    return Parsed(words.text, "no rdr" if negated else "rdr", "in", redirect=redirect, **fields)


def _filter(words: _Line, dialect: str) -> Parsed:
    kind = words.take()
    if kind == "block":
        kind = words.take()
        if kind not in ("drop", "return"):
            raise words.wrong("block needs drop or return, whatever the main ruleset says")
    elif kind != "pass":
        raise words.wrong("not a rule")
    direction = words.take() if words.peek() in ("in", "out") else ""
    words.expect("quick")
    fields = _match(words, dialect)
    options = _options(words, fields, dialect)
    parsed = Parsed(words.text, kind, direction, **{**fields, **options})
    _consistent(words, parsed)
    return parsed


def _consistent(words: _Line, rule: Parsed) -> None:
    """What pfctl refuses, or takes without effect."""
    ports = rule.ports or rule.source_ports
    if (ports or rule.users) and not (rule.protocols and rule.protocols <= {"tcp", "udp"}):
        raise words.wrong("ports and owners are those of TCP and UDP")
    if rule.icmp_types and rule.protocols != {"icmp" if rule.family == 4 else "icmp6"}:
        raise words.wrong("types of ICMP need its protocol and family")
    if rule.turned and (rule.kind != "pass" or rule.direction != "out" or rule.family is None):
        raise words.wrong("what is routed elsewhere passes, and has a family")
    if rule.redirect and (rule.kind != "pass" or rule.direction != "in"):
        raise words.wrong("redirection is for what comes in")
    if rule.users and rule.direction != "out":
        raise words.wrong("the owner of what comes in is the receiver")
    if len(rule.label) > 63:
        raise words.wrong("pf's labels have 63 characters")


def _match(words: _Line, dialect: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if words.accept("on"):
        found["interface_negated"] = words.accept("!")
        found["interface"] = _interface(words)
    if dialect in ("openbsd-4.6", "freebsd") and words.accept("route-to"):
        found["turned"] = _route(words, dialect)
    if words.peek() in ("inet", "inet6"):
        found["family"] = 4 if words.take() == "inet" else 6
    if words.accept("proto"):
        found["protocols"] = frozenset(_list(words, _protocol))
    words.expect("from")
    found["source"] = tuple(_list(words, _host))
    if words.accept("port"):
        found["source_ports"] = tuple(_list(words, _port))
    words.expect("to")
    found["to"] = tuple(_list(words, _host))
    if words.accept("port"):
        found["ports"] = tuple(_list(words, _port))
    for name in ("source", "to"):
        listed = found[name]
        # a list of negations matches everything (pf.conf(5), macros and lists)
        if len(listed) > 1 and any(host.negated for host in listed):
            raise words.wrong("a negation in a list matches everything")
    return found


def _options(words: _Line, fields: dict[str, Any], dialect: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while word := words.take():
        if word == "user":
            found["users"] = tuple(_list(words, _user))
        elif word in ("icmp-type", "icmp6-type"):
            known = ICMP_TYPES if word == "icmp-type" else ICMP6_TYPES
            types = _list(words, lambda w: w.take())
            if not set(types) <= known or (fields.get("family") == 4) != (word == "icmp-type"):
                raise words.wrong(f"not of {word}")
            found["icmp_types"] = frozenset(types)
        elif word == "flags":
            found["flags"] = words.take()
        elif word == "keep":
            words.expect("state")
            for part in ("(", "sloppy", ")"):
                words.expect(part)
            found["sloppy"] = True
        elif word == "label":
            found["label"] = words.take().strip('"')
        elif word == "route-to" and dialect == "openbsd":
            found["turned"] = str(ipaddress.ip_address(words.take()))
        elif word in ("rdr-to", "divert-to") and dialect == "openbsd":
            found["redirect"] = (word, *_endpoint(words, fields))
        else:
            raise words.wrong(f"{word!r} is no option of {dialect}")
    return found


def _endpoint(words: _Line, fields: dict[str, Any]) -> tuple[str, int]:
    address = ipaddress.ip_address(words.take())
    if address.version != fields.get("family"):
        raise words.wrong("an address of another family")
    words.expect("port")
    return str(address), int(words.take())


def _route(words: _Line, dialect: str) -> str:
    if dialect == "openbsd-4.6":
        return _interface(words)
    words.expect("(")
    interface = _interface(words)
    ipaddress.ip_address(words.take())
    words.expect(")")
    return interface


def _interface(words: _Line) -> str:
    name = words.take()
    if not re.fullmatch(r"[A-Za-z][\w.]*\d", name):
        raise words.wrong(f"{name!r} is no interface")
    return name


def _list(words: _Line, read: Callable[[_Line], Item]) -> list[Item]:
    if not words.accept("{"):
        return [read(words)]
    found = []
    while not words.accept("}"):
        found.append(read(words))
        words.accept(",")
    if not found:
        raise words.wrong("an empty list")
    return found


def _protocol(words: _Line) -> str:
    name = words.take()
    if name not in PROTOCOLS:
        raise words.wrong(f"{name!r} is no protocol")
    return name


def _host(words: _Line) -> Host:
    negated = words.accept("!")
    word = words.take()
    if word == "any" and not negated:
        return Host("any")
    if word == "(":
        name = words.take()
        words.expect(")")
        return Host("self" if name == "self" else "interface", negated, name=name)
    if re.fullmatch(r"<\w+>", word):
        return Host("table", negated, name=word.strip("<>"))
    return Host("network", negated, ipaddress.ip_network(word))


def _port(words: _Line) -> Range:
    first, colon, last = words.take().partition(":")
    found = Range(int(first), int(last if colon else first))
    if not 0 < found.first <= found.last < 65536:
        raise words.wrong("not a port")
    return found


def _user(words: _Line) -> Range:
    if words.accept("<="):
        return Range(0, int(words.take()))
    first = int(words.take())
    if words.accept("><"):
        return Range(first + 1, int(words.take()) - 1)
    return Range(first, first)

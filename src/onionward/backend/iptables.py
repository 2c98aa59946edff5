"""iptables and ip6tables: check, apply, verify, remove. Knows these tools and no policy.

There is one transaction for each table of each family, and no more. Tables are committed in the
order raw, mangle, nat, filter: what redirects is there before what lets it pass, and both mangle
and filter refuse by themselves all that is not allowed, so that whatever mixture of old and new
tables is in force for a moment lets nothing pass that neither would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onionward.backend import fingerprint
from onionward.backend.iptables_held import AHEAD, MADE, PREFIX, Held, parse, tracked
from onionward.errors import CommandError, RefusedError, VerifyError
from onionward.system import find_tool
from onionward.tables import EGRESS_TABLE

if TYPE_CHECKING:
    from onionward.policy import Flow, Policy
    from onionward.render.iptables import Ruleset
    from onionward.render.iptables.text import Table
    from onionward.system import System

Variant = Literal["nft", "legacy"]
VERSIONS = (4, 6)

_ENDS = frozenset({"refused", "spoofed", "invalid", "escaped", "forwarded", "strangers"})
# not before it lets anything pass: what redirects goes first on the way down as well
_REMOVED = ("nat", "filter", "mangle", "raw")
_WAIT = "5"  # seconds for another iptables to finish
_LOADED = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}
_EGRESS = " ".join(EGRESS_TABLE)


class IpTables:
    """One variant of the tools: over nf_tables, or the older interface of the kernel."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self.NAME = f"iptables-{variant}"

    def block(self, policy: Policy) -> Ruleset:
        """The rules of the state "blocked"."""
        from onionward.render import iptables

        return iptables.block(policy, sets=_has_sets(), frames=_has_nft())

    def route(self, policy: Policy) -> Ruleset:
        """The rules of the state "routed"."""
        from onionward.render import iptables

        return iptables.route(policy, sets=_has_sets(), frames=_has_nft())

    def check(self, system: System, *rulesets: Ruleset) -> None:
        """Have the tools read rulesets without putting them in place.

        Sets that do not exist yet cannot be asked for, so rules that name them are left out.

        Raises:
            RefusedError: they do not accept one; with their words.

        """
        for ruleset in rulesets:
            for version in VERSIONS:
                text = self._document(system, ruleset, version)
                text = re.sub(r"(?m)^.* --(?:match|add)-set .*\n", "", text)
                try:
                    system.query(self._restore(version, "--test"), stdin=text, timeout=60)
                except CommandError as error:
                    raise RefusedError(
                        f"{self._tool(version, 'restore')} does not accept the rules for the state "
                        f"{ruleset.state}: {error.stderr.strip()}",
                        "nothing was changed; see the text with: onionward show iptables",
                    ) from error
            if ruleset.frames:
                from onionward.backend import nftables
                from onionward.render.nftables import Ruleset as Frames

                nftables.check(system, Frames(ruleset.state, ruleset.frames, (), ()))

    def apply(self, system: System, ruleset: Ruleset) -> None:
        """Put our chains in the place of those that are there; what others have stays.

        Raises:
            CommandError: a table was refused; those before it are the new ones.

        """
        from onionward.render.iptables import sets_text

        if ruleset.sets:
            words = f"ipset restore  # {len(ruleset.sets)} sets"
            argv = ["ipset", "-exist", "restore"]
            system.change(argv, stdin=sets_text(ruleset.sets), timeout=60, words=words)
        for version in VERSIONS:
            text = self._document(system, ruleset, version)
            words = f"{self._tool(version, 'restore')} --noflush  # {ruleset.state}"
            system.change(self._restore(version), stdin=text, timeout=60, words=words)
        if _has_nft():
            _load_frames(system, ruleset)
        _remove_sets(system, keep={one.name for one in ruleset.sets})

    def text(self, ruleset: Ruleset) -> str:
        """Rules as `put_back` takes them."""
        import json

        return json.dumps(ruleset)

    def put_back(self, system: System, text: str) -> None:
        """As `apply`, for rules that were in force before."""
        from onionward.render.iptables import from_json

        self.apply(system, from_json(text))

    def verify(self, system: System, ruleset: Ruleset) -> str:
        """Read back what the kernel holds and compare it with what was loaded.

        Returns:
            A digest of it, to compare with `digest` later.

        Raises:
            VerifyError: something is missing, more than was asked for, or not the first.

        """
        wrong: list[str] = []
        for version in VERSIONS:
            found = self._held(system, version)
            expected = {
                (table.name, name): len(rules)
                for table in ruleset.tables(version)
                for name, rules in table.chains
            }
            counted = {p: len(rules) for p, rules in found.chains.items() if p[1] != MADE}
            wrong += (
                f"IPv{version} {' '.join(place)}: {counted.get(place, 'no')} rules instead of "
                f"{expected.get(place, 'none')}"
                for place in sorted(counted.keys() | expected.keys())
                if counted.get(place) != expected.get(place)
            )
            wrong += (
                f"IPv{version} {table.name} {builtin}: {name} is not what comes first"
                for table in ruleset.tables(version)
                for builtin, name, place in _places(table)
                if (table.name, builtin, name, place) not in found.ways
            )
        held = self.read(system)
        if held is not None and self.watched_devices(held) != ruleset.devices:
            watched = self.watched_devices(held)
            wrong.append(f"watched interfaces: {watched} instead of {ruleset.devices}")
        if held is None or wrong:
            raise VerifyError(
                "the kernel holds other rules than were loaded: " + ("; ".join(wrong) or "none")
            )
        return self.digest(held)

    def remove_tables(self, system: System) -> None:
        """Remove all that is ours; nothing happens when there is nothing."""
        from onionward.render.iptables.text import Table, document

        if _has_nft() and _holds_frames(system):
            words = "nft --file -  # remove"
            text = f"delete table {_EGRESS}\n"
            system.change(["nft", "--file", "-"], stdin=text, words=words)
        empty = [Table(name, (), ()) for name in _REMOVED]
        for version in VERSIONS:
            held = self._held(system, version)
            # what tells that a table was not there before us goes with the table, or last
            stale = [place for place in held.chains if place[1] != MADE]
            if text := document(empty, held.unhooking, stale):
                words = f"{self._tool(version, 'restore')} --noflush  # remove"
                system.change(self._restore(version), stdin=text, timeout=60, words=words)
            self._remove_empty(system, version, held.made)
        other = IpTables("legacy" if self._variant == "nft" else "nft")
        # `up` has changed from one variant to the other: rules of that one ask the sets
        keep = _sets_in_use(system) if other.any_table(system) else set()
        _remove_sets(system, keep=keep)
        _remove_boot(system)

    def any_table(self, system: System) -> bool:
        """Whether something of ours is loaded."""
        return any(
            held.chains or held.ways
            for version in VERSIONS
            if self._may_hold(system, version)
            for held in (self._held(system, version),)
        )

    def read(self, system: System) -> str | None:
        """Our rules as iptables-save prints them, or None when nothing leads to them."""
        found = [self._held(system, version) for version in VERSIONS]
        if not all(any(way[0] in ("filter", "mangle") for way in held.ways) for held in found):
            return None
        frames = ""
        if _has_nft() and _holds_frames(system):
            frames = system.query(["nft", "list", "table", *EGRESS_TABLE], timeout=60)
        return "".join(held.text for held in found) + frames

    def held_state(self, held: str) -> Literal["blocked", "routed"] | None:
        """The state whose rules these are, by the name of an empty chain."""
        # a family that is blocked still: not everything is routed yet
        if f":{PREFIX}is-blocked " in held:
            return "blocked"
        return "routed" if f":{PREFIX}is-routed " in held else None

    def ahead(self, held: str) -> tuple[str, ...]:
        """Rules of others before the way to ours: table, chain, number and text."""
        return tuple(re.findall(rf"(?m)^{AHEAD}(.*)$", held))

    def digest(self, held: str) -> str:
        """A fingerprint of rules, the way to them, and devices; counts do not matter."""
        return fingerprint(re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", held))

    def counters(self, held: str) -> dict[str, int]:
        """Packets stopped, by reason: the rules at the end of the ways are counted."""
        found: dict[str, int] = {}
        for packets, name in re.findall(rf"(?m)^\[(\d+):\d+\] -A {PREFIX}(\w+)\S* ", held):
            if name in _ENDS:
                found[name] = found.get(name, 0) + int(packets)
        from onionward.backend import nftables

        for name, number in nftables.counters(held).items():
            found[name] = found.get(name, 0) + number
        return found

    def watched_devices(self, held: str) -> tuple[str, ...]:
        """Interfaces that the table of frames is hooked to."""
        from onionward.backend import nftables

        return nftables.watched_devices(held)

    def client_flows(self, system: System) -> tuple[Flow, ...]:
        """Connections of clients that may still be open, as connection tracking knows them."""
        from onionward.render.nftables.marks import MARK_CLIENT

        found: list[Flow] = []
        for family in ("ipv4", "ipv6"):
            shown = system.query(
                ["conntrack", "-L", "-f", family, "-p", "tcp", "-m", str(MARK_CLIENT)]
            )
            found += tracked(shown)
        return tuple(found)

    def remember(self, system: System, flows: Iterable[Flow]) -> None:
        """Nothing happens: connection tracking knows them, and it is not replaced with rules."""

    def _document(self, system: System, ruleset: Ruleset, version: int) -> str:
        from onionward.render.iptables.text import document

        held = self._held(system, version)
        tables = ruleset.tables(version)
        wanted = {(table.name, name) for table in tables for name, _ in table.chains}
        stale = [p for p in held.chains if p not in wanted and p[1] != MADE]
        marked = tuple(
            table._replace(chains=(*table.chains, (MADE, ())))
            if table.chains and (table.name not in held.tables or table.name in held.made)
            else table
            for table in tables
        )
        return document(marked, held.unhooking, stale)

    def _remove_empty(self, system: System, version: int, made: tuple[str, ...]) -> None:
        """Remove tables that we have made; the older interface of the kernel keeps its own."""
        from onionward.render.iptables.text import Table, document

        if not made:
            return
        others: Iterable[str] = made
        if self._variant == "nft" and _has_nft():
            others = self._held(system, version).others
        family = "ip" if version == 4 else "ip6"
        text = "".join(f"delete table {family} {name}\n" for name in made if name not in others)
        if text:
            words = "nft --file -  # remove empty tables"
            system.change(["nft", "--file", "-"], stdin=text, words=words)
        marks = [(name, MADE) for name in made if name in others]
        if text := document([Table(name, (), ()) for name, _ in marks], stale=marks):
            words = f"{self._tool(version, 'restore')} --noflush  # no mark of ours"
            system.change(self._restore(version), stdin=text, timeout=60, words=words)

    def _held(self, system: System, version: int) -> Held:
        return parse(system.query([self._tool(version, "save"), "-c"], timeout=60), version)

    def _may_hold(self, system: System, version: int) -> bool:
        """Whether it is worth asking, and the asking loads nothing into the kernel."""
        if not find_tool(self._tool(version, "save")):
            return False
        if self._variant == "legacy":
            try:
                return bool(_LOADED[version].read_text().strip())
            except FileNotFoundError:
                return False
        if not _has_nft():
            return True
        family = "ip" if version == 4 else "ip6"
        return f"table {family} filter\n" in system.query(["nft", "list", "tables"])

    def _tool(self, version: int, verb: str) -> str:
        return f"{'ip' if version == 4 else 'ip6'}tables-{self._variant}-{verb}"

    def _restore(self, version: int, *options: str) -> list[str]:
        return [self._tool(version, "restore"), "--noflush", "-w", _WAIT, *options]


def variant_here() -> Variant | None:
    """Which one `iptables` is on this machine; None where there is none."""
    path = find_tool("iptables-restore")
    if path is None:
        return None
    preferred: Variant = "legacy" if "legacy" in Path(path).resolve().name else "nft"
    return preferred if find_tool(f"iptables-{preferred}-restore") else None


def _places(table: Table) -> Iterator[tuple[str, str, int]]:
    """For each way to ours: the built-in chain, our chain, and which rule it is."""
    counted: dict[str, int] = {}
    for builtin, name in table.hooks:
        counted[builtin] = counted.get(builtin, 0) + 1
        yield builtin, name, counted[builtin]


def _has_sets() -> bool:
    return find_tool("ipset") is not None


def _has_nft() -> bool:
    return find_tool("nft") is not None


def _holds_frames(system: System) -> bool:
    return f"table {_EGRESS}" in system.query(["nft", "list", "tables"]).splitlines()


def _load_frames(system: System, ruleset: Ruleset) -> None:
    words = f"nft --file -  # frames, {ruleset.state}"
    if ruleset.frames:
        system.change(["nft", "--file", "-"], stdin=ruleset.frames, timeout=60, words=words)
    elif _holds_frames(system):
        text = f"delete table {_EGRESS}\n"
        system.change(["nft", "--file", "-"], stdin=text, timeout=60, words=words)
    _remove_boot(system)


def _remove_boot(system: System) -> None:
    """Remove what blocks since the boot; only nft can have loaded it."""
    if not _has_nft():
        return
    from onionward.backend import nftables
    from onionward.tables import remove_boot

    if nftables.blocked_since_boot(system):
        words = "nft --file -  # remove the block of the boot"
        system.change(["nft", "--file", "-"], stdin=remove_boot(), words=words)


def _sets_in_use(system: System) -> set[str]:
    if not _has_sets():
        return set()
    listed = system.query(["ipset", "list", "-terse"])
    found = re.findall(r"(?ms)^Name: (\S+)$.*?^References: (\d+)$", listed)
    return {name for name, references in found if references != "0"}


def _remove_sets(system: System, keep: set[str]) -> None:
    if not _has_sets():
        return
    for name in system.query(["ipset", "list", "-name"]).split():
        if name.startswith(PREFIX) and name not in keep:
            system.change(["ipset", "destroy", name])

"""Which rule stops tor, asked of the kernel while tor tries (nft(8), monitor; meta nftrace)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from onionward.render.nftables.marks import MARK_TOR
from onionward.system import System
from onionward.tables import TRACE_TABLE, remove_trace

_LISTENS = 4  # seconds; an unanswered connection is tried again after 1, 2, 4, 8, …
_LAST = "last_out"
_EVENT = re.compile(r"trace id (\w+) (\w+) (\S+) (\S+) (packet:|rule|policy|verdict) ?(.*)")


class Stop(NamedTuple):
    """What stopped a packet.

    Attributes:
        place: family, table and chain; "" when nft does not know it.
        rule: the rule's text; "" for a policy.

    """

    place: str
    rule: str

    def words(self) -> str:
        """For people."""
        if not self.place:
            return (
                "something that nft does not show, such as iptables-legacy or a BPF program: see "
                "iptables-legacy-save"
            )
        family, table, chain = self.place.split()
        by = f"its rule: {self.rule}" if self.rule else "its policy: drop"
        return f"table {family} {table}, chain {chain}, {by}"


def stopped(system: System, uid: int) -> tuple[Stop, ...]:
    """What stops TCP of tor's account, or answers to it, while this listens; () for nothing.

    Args:
        system: the seam.
        uid: of the account.

    Raises:
        CommandError: nft refused.

    """
    # `down` removes this table whenever it finds it, so that it needs no entry in the journal
    system.change(["nft", "--file", "-"], stdin=_table(uid), words="nft --file -  # trace")
    try:
        argv = ["timeout", "--signal=INT", str(_LISTENS), "nft", "monitor", "trace"]
        text = system.query(argv, timeout=_LISTENS + 10, accept=(0, 124))
    finally:
        words = "nft --file -  # end of trace"
        system.change(["nft", "--file", "-"], stdin=remove_trace(), words=words)
    return stops(text.splitlines())


def _table(uid: int) -> str:
    # at most a few packets a second: each passes every rule of the machine twice as slowly
    some = "limit rate 20/second meta nftrace set 1"
    return "\n".join(
        (
            remove_trace() + f"table {' '.join(TRACE_TABLE)} {{",
            "\tchain first_out {",
            "\t\ttype filter hook output priority -450; policy accept;",
            f"\t\tmeta skuid {uid} meta l4proto tcp {some}",
            "\t}",
            "\tchain first_in {",
            # after connection tracking, which knows whose answer it is
            "\t\ttype filter hook prerouting priority -190; policy accept;",
            f"\t\tct mark {MARK_TOR:#x} {some}",
            "\t}",
            f"\tchain {_LAST} {{",
            "\t\ttype filter hook postrouting priority 1000; policy accept;",
            "\t}",
            "}",
            "",
        )
    )


def stops(lines: Iterable[str]) -> tuple[Stop, ...]:
    """What `nft monitor trace` says of packets that did not arrive, the commonest first."""
    left: dict[str, bool] = {}
    found: dict[Stop, int] = {}
    for line in lines:
        event = _EVENT.match(line)
        if event is None:
            continue
        packet, family, table, chain, kind, rest = event.groups()
        if (family, table) == TRACE_TABLE:
            # a packet that came in has no way out to be seen on
            left[packet] = left.get(packet, False) or chain != "first_out"
            continue
        text = rest.strip()
        is_rule = kind == "rule" and text.endswith("(verdict drop)")
        if not is_rule and (kind, text) not in (("policy", "drop"), ("verdict", "drop")):
            continue
        left[packet] = True
        # ours refuse what tor may not send, whatever its account asks for
        if not table.startswith("onionward"):
            rule = _without_counts(text.removesuffix("(verdict drop)")) if is_rule else ""
            stop = Stop(f"{family} {table} {chain}", rule)
            found[stop] = found.get(stop, 0) + 1
    if not found and left and not any(left.values()):
        return (Stop("", ""),)
    return tuple(sorted(found, key=lambda stop: -found[stop]))


def _without_counts(rule: str) -> str:
    return re.sub(r"counter packets \d+ bytes \d+", "counter", rule).strip()


def words(found: Iterable[Stop]) -> str:
    """For people; "" for nothing."""
    places = "; and by ".join(stop.words() for stop in found)
    return f"its packets are stopped by another program's firewall: {places}" if places else ""

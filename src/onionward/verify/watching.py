"""What captures show: sightings of vectors, and what else left over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from onionward.leaks.wire import Capture, Exempt, Packet
from onionward.verify.judge import Key
from onionward.verify.plan import Trial
from onionward.verify.report import Marks, Sighting

_TOGETHER = 24  # filters of one reading, when mostly nothing is found
_READERS = 2
_BIN = 0.1  # seconds

Thing = TypeVar("Thing")
Found = TypeVar("Found")

Captures = Mapping[str, Capture]
"""By interface."""


def sightings(
    captures: Captures, trials: Sequence[Trial], *, expected: bool
) -> dict[Key, Sighting]:
    """What was seen of each trial; nothing is said of those that were not seen.

    Args:
        captures: finished.
        trials: what to look for.
        expected: whether most of them are likely to be there, which decides how to look.

    """
    found: dict[Key, Sighting] = {}
    for interface, capture in captures.items():
        wanted = list(trials) if expected else _present(capture, trials)
        for trial, packets in _each(wanted, partial(_packets, capture)):
            if packets:
                first = packets[0]
                before = found.get(trial.key, Sighting(0)).packets
                found[trial.key] = Sighting(
                    before + len(packets), first.time, first.words, interface
                )
    return found


def _packets(capture: Capture, trial: Trial) -> tuple[Packet, ...]:
    return capture.packets(trial.filter)


def _present(capture: Capture, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of those groups of which anything was seen."""
    groups = [trials[at : at + _TOGETHER] for at in range(0, len(trials), _TOGETHER)]
    seen = _each(groups, lambda group: capture.count(_any(trial.filter for trial in group)))
    return [trial for group, packets in seen if packets for trial in group]


def _each(things: Sequence[Thing], look: Callable[[Thing], Found]) -> list[tuple[Thing, Found]]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(zip(things, pool.map(look, things), strict=True))


def _any(filters: Iterable[str]) -> str:
    return " or ".join(f"({one})" for one in filters)


def traffic(
    uplink: Captures,
    control: Captures,
    trials: Sequence[Trial],
    seen: Iterable[Key],
    exempt: Exempt,
    local: Sequence[str],
) -> tuple[Marks, ...]:
    """Everything that left, by what it was.

    Args:
        uplink: captures of the machine's interfaces.
        control: capture of the scratch network.
        trials: all.
        seen: those that were seen on the uplink.
        exempt: what a routed machine may put on its wire, with tor's relays.
        local: filters of what the policy lets through besides.

    """
    leaked = set(seen)
    canary = _any(trial.filter for trial in trials if trial.key in leaked) or "less 0"
    tor = _any(f"tcp and dst host {host} and dst port {port}" for host, port in exempt.relays)
    tor = tor or "less 0"
    link = _any((Exempt(networks6=exempt.networks6, dhcp=exempt.dhcp).filter(), *local))
    kinds = {
        "canary": canary,
        "tor": f"({tor}) and not ({canary})",
        "link": f"({link}) and not ({canary}) and not ({tor})",
        "other": f"not ({canary}) and not ({tor}) and not ({link})",
    }
    marks = [
        Marks(kind, _counts(p for capture in uplink.values() for p in capture.packets(words)))
        for kind, words in kinds.items()
    ]
    everything = (packet for capture in control.values() for packet in capture.packets(""))
    return (*marks, Marks("control", _counts(everything)))


def _counts(packets: Iterable[Packet]) -> tuple[tuple[float, int], ...]:
    bins = Counter(int(packet.time / _BIN) for packet in packets)
    return tuple((round(place * _BIN, 1), count) for place, count in sorted(bins.items()))

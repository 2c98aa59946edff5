"""What `status` found, for people and for programs, on every system."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onionward.printable import printable

if TYPE_CHECKING:
    from onionward.bsd.status import Status as BsdStatus
    from onionward.status import Status

_SHOWN = 5  # events, senders, attempts: all of it is to fit a screen
EXIT_STATUS = {"routed": 0, "off": 3, "blocked": 4, "open": 5}
"""Of `onionward status`; 1 and 2 are those of every command."""
_STATES = {
    "off": "off: traffic leaves in clear",
    "blocked": "blocked: nothing of the scopes below leaves but tor itself",
    "routed": "routed: the scopes below go through Tor or nowhere",
    "open": "OPEN: traffic leaves in clear",
}
_SINCE_BOOT = "blocked since boot: nothing of the scopes leaves, tor included"


def to_json(status: Status | BsdStatus) -> str:
    """For programs."""
    return json.dumps(asdict(status), indent=2)


def _event(event: Mapping[str, Any]) -> str:
    moment = time.strftime("%m-%d %H:%M:%S", time.localtime(event["time"]))
    often = f" ({event['count']} times)" if event["count"] > 1 else ""
    return f"{moment} {event['words']}{often}"


def _since(status: Status | BsdStatus) -> list[str]:
    if not status.since:
        return []
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.since))
    return [f"  since     {moment}"]


def _activation(status: Status | BsdStatus, *of_linux: str) -> list[str]:
    process = f" (process {status.tor_pid})" if status.tor_pid else ""
    return [
        *([f"  config    {status.config}"] if status.config else []),
        *(f"  scope     {words}" for words in status.scopes),
        *of_linux,
        f"  tor       {status.tor}{process}",
    ]


def to_text(status: Status) -> str:
    """For people."""
    lines = [_SINCE_BOOT if status.since_boot else _STATES[status.state], *_since(status)]
    if status.confirm is not None:
        lines.append(f"  confirm   undone in {status.confirm} s without `onionward confirm`")
    if status.state != "off":
        behind = (f"  clients   behind {name}: {what}" for name, what in status.forwarded.items())
        lines += [
            *_activation(status, *behind),
            *(f"  paused    {_pause(one)}" for one in status.paused),
            *_relays(status),
            *_places(status),
            *_clock(status),
            f"  resolver  {status.resolver}{', asked by unbound' if status.full_dns else ''}",
            f"  guard     {status.guard}",
            *([f"  watched   {', '.join(status.interfaces)}"] if status.interfaces else []),
            "  stopped   "
            + (", ".join(f"{n} {name}" for name, n in status.counters.items()) or "nothing"),
            *(f"  by        {_sender(count)}" for count in status.stopped[:_SHOWN]),
            *_more("by", len(status.stopped), "senders"),
            *(f"  tried     {attempt['words']}" for attempt in status.attempts[-_SHOWN:]),
            *_more("tried", len(status.attempts), "attempts"),
        ]
    lines += [f"  guard     {_event(event)}" for event in status.guard_events[-_SHOWN:]]
    if status.at_boot == "enabled":
        lines.append("  at boot   blocked before there is a network, then routed")
    lines += [f"  limit     {limit}" for limit in status.limits]
    lines += [f"  problem   {problem}" for problem in status.problems]
    return "\n".join(map(printable, lines))


def _relays(status: Status) -> list[str]:
    if status.tor_bootstrap is None:
        return []
    if status.tor_bootstrap < 100:
        return [f"  bootstrap {status.tor_bootstrap} %: {status.tor_phase}"]
    guards, exits = ", ".join(status.tor_guards), ", ".join(status.tor_exits)
    return [
        f"  circuits  {status.tor_circuits}"
        + (f"; guard {guards}; exit {exits}" if status.tor_circuits else ""),
        *([f"  seen as   {status.exit_address}"] if status.exit_address else []),
    ]


def _places(status: Status) -> list[str]:
    if status.tor_places is None:
        return []
    of = f"the consensus (valid until {status.consensus_valid_until} UTC)"
    whose = of if status.consensus_valid_until else "bridges, or where tor begins"
    return [f"  relays    tor reaches {status.tor_places} places and no other: {whose}"]


def _clock(status: Status) -> list[str]:
    if status.clock_skew is None:
        return []
    from onionward.tor.clock import Skew

    return [f"  clock     {Skew(status.clock_skew, status.clock_source).words()}"]


def _sender(count: Mapping[str, Any]) -> str:
    who = f"{count['client']} behind {count['interface']}" if count["client"] else count["account"]
    return f"{who}: {count['packets']} {count['protocol'].upper()} {count['reason']}"


def _pause(one: Mapping[str, Any]) -> str:
    since, until = (
        "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        for at in (one["since"], one["until"])
    )
    return f"{one['account']} since {since}: nothing gets through" + (
        f"; until {until}" if until else ""
    )


def _more(label: str, number: int, what: str) -> list[str]:
    if number <= _SHOWN:
        return []
    return [f"  {label:<9} {number - _SHOWN} more {what}: onionward status --json"]


def to_text_on_bsd(status: BsdStatus) -> str:
    """For people, with pf."""
    lines = [_STATES[status.state], *_since(status)]
    if status.state != "off":
        lines += _activation(status)
    if status.at_boot == "enabled":
        lines.append("  at boot   blocked by pf.conf, then routed")
    lines += [f"  problem   {problem}" for problem in status.problems]
    return "\n".join(map(printable, lines))

"""Which commands an account may send to tor's control port, and what it may hear (control-spec).

The port lets its user read every connection of everybody, and redirect, publish and halt. What
passes here tells no more than tor's state and the amount of traffic, which the counters of network
interfaces tell every account anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_LINE = 2048  # bytes; the longest command that passes is far shorter

_GETINFO = frozenset(
    {
        "version",
        "network-liveness",
        "dormant",
        "uptime",
        "traffic/read",
        "traffic/written",
        "status/bootstrap-phase",
        "status/circuit-established",
        "status/enough-dir-info",
        "status/version/current",
        "status/version/recommended",
    }
)
_GETINFO_WORDS = "|".join(sorted(map(re.escape, _GETINFO)))
_EVENTS = frozenset({"BW", "STATUS_CLIENT", "STATUS_GENERAL", "NETWORK_LIVENESS"})
# The others carry addresses and host names that somebody else has asked for, or an error's text.
_STATUS_ACTIONS = frozenset(
    {
        "BOOTSTRAP",
        "ENOUGH_DIR_INFO",
        "NOT_ENOUGH_DIR_INFO",
        "CONSENSUS_ARRIVED",
        "CIRCUIT_ESTABLISHED",
        "CIRCUIT_NOT_ESTABLISHED",
        "CLOCK_JUMPED",
        "DIR_ALL_UNREACHABLE",
        "DANGEROUS_VERSION",
        "TOO_MANY_CONNECTIONS",
    }
)
# of a relay that cannot be reached: somebody's bridge, perhaps
_ADDRESSES = re.compile(r' (?:HOSTID|HOSTADDR)=(?:"(?:[^"\\]|\\.)*"|\S*)')

FILTERED = "510 Command filtered"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a command.

    Attributes:
        forward: the line that tor gets, or "".
        answer: the lines that the account gets at once, without their ends.
        ends: whether the connection is closed then.
        skips_data: whether a block of data follows, up to a line with a single dot.

    """

    forward: str = ""
    answer: tuple[str, ...] = ()
    ends: bool = False
    skips_data: bool = False


def judge(line: str) -> Verdict:
    """What becomes of a line that the account has sent, given without its end.

    What tor gets is put together anew from words of these lists.
    """
    if not line.isascii() or not line.isprintable():
        return Verdict(answer=(FILTERED,))
    keyword, *arguments = line.split(" ")
    match keyword.upper():
        case "PROTOCOLINFO":
            return Verdict(answer=("250-PROTOCOLINFO 1", "250-AUTH METHODS=NULL", "250 OK"))
        case "AUTHENTICATE":
            # who may connect is settled by the socket's owner and mode
            return Verdict(answer=("250 OK",))
        case "QUIT":
            return Verdict(answer=("250 closing connection",), ends=True)
        case "GETINFO" if arguments and _GETINFO.issuperset(arguments):
            return Verdict(forward=" ".join(["GETINFO", *arguments]))
        case "SETEVENTS":
            return _judge_events([argument.upper() for argument in arguments])
        case "SIGNAL" if [argument.upper() for argument in arguments] == ["NEWNYM"]:
            return Verdict(forward="SIGNAL NEWNYM")
        case "USEFEATURE" if {a.upper() for a in arguments} <= {"EXTENDED_EVENTS", "VERBOSE_NAMES"}:
            # always on in every tor that is still alive
            return Verdict(answer=("250 OK",))
    return Verdict(answer=(FILTERED,), skips_data=line.startswith("+"))


def _judge_events(events: list[str]) -> Verdict:
    events = [event for event in events if event not in ("", "EXTENDED")]
    if not _EVENTS.issuperset(events):
        return Verdict(answer=(FILTERED,))
    return Verdict(forward=" ".join(["SETEVENTS", *events]))


def is_event(line: str) -> bool:
    """Whether a line from tor is an event, and no part of an answer."""
    return line.startswith("6")


def is_last(line: str) -> bool:
    """Whether a line from tor ends an answer."""
    return re.match(r"\d{3} ", line) is not None


def passed(line: str) -> str | None:
    """A line from tor as the account gets it, or None when it gets nothing."""
    if not is_event(line):
        return _ADDRESSES.sub("", line) if _is_plain_answer(line) else None
    found = re.fullmatch(
        r"650 (?:BW \d+ \d+.*|NETWORK_LIVENESS \w+|STATUS_(?:CLIENT|GENERAL) \w+ (\w+).*)", line
    )
    if found is None or found[1] not in (None, *_STATUS_ACTIONS):
        return None
    return _ADDRESSES.sub("", line)


def _is_plain_answer(line: str) -> bool:
    """Whether a line answers what `judge` lets pass: a value that was asked for, or a status."""
    return re.match(rf"250-(?:{_GETINFO_WORDS})=|[2-5]\d\d ", line) is not None

"""Kernel settings of LAN interfaces while clients are routed; see ip-sysctl in the kernel's docs.

Nothing here forwards a packet. IPv4 forwarding is not touched; IPv6 packets are forwarded only with
`conf.all.forwarding` (or `force_forwarding`), which is not touched either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from onionward import iproute2
from onionward.errors import CommandError
from onionward.system import System

PROC_SYS = Path("/proc/sys")

# Written in this order, for each interface.
_WANTED: Mapping[str, str] = {
    # a client must not become our router; see _accept_ra for a router that is there already
    "net/ipv6/conf/{}/accept_ra": "0",
    # sets the router flag of neighbour advertisements, without which clients drop us as their
    # router as soon as they check whether we are alive (RFC 4861, 7.2.5)
    "net/ipv6/conf/{}/forwarding": "1",
    # a redirect would send clients past us, and they remember it after our rules are back
    "net/ipv4/conf/{}/send_redirects": "0",
    # clients must not reach services on loopback in a moment without rules
    "net/ipv4/conf/{}/route_localnet": "0",
    # without it the LAN learns by ARP which addresses the other interfaces have
    "net/ipv4/conf/{}/arp_ignore": "1",
}
# redirects are sent when either the interface's value or this one allows them
_ALL_SEND_REDIRECTS = "net/ipv4/conf/all/send_redirects"
_ALL_FORWARDING = "net/ipv6/conf/all/forwarding"


class Saved(TypedDict):
    """How to put the settings back; JSON in the journal. Names are paths below /proc/sys.

    Attributes:
        before: what each setting was.
        ours: what it becomes, in the order of writing.
        held: accept_ra of other interfaces that have learned routes from a router. The kernel
            forgets those routes when any interface becomes a router, unless accept_ra is 2 at
            that moment.
        all_forwarding: `conf.all.forwarding`, or "" without IPv6. Who changes it changes the
            value of every interface.

    """

    before: dict[str, str]
    ours: dict[str, str]
    held: dict[str, str]
    all_forwarding: str


def survey(
    system: System,
    interfaces: Iterable[str],
    earlier: Saved | None = None,
    *,
    proc_sys: Path = PROC_SYS,
) -> Saved:
    """What the settings are now, before anything changes.

    Args:
        system: the seam.
        interfaces: those of the LANs; what does not exist is passed over.
        earlier: an earlier survey of the same interfaces, which prevails; what has appeared since
            is added.
        proc_sys: where the kernel shows its settings.

    Raises:
        CommandError: the routes cannot be read.

    """
    names = tuple(interfaces)
    learners = _learners(system, proc_sys)
    before: dict[str, str] = {}
    ours: dict[str, str] = {}
    if names:
        _add(_ALL_SEND_REDIRECTS, "0", before, ours, proc_sys)
    for interface in names:
        for pattern, wanted in _WANTED.items():
            name = pattern.format(interface)
            if pattern.endswith("/accept_ra") and interface in learners:
                # the uplink's router is on this LAN too: as a router we hear it with 2 only
                wanted = "2"
            _add(name, wanted, before, ours, proc_sys)
    held = {}
    for interface in learners:
        name = f"net/ipv6/conf/{interface}/accept_ra"
        value = _read(proc_sys, name)
        if value not in (None, "2") and name not in before:
            held[name] = value
    saved = Saved(
        before=before,
        ours=ours,
        held=held,
        all_forwarding=_read(proc_sys, _ALL_FORWARDING) or "",
    )
    if earlier is not None:
        saved["before"] |= earlier["before"]
        saved["ours"] |= earlier["ours"]
        saved["held"] |= earlier["held"]
        saved["all_forwarding"] = earlier["all_forwarding"]
    return saved


def _add(
    name: str, wanted: str, before: dict[str, str], ours: dict[str, str], proc_sys: Path
) -> None:
    value = _read(proc_sys, name)
    if value is not None:
        before[name] = value
        ours[name] = wanted


def _learners(system: System, proc_sys: Path) -> tuple[str, ...]:
    """Interfaces with routes that a router has announced."""
    if not (proc_sys / "net/ipv6").is_dir():
        return ()
    argv = ["ip", "-6", "-j", "route", "show", "table", "all", "proto", "ra"]
    routes = iproute2.entries(system.query(argv))
    return tuple(dict.fromkeys(r["dev"] for r in routes if "dev" in r))


def _read(proc_sys: Path, name: str) -> str | None:
    try:
        return (proc_sys / name).read_text().strip()
    except OSError:
        # the interface is gone, or the kernel has no IPv6
        return None


def apply(system: System, saved: Saved, *, proc_sys: Path = PROC_SYS) -> None:
    """Write the settings of a survey; what is so already is not written again.

    Raises:
        CommandError: the kernel refuses one, though its interface exists.

    """
    differing = {n: v for n, v in saved["ours"].items() if _read(proc_sys, n) not in (None, v)}
    becomes_router = any(n.endswith("/forwarding") for n in differing)
    # 2: an earlier run was killed before it let go
    reach = ("2", *saved["held"].values()) if becomes_router else ("2",)
    held = {n: v for n, v in saved["held"].items() if differing and _read(proc_sys, n) in reach}
    # one command: nothing comes between holding a router's routes and letting go
    _write(
        system,
        [
            *((name, "2") for name in held),
            *((n, v) for n, v in differing.items() if n.startswith("net/ipv6/")),
            *held.items(),
            *((n, v) for n, v in differing.items() if not n.startswith("net/ipv6/")),
        ],
        proc_sys,
    )


def _write(system: System, settings: list[tuple[str, str]], proc_sys: Path) -> None:
    """Write settings in order; an interface that goes meanwhile is no error."""
    if not settings:
        return
    # names with slashes, because a dot may be part of an interface's name (sysctl(8))
    try:
        system.change(["sysctl", "-q", "-w", *(f"{name}={value}" for name, value in settings)])
    except CommandError:
        # sysctl goes on after a setting that it cannot write
        if any(_read(proc_sys, n) not in (None, v) for n, v in dict(settings).items()):
            raise


def restore(system: System, saved: Saved, *, proc_sys: Path = PROC_SYS) -> str:
    """Put the settings back, unless somebody else has changed them since.

    Works from every point at which `apply` can have been interrupted, and twice.

    Returns:
        What was left alone and why, or "".

    Raises:
        CommandError: the kernel refuses a value, though its interface exists.

    """
    now = {name: _read(proc_sys, name) for name in saved["before"]}
    notes = []
    back = []
    for name, before in saved["before"].items():
        if now[name] in (None, before):
            continue
        if now[name] != saved["ours"][name] or _is_others(name, saved, proc_sys):
            notes.append(name)
        else:
            back.append((name, before))
    if any(now[n] == b != saved["ours"][n] for n, b in saved["before"].items()):
        # not everything was written, so accept_ra may still be held
        back += [(n, v) for n, v in saved["held"].items() if _read(proc_sys, n) == "2"]
    _write(system, back, proc_sys)
    if not notes:
        return ""
    verb = "were" if len(notes) > 1 else "was"
    return f"{', '.join(notes)} {verb} changed by somebody else meanwhile and left so"


def parted(saved: Saved, interfaces: Iterable[str]) -> tuple[Saved | None, Saved | None]:
    """Of a survey, what belongs to these interfaces and what to others; None for nothing.

    What belongs to no interface goes with the former, unless there are none.
    """
    names = set(interfaces)
    if not names:
        return None, saved
    others = {n for n in saved["before"] if n.split("/")[3] not in (*names, "all")}
    if not others:
        return saved, None
    kept, gone = (
        Saved(
            before={n: v for n, v in saved["before"].items() if (n in others) is is_gone},
            ours={n: v for n, v in saved["ours"].items() if (n in others) is is_gone},
            held={} if is_gone else saved["held"],
            all_forwarding=saved["all_forwarding"],
        )
        for is_gone in (False, True)
    )
    return kept, gone


def _is_others(name: str, saved: Saved, proc_sys: Path) -> bool:
    """Whether the value that we want is somebody else's too, who switched forwarding on."""
    if not name.endswith("/forwarding"):
        return False
    return _read(proc_sys, _ALL_FORWARDING) not in (None, saved["all_forwarding"])

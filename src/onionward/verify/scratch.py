"""The positive control: the uplink once more, in a network that leads nowhere.

    ┌ a network of its own ─────────────────────────────┐  ┌ another ─┐
    │ probes ── NAME (addresses, routes of the uplink) ─┼──┼─ far0    │
    └───────────────────────────────────────────────────┘  └──────────┘
                └ the same tcpdump as on the real uplink

What the same probes send there must be seen, or the detector is worth nothing. Nothing of the
machine's own network is touched, and no packet has anywhere to go: `far0` is the other end of a
veth, in a network where one process listens for names. All of it goes with its last process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onionward.errors import LabError
from onionward.leaks.model import Targets
from onionward.system import DIES_WITH_US, System
from onionward.verify import scratch_inside
from onionward.verify.aims import Uplink

_NEAR_HARDWARE = "02:0e:ad:ff:ff:01"
_ROUTER_HARDWARE = "02:0e:ad:ff:ff:02"
_HIDDEN = (Path("/run/systemd/resolve"), Path("/run/nscd"))


@dataclass(frozen=True, slots=True)
class Scratch:
    """A running one.

    Attributes:
        enter: the command that leads into it, up to its `--`.

    """

    enter: tuple[str, ...]


def lines(uplink: Uplink, targets: Targets, far: int) -> tuple[str, ...]:
    """What `ip -batch` is told to make the copy of an uplink; `far` is a process at its end."""
    near, router4 = uplink.device, targets.gateway4
    here4 = uplink.address4 or f"{targets.host4}/32"
    here6 = uplink.address6 or f"{targets.host6}/64"
    routers6 = {targets.gateway6, targets.router6}
    card = uplink.router_hardware or _ROUTER_HARDWARE
    own = uplink.hardware or _NEAR_HARDWARE
    brd = f" broadcast {uplink.broadcast4}" if uplink.broadcast4 else ""
    return (
        "link set lo up",
        f"link add {near} address {own} type veth peer name far0 netns {far}",
        f"address add {here4}{brd} dev {near}",
        f"address add {here6} dev {near} nodad",
        f"link set {near} up",
        # known from the start: nobody would answer
        f"neighbour replace {router4} lladdr {card} nud permanent dev {near}",
        *(f"neighbour replace {r} lladdr {card} nud permanent dev {near}" for r in routers6),
        f"route add default via {router4} dev {near} onlink",
        f"route add ::/0 via {targets.router6} dev {near}",
    )


def far_lines(uplink: Uplink, targets: Targets) -> tuple[str, ...]:
    """The same for the far end, which is the router and a resolver that listens to TCP."""
    return (
        f"link set far0 address {uplink.router_hardware or _ROUTER_HARDWARE} up",
        f"address add {targets.dns4}/32 dev far0",
        f"neighbour add {targets.host4} lladdr {uplink.hardware or _NEAR_HARDWARE} dev far0",
        f"route add {targets.host4}/32 dev far0",
    )


@contextlib.contextmanager
def opened(system: System, uplink: Uplink, targets: Targets, place: Path) -> Iterator[Scratch]:
    """Make it; it ends with the block, and with this program however that ends.

    Args:
        system: the seam.
        uplink: to be copied.
        targets: where probes aim.
        place: for a file, which the caller removes.

    Raises:
        LabError: the kernel or its settings do not allow it.

    """
    spaces = ("--net", "--mount")
    argv = [*DIES_WITH_US, "unshare", *spaces, "--propagation", "private", "--"]
    argv += [sys.executable, "-I", "-S", scratch_inside.__file__]
    resolv_conf = place / "resolv.conf"
    resolv_conf.write_text(f"nameserver {targets.dns4}\noptions timeout:1 attempts:1\n")
    resolv_conf.chmod(0o644)
    argv += [str(resolv_conf), *(str(path) for path in _HIDDEN)]
    holder = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        far = _far_end(holder)
        enter = ("nsenter", "--target", str(holder.pid), *spaces, "--")

        batch = "\n".join(lines(uplink, targets, far)) + "\n"
        system.query([*enter, "ip", "-batch", "-"], stdin=batch)
        at_far = ("nsenter", "--target", str(far), *spaces, "--")
        batch = "\n".join(far_lines(uplink, targets)) + "\n"
        system.query([*at_far, "ip", "-batch", "-"], stdin=batch)
        yield Scratch(enter)
    finally:
        holder.kill()
        holder.communicate()


def _far_end(holder: subprocess.Popen[str]) -> int:
    """Wait until it is ready; returns the process at the far end."""
    words, _, far = (holder.stdout.readline() if holder.stdout else "").strip().partition(" ")
    if words != "ready":
        holder.kill()
        _, errors = holder.communicate()
        raise LabError(
            f"no network for the positive control can be made: {errors.strip() or words}",
            "the detector was not shown to work, so nothing was tried",
        )
    return int(far)


def inside(scratch: Scratch | None, argv: Sequence[str]) -> list[str]:
    """Arguments that run a command in the scratch network, or here; it dies with this program."""
    return [*DIES_WITH_US, *(scratch.enter if scratch else ()), *argv]


def interpreter() -> tuple[str, ...]:
    """The Python that runs, without the current directory, which is anybody's, in its path."""
    return (sys.executable, "-P")

"""The namespaces of a rootless run: a user namespace that holds a network without a way out.

The user namespace maps the account to itself and nobody else, so set-user-ID programs of others and
files with capabilities give nothing inside. The command has no capability in it; one that makes a
user namespace of its own is root there, over nothing that belongs to this one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from onionward.app import kernel
from onionward.app.rootless import network
from onionward.app.rootless.diagnosis import open_socket
from onionward.app.rootless.inside import Inside
from onionward.app.rootless.refusals import refusal
from onionward.errors import CommandError, StepError
from onionward.system import System, at_once

_BACKLOG = 4096
_NEEDS = (
    "it takes iproute2, nftables, and the kernel's nf_tables and dummy (or veth); "
    "nothing of it is left"
)


def enter() -> None:
    """Leave the user, network and IPC namespaces; this process has all rights in the new ones.

    Raises:
        StepError: the kernel forbids it; says which setting does.

    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
        for name, text in (
            ("setgroups", "deny"),  # user_namespaces(7): else the groups may not be mapped
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  # pathlib takes long
                file.write(text)
    except OSError as error:
        raise refusal(error) from error


def set_up(system: System) -> Inside:
    """Build the network of this process's namespace and open the sockets of the forwarder.

    Raises:
        StepError: a tool is missing or fails, or the kernel lacks a part of nftables.

    """
    ipv6 = Path("/proc/self/net/if_inet6").exists()
    kernel.keep_capability(kernel.CAP_NET_ADMIN)
    try:
        at_once(
            # some kernels have no dummy devices, others no pairs; the routes tell whether one came
            lambda: system.change(
                ["ip", "-force", "-batch", "-"],
                stdin=network.links(ipv6=ipv6),
                accept=(0, 1),
                words="ip links",
            ),
            lambda: system.change(["nft", "--file", "-"], stdin=network.rules(), words="nft rules"),
        )
    except CommandError as error:
        raise StepError(f"the network of a run cannot be built: {error.message}", _NEEDS) from error
    finally:
        kernel.keep_no_capability()
    for table in ("route", "ipv6_route") if ipv6 else ("route",):
        if not network.has_route(Path(f"/proc/self/net/{table}").read_text()):
            raise StepError("the network of a run has no route: the kernel has no device", _NEEDS)
    return _sockets(ipv6=ipv6)


def _sockets(*, ipv6: bool) -> Inside:
    families = [(socket.AF_INET, network.LOOPBACK4)]
    if ipv6:
        families.append((socket.AF_INET6, network.LOOPBACK6))
    return Inside(
        listeners=tuple(_listening(f, address, network.LISTENER_PORT) for f, address in families),
        datagrams=tuple(_bound(f, address) for f, address in families),
        streams=tuple(_listening(f, address, network.NAME_PORT) for f, address in families),
        diagnosis=open_socket(),
    )


def _listening(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(_BACKLOG)
    return made


def _bound(family: socket.AddressFamily, address: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind((address, network.NAME_PORT))
    return made

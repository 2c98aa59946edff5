"""A run's network namespace: one device to this machine, and what is reached over it."""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, AF_INET6, if_nametoindex
from collections.abc import Iterator

from onionward.app import kernel
from onionward.app.root import netlink, places
from onionward.app.root.calling import Place

_HARDWARE = bytes.fromhex("02006f776172")  # locally administered
_TCP, _UDP, _DNS = 6, 17, 53
_LOOPBACK = 1
_ATTEMPTS = 5
# Where tor does not connect to (address.c, tor_addr_is_internal): refused here, at once.
_UNROUTABLE4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"),
    "224.0.0.0/3",
)
_UNROUTABLE6 = ("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8")


def make(place: Place) -> int:
    """Move this process to a new network namespace that has tor at its other end.

    Returns:
        A descriptor of it.

    Raises:
        OSError: the kernel refuses something.

    """
    outside = netlink.Kernel()
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(kernel.CLONE_NEWNET)
    inside = netlink.Kernel()
    name = f"{places.INTERFACE}{place.number}"
    ours4, ours6 = places.address4(place.number), places.address6(place.number)
    inside.do(
        netlink.up(_LOOPBACK),
        # the kernel has given it 127.0.0.0/8; in the upper half are addresses of .onion names
        netlink.address(_LOOPBACK, "127.0.0.1", 9, scope=254),
        netlink.no_address(_LOOPBACK, "127.0.0.1", 8),
        netlink.veth(places.DEVICE, name, before, _HARDWARE),
    )
    device = if_nametoindex(places.DEVICE)
    _set("ipv4/conf/tor0/route_localnet", "1")
    inside.do(*_inside(place, device, ours4, ours6))
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    kernel.setns(before, kernel.CLONE_NEWNET)
    try:
        _lead_to(outside, place, name, ours4, ours6)
    finally:
        kernel.setns(namespace, kernel.CLONE_NEWNET)
        os.close(before)
    return namespace


def _lead_to(outside: netlink.Kernel, place: Place, name: str, ours4: str, ours6: str) -> None:
    """Set up this machine's end, though a manager of its network may reach for it meanwhile."""
    number = if_nametoindex(name)
    for left in reversed(range(_ATTEMPTS)):
        try:
            outside.do(*_outside(place, number, ours4, ours6), tolerate=errno.EEXIST)
        except OSError as error:
            # one that takes a new device for its own may begin by switching IPv6 off there
            if error.errno != errno.EACCES or not left:
                raise
            _set(f"ipv6/conf/{name}/disable_ipv6", "0")
        else:
            return


def join(place: Place) -> None:
    """Move this process to a namespace that is there."""
    kernel.setns(place.namespace, kernel.CLONE_NEWNET)


def close() -> None:
    """Take the network away from the run whose namespace this process is in, for good.

    Raises:
        OSError: the kernel refuses it.

    """
    netlink.Kernel().do(netlink.down(if_nametoindex(places.DEVICE)))


def _inside(place: Place, device: int, ours4: str, ours6: str) -> Iterator[netlink.Message]:
    if place.ipv6:
        yield netlink.without_link_local(device)
        yield netlink.address(device, ours6, 128)
    yield netlink.address(device, ours4, 32)
    yield netlink.up(device)
    networks = ["0.0.0.0/0", *(["::/0"] if place.ipv6 else [])]
    for network in (*networks, *place.virtual):
        if place.ipv6 or ":" not in network:
            yield netlink.route(network, device)
    virtual = set(place.virtual)
    for network in (*_UNROUTABLE4, *(_UNROUTABLE6 if place.ipv6 else ())):
        if network not in virtual:
            yield netlink.route(network, 0)
    # what is no connection and no query is refused by the system call
    for family in (AF_INET, *([AF_INET6] if place.ipv6 else [])):
        yield netlink.rule(family, 10, _TCP)
        yield netlink.rule(family, 11, _UDP, _DNS)
        yield netlink.rule(family, 12)


def _outside(place: Place, number: int, ours4: str, ours6: str) -> Iterator[netlink.Message]:
    if place.ipv6:
        yield netlink.without_link_local(number)
    yield netlink.up(number)
    yield netlink.route(f"{ours4}/32", number, places.TOR4)
    if place.ipv6:
        yield netlink.route(f"{ours6}/128", number, places.TOR6)


def _set(name: str, value: str) -> None:
    with open(f"/proc/sys/net/{name}", "w") as file:  # noqa: PTH123  # pathlib takes long
        file.write(value)

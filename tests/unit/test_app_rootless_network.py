"""The network inside a rootless run, as text."""

from __future__ import annotations

import pytest

from onionward.app.rootless import network
from onionward.app.rootless.names import NETWORK4, NETWORK6

ROUTES4 = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
tor0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
"""
NOWHERE = "0" * 32
ROUTES6 = (
    f"fd5a7012{'0' * 23}2 80 {NOWHERE} 00 {NOWHERE} 00000100 00000002 0 00000001     tor0\n"
    f"{NOWHERE} 00 {NOWHERE} 00 {NOWHERE} 00000400 00000001 00000000 00000001     tor0\n"
)
REJECTED6 = f"{NOWHERE} 00 {NOWHERE} 00 {NOWHERE} ffffffff 00000001 00000000 00200200       lo\n"


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (ROUTES4, True),
        (ROUTES4.replace("tor0", "eth0"), False),
        (ROUTES4.replace("tor0\t00000000", "tor0\t0002000A"), False),
        (ROUTES4.splitlines()[0], False),
        (ROUTES6, True),
        (ROUTES6.splitlines()[0], False),
        (REJECTED6, False),
        ("", False),
    ],
)
def test_whether_everything_is_led_to_the_device(table: str, found: bool) -> None:
    assert network.has_route(table) is found


def test_without_ipv6_nothing_of_it_is_asked_for() -> None:
    assert "::" not in network.links(ipv6=False)
    assert "route add ::/0" in network.links(ipv6=True)


def test_virtual_addresses_pass_before_the_networks_they_are_in_are_refused() -> None:
    lines = [line.strip() for line in network.rules().splitlines()]
    for virtual, start in ((NETWORK4, "ip daddr { 0.0.0.0/8"), (NETWORK6, "ip6 daddr { fc00")):
        (passing,) = [n for n, line in enumerate(lines) if f"daddr {virtual} accept" in line]
        (refused,) = [n for n, line in enumerate(lines) if line.startswith(start)]
        assert passing < refused
    assert "type filter hook output priority -150; policy drop;" in lines

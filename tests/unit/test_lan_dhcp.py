"""Which addresses clients get, and what dnsmasq is told."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.config import parse
from onionward.errors import RefusedError
from onionward.facts import Link
from onionward.lan import dhcp
from onionward.lan.dhcp import Listener, Segment
from tests.support import addr, net

ETH1 = Segment(
    "eth1",
    (addr("198.18.8.1"), addr("2001:db8:8::1"), addr("fe80::1")),
    (net("198.18.8.0/24"), net("2001:db8:8::/64"), net("fe80::/64")),
)


def segment(own: str, *wanted: str, hotplug: bool = False) -> Segment:
    """A LAN with the given interface addresses ("198.18.8.1/24 …")."""
    assigned = [ipaddress.ip_interface(word) for word in own.split()]
    return Segment(
        "eth1",
        tuple(a.ip for a in assigned),
        tuple(a.network for a in assigned),
        tuple(map(addr, wanted)),
        hotplug,
    )


def shown(found: dhcp.Leases) -> str:
    return f"{found.first} {found.last}"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("198.18.8.1/24", "198.18.8.128 198.18.8.254"),
        ("198.18.8.254/24", "198.18.8.127 198.18.8.253"),
        ("198.18.8.200/24", "198.18.8.100 198.18.8.199"),
        ("198.18.8.1/24 198.18.8.2/24", "198.18.8.129 198.18.8.254"),
        ("198.18.8.1/30", "198.18.8.2 198.18.8.2"),
        ("198.18.8.2/30", "198.18.8.1 198.18.8.1"),
        ("198.18.8.1/29", "198.18.8.2 198.18.8.6"),
        ("198.18.8.1/28", "198.18.8.2 198.18.8.14"),
        ("198.18.8.1/27", "198.18.8.16 198.18.8.30"),
        ("198.18.0.1/16", "198.18.252.23 198.18.255.254"),
        ("10.0.0.1/8", "10.255.252.23 10.255.255.254"),
        # one that has room is taken when another has none
        ("198.18.9.1/32 198.18.8.1/30", "198.18.8.2 198.18.8.2"),
        ("2001:db8::1/64 198.18.8.1/30", "198.18.8.2 198.18.8.2"),
    ],
)
def test_default_range(own: str, expected: str) -> None:
    assert shown(dhcp.leases(segment(own))) == expected


@given(length=st.integers(8, 30), place=st.integers(min_value=0), more=st.integers(min_value=0))
def test_every_default_range_can_be_given_away(length: int, place: int, more: int) -> None:
    network = ipaddress.IPv4Network((0x0A000000, length))
    own = tuple(network[1 + n % (network.num_addresses - 2)] for n in (place, more))
    described = Segment("eth1", own, (network,))
    try:
        found = dhcp.leases(described)
    except RefusedError:
        assert length == 30
        assert own[0] != own[1]
        return
    assert network[0] < found.first <= found.last < network[-1]
    assert not any(found.first <= address <= found.last for address in own)
    assert int(found.last) - int(found.first) < 1000
    # what is chosen passes the check of what is wanted
    wanted = Segment("eth1", own, (network,), (found.first, found.last))
    assert dhcp.leases(wanted) == found


@pytest.mark.parametrize(
    ("own", "wanted", "words"),
    [
        ("198.18.8.1/24", ("198.18.8.9", "198.18.8.5"), "198.18.8.9 comes after 198.18.8.5"),
        (
            "198.18.8.1/24",
            ("198.18.9.5", "198.18.9.9"),
            "198.18.9.5 is not in 198.18.8.0/24 (198.18.8.0 to 198.18.8.255), the network of eth1",
        ),
        ("198.18.8.1/24", ("198.18.8.5", "198.18.9.9"), "198.18.9.9 is not in 198.18.8.0/24"),
        # each is in a network, but not in the same
        ("198.18.8.1/24 198.18.9.1/24", ("198.18.8.5", "198.18.9.9"), "198.18.9.9 is not in"),
        ("198.18.8.1/24", ("198.18.8.0", "198.18.8.9"), "is the network address of 198.18.8.0/24"),
        ("198.18.8.1/24", ("198.18.8.5", "198.18.8.255"), "is the broadcast address"),
        ("198.18.8.1/24", ("198.18.8.1", "198.18.8.1"), "is this machine's own address"),
        ("198.18.8.1/31", ("198.18.8.0", "198.18.8.1"), "198.18.8.0/31 of eth1 has no room"),
        ("198.18.8.1/24", ("198.18.8.5",), "takes two IPv4 addresses"),
        ("198.18.8.1/24", ("2001:db8::5", "2001:db8::9"), "takes two IPv4 addresses"),
        ("2001:db8::1/64", ("198.18.8.5", "198.18.8.9"), "eth1 has no IPv4 network"),
        ("2001:db8::1/64", (), "eth1 has no IPv4 network to give addresses from"),
        ("198.18.8.1/32", (), "198.18.8.1/32 of eth1 has no room for clients"),
        ("198.18.8.1/31", (), "198.18.8.0/31 of eth1 has no room for clients"),
        ("198.18.8.1/30 198.18.8.2/30", (), "has no room for clients"),
    ],
)
def test_a_range_that_cannot_be_given_away(own: str, wanted: tuple[str, ...], words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        dhcp.leases(segment(own, *wanted))
    assert words in caught.value.message


def test_a_wanted_range_may_be_in_the_second_network() -> None:
    found = dhcp.leases(segment("198.18.8.1/24 198.18.9.1/24", "198.18.9.5", "198.18.9.9"))
    assert found.network == net("198.18.9.0/24")


def test_an_interface_that_appears_later() -> None:
    found = dhcp.leases(segment("", "198.18.8.5", "198.18.8.9", hotplug=True))
    assert (shown(found), found.network) == ("198.18.8.5 198.18.8.9", None)
    with pytest.raises(RefusedError, match="no network yet; name the addresses"):
        dhcp.leases(segment("", hotplug=True))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("2001:db8::1/64", True),
        ("fd00::1/64", True),
        ("fe80::1/64", False),
        ("2001:db8::1/48", False),
        ("2001:db8::1/128 fd00::1/64", True),
        ("198.18.8.1/24", False),
    ],
)
def test_where_prefixes_are_announced(own: str, expected: bool) -> None:
    assert dhcp.announces(segment(own)) is expected


def configuration(*segments: Segment, ipv6: bool = True) -> str:
    return dhcp.configuration(
        segments,
        lease_file=Path("/var/lib/x/leases"),
        log=Path("/run/x/log"),
        account="dnsmasq",
        group="nogroup",
        ipv6=ipv6,
    )


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_the_whole_configuration() -> None:
    assert settings(configuration(ETH1)) == [
        "port=0",
        "no-resolv",
        "no-poll",
        "no-hosts",
        "user=dnsmasq",
        "group=nogroup",
        "pid-file=",
        "log-facility=/run/x/log",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        "bind-dynamic",
        "interface=eth1",
        "dhcp-authoritative",
        "no-ping",
        "dhcp-lease-max=1000",
        "dhcp-leasefile=/var/lib/x/leases",
        "dhcp-ignore-names",
        "dhcp-range=198.18.8.128,198.18.8.254,255.255.255.0,1h",
        "dhcp-option=option:router,0.0.0.0",
        "dhcp-option=option:dns-server,0.0.0.0",
        "enable-ra",
        "dhcp-range=::,constructor:eth1,ra-only,64,1h",
        "dhcp-option=option6:dns-server,[::],[fd00::]",
    ]


def test_several_interfaces_share_one_server() -> None:
    found = settings(
        configuration(
            ETH1,
            Segment("wlan0", (addr("198.18.9.1"),), (net("198.18.9.0/30"),)),
            Segment("usb0", (), (), (addr("198.18.10.5"), addr("198.18.10.9")), hotplug=True),
        )
    )
    assert [line for line in found if line.startswith("interface=")] == [
        "interface=eth1",
        "interface=wlan0",
        "interface=usb0",
    ]
    assert [line for line in found if line.startswith("dhcp-range=")] == [
        "dhcp-range=198.18.8.128,198.18.8.254,255.255.255.0,1h",
        "dhcp-range=198.18.9.2,198.18.9.2,255.255.255.252,1h",
        "dhcp-range=198.18.10.5,198.18.10.9,1h",
        "dhcp-range=::,constructor:eth1,ra-only,64,1h",
        # wlan0 has no prefix; usb0 may get one
        "dhcp-range=::,constructor:usb0,ra-only,64,1h",
    ]


def test_without_ipv6_nothing_of_it_is_said() -> None:
    assert "6" not in "".join(
        line for line in settings(configuration(ETH1, ipv6=False)) if "quiet" not in line
    )


def test_a_range_that_cannot_be_served_is_refused_by_the_renderer_too() -> None:
    with pytest.raises(RefusedError):
        configuration(segment("198.18.8.1/32"))


def test_segments_of_a_configuration() -> None:
    config = parse(
        '[[lan]]\ninterface = "eth2"\n[[lan]]\ninterface = "eth1"\ndhcp = true\n'
        'dhcp_range = ["198.18.8.5", "198.18.8.9"]\n'
        '[[lan]]\ninterface = "usb0"\nhotplug = true\ndhcp = true\n',
        "test.toml",
    )
    link = Link("eth1", ETH1.addresses, ETH1.networks)
    assert dhcp.segments(config, [link]) == {
        1: Segment("eth1", link.addresses, link.networks, config.lan[1].dhcp_range),
        2: Segment("usb0", (), (), hotplug=True),
    }


# the unspecified address: all of a machine
ANY = "0.0.0.0"  # noqa: S104
STRANGER = Listener(addr(ANY), "", '(("dhcpd",pid=7,fd=4))')


def problems(*listeners: Listener, dnsmasq: str | None = "/x", **at: Segment) -> list[str]:
    found = dhcp.problems(
        {int(place[1:]): described for place, described in at.items()}, listeners, dnsmasq=dnsmasq
    )
    return [f"{'.'.join(map(str, path))}: {words}" for path, words in found]


def test_nothing_is_wrong() -> None:
    assert problems(_0=ETH1, _3=segment("", "198.18.8.5", "198.18.8.9", hotplug=True)) == []
    assert problems(STRANGER, dnsmasq=None) == []


def test_dnsmasq_is_missing_once() -> None:
    assert problems(dnsmasq=None, _1=ETH1, _2=segment("198.18.9.1/24")) == [
        "lan.1.dhcp: dnsmasq is missing; install it: apt install dnsmasq-base"
    ]


def test_an_interface_without_an_address() -> None:
    assert problems(_0=segment("2001:db8::1/64")) == [
        "lan.0.interface: eth1 has no IPv4 address, so it has none to give away either; give it "
        "one: ip address add ADDRESS/LENGTH dev eth1"
    ]


def test_a_wrong_range_is_told_at_its_key() -> None:
    assert problems(_2=segment("198.18.8.1/24", "198.18.8.9", "198.18.8.5")) == [
        "lan.2.dhcp_range: 198.18.8.9 comes after 198.18.8.5"
    ]


@pytest.mark.parametrize(
    ("address", "device", "is_in_the_way"),
    [
        (ANY, "", True),
        ("::", "", True),
        (ANY, "eth1", True),
        (ANY, "virbr0", False),
        ("198.18.8.1", "", True),
        ("198.18.99.1", "", False),
    ],
)
def test_other_servers(address: str, device: str, is_in_the_way: bool) -> None:
    found = problems(Listener(addr(address), device, "dhcpd"), _0=ETH1)
    assert found == (
        [
            "lan.0.dhcp: UDP port 67 is taken already by dhcpd; stop that server or leave dhcp "
            "out here"
        ]
        if is_in_the_way
        else []
    )


def test_listeners_as_ss_prints_them() -> None:
    text = (
        'UNCONN 0 0 0.0.0.0:67 0.0.0.0:* users:(("dhcpd",pid=7,fd=4))\n'
        'UNCONN 0 0 0.0.0.0%virbr0:67 0.0.0.0:* users:(("dnsmasq",pid=8,fd=4))\n'
        'UNCONN 0 0 0.0.0.0%eth1.5:67 0.0.0.0:* users:(("dnsmasq",pid=9,fd=4))\n'
        "UNCONN 0 0 198.18.8.1:67 0.0.0.0:*\n"
        'UNCONN 0 0 [::]:67 [::]:* users:(("kea",pid=70,fd=4))\n'
        'UNCONN 0 0 *:67 *:* users:(("kea",pid=70,fd=5))\n'
        'UNCONN 0 0 [fe80::1]%eth1:67 [::]:* users:(("kea",pid=70,fd=6))\n'
    )
    assert [
        (str(listener.address), listener.device, listener.who)
        for listener in dhcp.parse_listeners(text, [7])
    ] == [
        (ANY, "virbr0", '(("dnsmasq",pid=8,fd=4))'),
        (ANY, "eth1.5", '(("dnsmasq",pid=9,fd=4))'),
        ("198.18.8.1", "", "a program that does not show itself"),
        ("::", "", '(("kea",pid=70,fd=4))'),
        ("::", "", '(("kea",pid=70,fd=5))'),
        ("fe80::1", "eth1", '(("kea",pid=70,fd=6))'),
    ]

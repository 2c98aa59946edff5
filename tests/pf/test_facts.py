"""What is read of a BSD machine, out of what its tools print."""

from __future__ import annotations

import pytest

from onionward.bsd import facts
from onionward.bsd.facts import Connection
from onionward.config import parse
from onionward.policy import Flow
from tests.pf.bsd import IFCONFIG, NETSTAT, ROUTES
from tests.pf.conftest import Make
from tests.support import addr, flow, net, policy

SYSTEMS = ("openbsd", "freebsd")


@pytest.mark.parametrize("system", SYSTEMS)
def test_interfaces(system: str) -> None:
    links = facts.parse_links(IFCONFIG[system], frozenset({"em0"}))
    assert [link.name for link in links] == ["em0", "em1"]
    up = links[0]
    assert up.addresses == (addr("198.18.0.2"), addr("fe80::5eff:fe00:1"), addr("2001:db8:18::2"))
    assert up.networks == (net("198.18.0.0/24"), net("fe80::/64"), net("2001:db8:18::/64"))
    assert up.is_uplink
    assert not links[1].is_uplink
    assert facts.has_ipv6(IFCONFIG[system])
    assert not facts.has_interface(IFCONFIG[system], "lo1")


@pytest.mark.parametrize("system", SYSTEMS)
def test_uplinks(system: str) -> None:
    assert facts.parse_uplinks(ROUTES[system]) == {"em0"}
    assert facts.parse_uplinks("") == frozenset()


def test_groups() -> None:
    groups = facts.parse_groups(IFCONFIG["openbsd"])
    assert groups["em0"] >= {"egress", "em", "all"}
    assert "lo" in groups["lo0"]


OTHERS = """\
tun0: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> metric 0 mtu 1500
	inet 10.8.0.2 --> 10.8.0.1 netmask 0xffffffff
bridge0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500
	ether 58:9c:fc:10:ff:d2
	member: em2 flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>
		ifmaxaddr 0 port 3 priority 128 path cost 2000000
em2: flags=8943<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST> metric 0 mtu 1500
	ether 02:00:5e:00:00:05
em3: flags=8802<BROADCAST,SIMPLEX,MULTICAST> mtu 1500
trunk0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	trunk: trunkproto failover
		trunkport em3 master,active
"""


def test_point_to_point_bridges_and_trunks() -> None:
    links = {link.name: link for link in facts.parse_links(OTHERS)}
    assert links["tun0"].networks == (net("10.8.0.1/32"),)
    assert links["bridge0"].is_bridge
    assert links["em2"].master == "bridge0"
    assert links["em3"].master == "trunk0"
    assert links["tun0"].master == ""


FREEBSD_NETSTAT = """\
Active Internet connections (including servers)
Proto Recv-Q Send-Q Local Address          Foreign Address        (state)
tcp4       0     44 198.18.0.2.22          198.18.0.77.53422      ESTABLISHED
tcp6       0      0 fe80::5eff:fe00:1%em0.22 fe80::77%em0.4000    ESTABLISHED
tcp46      0      0 *.80                   *.*                    LISTEN
tcp4       0      0 *.22                   *.*                    LISTEN
tcp4       0      0 198.18.0.2.22          198.18.0.77.53001      TIME_WAIT
tcp6       0      0 2001:db8:18::2.1       2001:db8:1234:5678:9ab.22 SYN_SENT
udp4       0      0 *.514                  *.*
Active UNIX domain sockets
"""


def test_connections() -> None:
    listening, flows = facts.parse_sockets(NETSTAT)
    assert listening == {22, 25}
    assert tuple(one.flow for one in flows) == (
        flow("198.18.0.77", 50123, "198.18.0.2", 22),
        flow("203.0.113.9", 443, "198.18.0.2", 40001),
    )
    listening, flows = facts.parse_sockets(FREEBSD_NETSTAT)
    assert listening == {22, 80}
    assert tuple(one.flow for one in flows) == (
        flow("198.18.0.77", 53422, "198.18.0.2", 22),
        flow("fe80::77", 4000, "fe80::5eff:fe00:1", 22),
    )
    # with the interface, without which such an address says nothing
    assert flows[1].ends == ("fe80::5eff:fe00:1%em0", "22", "fe80::77%em0", "4000")


def test_what_others_opened_and_the_policy_lets_in_is_kept() -> None:
    given = policy(link=(net("198.18.0.0/24"),))
    near, far = flow("198.18.0.9", 5, "198.18.0.2", 22), flow("8.8.8.8", 5, "198.18.0.2", 22)
    ours, high = flow("198.18.0.9", 22, "198.18.0.2", 4001), Flow(*near[:3], 40000)
    every = tuple(Connection(one, ("", "", "", "")) for one in (near, far, ours, high))
    listening = frozenset({22, 40000})
    assert facts.kept(given, listening, every) == (near,)
    assert [c.flow for c in facts.inbound(given.ephemeral_ports, listening, every)] == [near, far]
    assert facts.kept(policy(inbound="none"), listening, every) == ()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_whole_machine(make: Make, system: str) -> None:
    machine = make(system)
    config = parse("[tor]\nuser = '_tor'\n[[user]]\nname = 'alice'\n", "t.toml")
    found = facts.gather(machine, config, machine.kind)
    assert found.tor_account is not None
    assert found.tor_account.uid == 56
    assert found.dhcp_uids == (0, 77)
    assert found.ephemeral_ports == {"openbsd": (1024, 49151), "freebsd": (10000, 65535)}[system]
    assert [user.account.uid for user in found.users] == [1001]
    assert found.cgroup_mount is None
    assert found.missing_tools == ()

"""What the machine's tools print, read into facts."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest

from onionward import facts
from onionward.config import parse
from onionward.errors import CommandError
from onionward.facts import cgroup_mount, parse_links, parse_nft_version
from tests.support import FACTS, ScriptedSystem, addr, net

# as `ip -j -d address show` of iproute2 6.1 prints it, the uninteresting fields left out
LOOPBACK = """{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,
"link_type":"loopback","addr_info":[
{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host","label":"lo"},
{"family":"inet6","local":"::1","prefixlen":128,"scope":"host"}]}"""
ETHERNET = """{"ifindex":4,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],
"mtu":1400,"qdisc":"pfifo_fast","operstate":"UP","link_type":"ether","addr_info":[
{"family":"inet","local":"192.0.2.2","prefixlen":24,"broadcast":"192.0.2.255","scope":"global",
 "dynamic":true,"label":"eth0","valid_life_time":4294967295},
{"family":"inet6","local":"2001:db8::2","prefixlen":64,"scope":"global","nodad":true},
{"family":"inet6","local":"fe80::fc:ff:fe00:1","prefixlen":64,"scope":"link","tentative":true}]}"""
BARE = """{"ifindex":2,"ifname":"ifb0","flags":["BROADCAST","NOARP"],"mtu":1500,"qdisc":"noop",
"operstate":"DOWN","link_type":"ether","address":"c6:6b:9a:71:76:75","addr_info":[]}"""
# `ip address add 10.9.0.1 peer 192.168.5.2/24 dev veth0`: the prefix is that of the peer
POINT_TO_POINT = """{"ifindex":3,"link":"veth1","ifname":"veth0","flags":["BROADCAST","UP"],
"link_type":"ether","addr_info":[
{"family":"inet","local":"10.9.0.1","address":"192.168.5.2","prefixlen":24,"scope":"global"},
{"family":"inet","local":"10.9.0.1","address":"10.9.0.2","prefixlen":32,"scope":"global"}]}"""


def test_links() -> None:
    lo, eth0, ifb0 = (json.loads(text) for text in (LOOPBACK, ETHERNET, BARE))
    found = parse_links([lo, ifb0, eth0])
    assert [link.name for link in found] == ["ifb0", "eth0"]
    assert found[0].addresses == found[0].networks == ()
    assert found[1].addresses == (
        addr("192.0.2.2"),
        addr("2001:db8::2"),
        addr("fe80::fc:ff:fe00:1"),
    )
    assert found[1].networks == (net("192.0.2.0/24"), net("2001:db8::/64"), net("fe80::/64"))


def test_a_point_to_point_link_is_attached_to_its_peer() -> None:
    (link,) = parse_links([json.loads(POINT_TO_POINT)])
    assert link.addresses == (addr("10.9.0.1"), addr("10.9.0.1"))
    assert link.networks == (net("192.168.5.0/24"), net("10.9.0.2/32"))


def test_a_second_loopback_is_left_out_whatever_its_name() -> None:
    assert parse_links([{"ifname": "lo2", "flags": ["LOOPBACK"], "addr_info": []}]) == ()


@pytest.mark.parametrize("entry", [{}, {"ifname": "x"}, {"ifname": "x", "addr_info": [{}]}])
def test_empty_entries(entry: dict[str, object]) -> None:
    assert [link.name for link in parse_links([entry])] == (["x"] if entry else [])


@pytest.mark.parametrize(
    ("local", "prefix", "is_neighbourhood"),
    [
        ("93.184.216.34", 1, False),
        ("10.0.0.5", 0, False),
        ("10.0.0.5", 8, False),
        ("172.16.0.5", 11, False),
        ("172.16.0.5", 12, True),
        ("2001:db8::5", 3, False),
        ("2001:db8::5", 47, False),
        ("2001:db8::5", 48, True),
    ],
)
def test_dhcp_cannot_make_half_the_internet_a_neighbour(
    local: str, prefix: int, *, is_neighbourhood: bool
) -> None:
    (link,) = parse_links([{"ifname": "e", "addr_info": [{"local": local, "prefixlen": prefix}]}])
    assert link.addresses == (addr(local),)
    assert bool(link.neighbours) == is_neighbourhood


def test_own_addresses() -> None:
    system = ScriptedSystem({"ip -j -d address show": f"[{LOOPBACK},{ETHERNET}]"})
    assert facts.own_addresses(system)[0] == addr("192.0.2.2")
    assert facts.own_addresses(ScriptedSystem({"ip -j -d address show": ""})) == ()
    assert len(FACTS.addresses) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nftables v1.0.6 (Lester Gooch #5)\n", (1, 0, 6)),
        ("nftables v1.1.3 (Commodore Bullmoose #4)", (1, 1, 3)),
        ("nftables v2 (x)", (2,)),
        ("nft: command failed", ()),
        ("", ()),
    ],
)
def test_nft_version(text: str, expected: tuple[int, ...]) -> None:
    assert parse_nft_version(text) == expected


HYBRID = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = """\
25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
29 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:2 - cgroup2 cgroup2 rw,nsdelegate
"""
VERSION_ONE = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup2 rw,memory
"""
ELSEWHERE = "41 31 0:38 / /mnt/cgroup2 rw - cgroup2 none rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        (HYBRID, "/sys/fs/cgroup/unified"),
        (UNIFIED, "/sys/fs/cgroup"),
        (VERSION_ONE, None),
        (ELSEWHERE, None),
        (ELSEWHERE + HYBRID, "/sys/fs/cgroup/unified"),
        ("", None),
    ],
)
def test_cgroup_mount(mountinfo: str, expected: str | None) -> None:
    assert cgroup_mount(mountinfo) == (None if expected is None else Path(expected))


def test_gather_reads_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "find_tool", lambda name: f"/bin/{name}")
    system = ScriptedSystem(
        {"ip -j -d address show": f"[{LOOPBACK},{ETHERNET}]", "nft --version": "nftables v1.0.9"}
    )
    found = facts.gather(system, parse("[tor]\nuser = 'no-such-account'", "o"))
    assert found.nft_version == (1, 0, 9)
    assert [link.name for link in found.links] == ["eth0"]
    assert found.tor_account is None
    assert found.account_processes == ()
    assert 0 in found.dhcp_uids
    assert found.ephemeral_ports[0] < found.ephemeral_ports[1]
    assert not system.effects


def test_gather_without_tools_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "find_tool", lambda _name: None)
    system = ScriptedSystem()
    found = facts.gather(system, parse("[tor]\nuser = 'no-such-account'", "o"))
    assert found.nft_version is None
    assert found.tor_path is None
    assert found.missing_tools == ("ip", "ss", "conntrack")
    assert found.links == ()
    assert system.asked == []


def test_a_failing_tool_is_not_taken_for_an_empty_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "find_tool", lambda name: f"/bin/{name}")
    system = ScriptedSystem(
        {"nft": "nftables v1.0.9", "ip": CommandError(["ip"], 1, "Operation not permitted")}
    )
    with pytest.raises(CommandError):
        facts.gather(system, parse("[tor]\nuser = 'root'", "o"))


def test_an_account() -> None:
    entry = pwd.getpwnam("root")
    found = facts.find_account("root")
    assert found is not None
    assert (found.uid, found.gid, str(found.home)) == (0, 0, entry.pw_dir)
    assert facts.find_account("no-such-account") is None


@pytest.mark.parametrize(
    ("loggers", "answer", "found"),
    [
        (" 2 nf_log_ipv4 (nf_log_ipv4,nfnetlink_log)\n", None, True),
        (" 2 NONE ()\n", "", True),  # the kernel has loaded it for the question
        (" 2 NONE ()\n", CommandError(["nft"], 1, "No such file or directory"), False),
        (None, CommandError(["nft"], 1, "No such file or directory"), False),
    ],
)
def test_whether_the_kernel_tells_of_packets(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    loggers: str | None,
    answer: str | CommandError | None,
    found: bool,
) -> None:
    if loggers is not None:
        (tmp_path / "nf_log").write_text(loggers)
    monkeypatch.setattr(facts, "_LOGGERS", tmp_path / "nf_log")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(facts, "find_tool", lambda _: "/usr/sbin/nft")
    answers = {} if answer is None else {"nft --check": answer}
    assert facts._has_nflog(ScriptedSystem(answers)) is found

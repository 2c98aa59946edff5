"""Sockets out of ss and /proc: which are an account's, which it holds, and which are cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward import held_sockets
from onionward.held_sockets import HeldSocket, outward_of, parse, parse_table, tells_owners
from tests.support import ScriptedSystem, addr

# ss of iproute2 6.1 on Linux 6.18
SHOWN = """\
udp UNCONN     0 0          0.0.0.0:5353       0.0.0.0:*     ino:10 sk:105b cgroup:/ <->
udp ESTAB      0 0  [2001:db8::2]:34061   [2001:db8::9]:53   uid:61002 ino:11 sk:105c cgroup:/ <->
tcp LISTEN     0 128        0.0.0.0:22         0.0.0.0:*     ino:12 sk:105d cgroup:/ <->
tcp ESTAB      0 0       198.18.0.2:22   198.18.0.9:40000 timer:(keepalive,119min,0) ino:13 sk:1 <->
tcp ESTAB      0 0       198.18.0.2:4001 198.18.0.9:80    timer:(on,200ms,0) uid:61002 ino:14 sk:2
tcp ESTAB      0 0       198.18.0.2:4002 198.18.0.9:80    uid:61001 ino:15 sk:1064 cgroup:/ <->
tcp ESTAB      0 0       198.18.0.2:4003 198.18.0.9:80    ino:16 sk:1065 cgroup:/ <->
tcp FIN-WAIT-1 0 2174977 198.18.0.2:4004 198.18.0.9:80    timer:(persist,6ms,1) uid:61002 ino:0
tcp FIN-WAIT-1 0 2174977 198.18.0.2:4005 198.18.0.9:80    timer:(persist,644ms,1) ino:0 sk:69 ---
tcp TIME-WAIT  0 0       198.18.0.2:4006 198.18.0.9:80    timer:(timewait,59sec,0) ino:0 sk:1060
tcp ESTAB      0 0       198.18.0.2:4007 198.18.0.9:80    uid:100005 ino:17 sk:3
tcp ESTAB      0 0        127.0.0.1:4008    127.0.0.1:80  uid:61002 ino:18 sk:4
tcp ESTAB      0 0       198.18.0.2:4009 198.18.0.2:80    uid:61002 ino:19 sk:5
tcp ESTAB      0 0  [::ffff:198.18.0.2]:4010 [::ffff:198.18.0.9]:80 uid:61002 ino:20 sk:6
tcp LISTEN     0 128              *:8080            *:*    uid:61002 ino:21 sk:7 v6only:0
tcp SYN-SENT   0 1  [fe80::1%eth0]:4011    [fe80::2]%eth0:80 uid:61002 ino:22 sk:8
p_raw UNCONN   0 0      [768]:* * ino:206622 sk:1066
"""
ANY = addr("0.0.0.0")  # noqa: S104  # as ss says it
UIDS = ((61002, 61002), (100000, 165535))


def _ports(sockets: tuple[HeldSocket, ...]) -> list[int]:
    return [s.local_port for s in sockets]


def test_what_ss_shows() -> None:
    found = parse(SHOWN)
    assert len(found) == 16
    assert found[0] == HeldSocket("udp", "UNCONN", ANY, 5353, ANY, 0, 0, 10)
    assert found[1].peer == addr("2001:db8::9")
    assert (found[1].uid, found[1].inode) == (61002, 11)
    assert found[4].uid == 61002
    assert found[13].local == addr("198.18.0.2")
    assert found[14].local == addr("::")
    assert found[15].local == addr("fe80::1")
    assert found[15].peer == addr("fe80::2")
    assert parse("") == ()
    assert parse("something else\n") == ()


def test_what_is_cut() -> None:
    cut = outward_of(parse(SHOWN), UIDS, {})
    assert _ports(cut) == [34061, 4001, 4004, 4007, 4010, 4011]


def test_what_others_made_and_the_account_holds_is_cut() -> None:
    # sshd's connection is held by the account, too, and was opened by somebody else
    cut = outward_of(parse(SHOWN), UIDS, {16: 700, 13: 701, 10: 702})
    assert _ports(cut) == [34061, 4001, 4003, 4004, 4007, 4010, 4011]


def test_closed_connections_without_an_owner_are_cut_where_owners_are_unknown() -> None:
    cut = outward_of(parse(SHOWN), UIDS, {}, tells_owners=False)
    assert _ports(cut) == [34061, 4001, 4004, 4005, 4007, 4010, 4011]


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.18.44-fc", True), ("6.17", True), ("7.0-rc1", True), ("6.1.0-31-amd64", False)],
)
def test_kernels_that_tell(release: str, expected: bool) -> None:
    assert tells_owners(release) is expected


def _process(proc: Path, pid: int, uids: str, files: dict[int, str]) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "status").write_text(f"Name:\tx\nUid:\t{uids}\nGid:\t0\t0\t0\t0\n")
    for number, target in files.items():
        (proc / str(pid) / "fd" / str(number)).symlink_to(target)


def test_who_holds_what(tmp_path: Path) -> None:
    _process(tmp_path, 7, "61002\t61002\t61002\t61002", {0: "/dev/null", 3: "socket:[16]"})
    _process(tmp_path, 8, "61002\t0\t0\t0", {3: "socket:[17]"})
    _process(tmp_path, 9, "100009\t100009\t100009\t100009", {3: "socket:[18]", 4: "pipe:[19]"})
    _process(tmp_path, 10, "0\t0\t0\t0", {3: "socket:[20]"})
    (tmp_path / "11").mkdir()
    (tmp_path / "self").mkdir()
    assert held_sockets.holders(UIDS, tmp_path) == {16: 7, 17: 8, 18: 9}


RAW = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref
   1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 30 2 x 0
   1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000 61002        0 31 2 x 0
"""
PACKET = """\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
000000005d3f5b6b 3      3    0003   0     1 0      61002  40
"""


def test_tables_of_the_kernel() -> None:
    assert parse_table(RAW) == {30: 0, 31: 61002}
    assert parse_table(PACKET) == {40: 61002}
    assert parse_table("") == {}


def test_sockets_that_cannot_be_cut(tmp_path: Path) -> None:
    held = {3: "socket:[10]", 4: "socket:[30]", 5: "socket:[31]", 6: "socket:[40]"}
    _process(tmp_path, 7, "61002\t61002\t61002\t61002", held)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "raw").write_text(RAW)
    (tmp_path / "net" / "packet").write_text(PACKET)
    system = ScriptedSystem({"ss": SHOWN})
    ways = held_sockets.ways_around(system, UIDS, proc=tmp_path)
    assert [way.name for way in ways] == ["held"] * 3
    assert "process 7 holds a UDP socket of uid 0" in ways[0].reason
    assert "a raw socket of uid 0" in ways[1].reason
    assert "a packet socket of uid 61002" in ways[2].reason
    assert system.asked == ["ss -Htuane"]

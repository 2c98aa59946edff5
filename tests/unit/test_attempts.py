"""Stopped packets: read, added up in bounded memory, put into words."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.attempts import counted, known, names, words
from onionward.attempts.owners import Owner, Owners
from onionward.attempts.packet import Packet, read
from onionward.attempts.record import Record
from onionward.guard.netlink import attribute
from onionward.render.nftables import block, route
from tests.support import LocalSystem, policy

LO = socket.if_nametoindex("lo")
FIREFOX = Owner(77, "firefox", "app-firefox.scope")
QUIC = Packet("refused", 1000, "", False, "udp", "198.18.0.2", 4444, "1.2.3.4", 443)


def message(
    kind: int, payload: bytes, *, uid: int | None = 1000, arrived: bool = False, family: int = 2
) -> bytes:
    """As linux/netfilter/nfnetlink_log.h has it."""
    body = struct.pack("!BBH", family, 0, 29807) + attribute(1, struct.pack("!HBx", kind, 3))
    body += attribute(10, b"refused\0") + attribute(4 if arrived else 5, struct.pack("!I", LO))
    body += attribute(11, struct.pack("!I", uid)) if uid is not None else b""
    return body + attribute(9, payload)


def ipv4(protocol: int, data: bytes, offset: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, offset, 64, protocol, 0)
    return head + socket.inet_aton("198.18.0.2") + socket.inet_aton("1.2.3.4") + data


def ipv6(first: int, data: bytes) -> bytes:
    ends = [socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::2", "2001:db8::9")]
    return struct.pack("!IHBB", 6 << 28, len(data), first, 64) + b"".join(ends) + data


UDP = struct.pack("!HHHH", 4444, 443, 8, 0)


class TestPacket:
    def test_udp(self) -> None:
        assert read(message(0x0800, ipv4(17, UDP))) == QUIC._replace(interface="lo")

    def test_from_elsewhere(self) -> None:
        found = read(message(0x0800, ipv4(17, UDP), uid=None, arrived=True))
        assert found == QUIC._replace(interface="lo", uid=None, arrived=True)

    def test_a_ping_has_a_type_and_an_identifier(self) -> None:
        found = read(message(0x0800, ipv4(1, b"\x08\0\0\0\x12\x34\0\1")))
        assert found is not None
        assert (found.protocol, found.port, found.source_port) == ("icmp", 8, 0x1234)

    def test_behind_headers_of_ipv6(self) -> None:
        headers = bytes([60, 1, *[0] * 14]) + bytes([17, 0, *[0] * 6])
        found = read(message(0x86DD, ipv6(0, headers + UDP)))
        assert found is not None
        assert (found.protocol, found.port, found.destination) == ("udp", 443, "2001:db8::9")

    def test_a_later_fragment_has_no_ports(self) -> None:
        found = read(message(0x0800, ipv4(17, UDP, offset=185)))
        assert found is not None
        assert (found.protocol, found.port) == ("udp", None)
        fragment = bytes([17, 0]) + struct.pack("!HI", 185 << 3, 7) + UDP
        found = read(message(0x86DD, ipv6(44, fragment)))
        assert found is not None
        assert (found.protocol, found.port) == ("udp", None)

    def test_frames(self) -> None:
        head = b"\xff" * 12
        found = read(message(0x88CC, head + b"\x88\xcc" + b"x" * 40, family=5))
        assert found is not None
        assert (found.protocol, found.destination, found.port) == ("0x88cc", "", None)
        found = read(message(0x0800, head + b"\x08\0" + ipv4(17, UDP), family=5))
        assert found == QUIC._replace(interface="lo")

    @given(st.data())
    def test_whatever_is_cut_or_random_is_no_error(self, data: st.DataObject) -> None:
        whole = data.draw(
            st.sampled_from([ipv4(17, UDP), ipv4(1, b"\x08"), ipv6(0, bytes(16) + UDP)])
        )
        cut = data.draw(st.integers(0, len(whole)))
        rest = data.draw(st.binary(max_size=60))
        kind = data.draw(st.sampled_from([0x0800, 0x86DD, 0x0806]))
        found = read(message(kind, whole[:cut] + rest))
        assert found is not None
        assert found.reason == "refused"
        read(data.draw(st.binary(max_size=80)))


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, clock: Time, complaints: list[str]) -> Record:
    return Record(LocalSystem(), tmp_path / "attempts.json", complaints.append, clock, clock)


def written(record: Record, clock: Time, tmp_path: Path) -> known.Attempts:
    clock.now += 2
    record.write()
    return known.read(tmp_path / "attempts.json")


class TestRecord:
    def test_adds_up(self, kept: Record, clock: Time, tmp_path: Path) -> None:
        for _ in range(312):
            kept.add(QUIC, FIREFOX)
        kept.add(QUIC._replace(port=53), None)
        kept.lose()
        found = written(kept, clock, tmp_path)
        assert [(one.program, one.port, one.times) for one in found.attempts] == [
            ("firefox", 443, 312),
            ("", 53, 1),
        ]
        assert found.lost == 1
        assert (tmp_path / "attempts.json").stat().st_mode & 0o777 == 0o600

    def test_one_sender_does_not_push_out_the_others(
        self, kept: Record, clock: Time, tmp_path: Path
    ) -> None:
        kept.add(QUIC, FIREFOX)
        for number in range(5000):
            kept.add(
                QUIC._replace(uid=1001, destination=f"198.18.{number >> 8}.{number & 255}"), None
            )
        found = written(kept, clock, tmp_path).attempts
        assert len(found) == 65
        assert found[0].program == "firefox"
        assert found[-1].address == "198.18.19.135"

    def test_memory_is_bounded_whoever_sends(
        self, kept: Record, clock: Time, tmp_path: Path
    ) -> None:
        for number in range(3000):
            kept.add(QUIC._replace(uid=100_000 + number), None)
        found = written(kept, clock, tmp_path).attempts
        assert [one.uid for one in found] == [*range(102_488, 103_000)]
        assert len(kept._of_senders) == 512

    def test_is_written_once_a_second(self, kept: Record, clock: Time) -> None:
        assert kept.patience() is None
        kept.add(QUIC, FIREFOX)
        assert kept.patience() == 0
        kept.write()
        kept.add(QUIC, FIREFOX)
        clock.now += 0.25
        assert kept.patience() == 0.75
        kept.write()
        assert known.read(kept._path).attempts[0].times == 1

    def test_nothing_is_on_disk_unless_asked(
        self, kept: Record, clock: Time, tmp_path: Path
    ) -> None:
        kept.add(QUIC, FIREFOX)
        written(kept, clock, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["attempts.json"]
        kept.log = tmp_path / "log"
        for _ in range(1000):
            kept.add(QUIC, FIREFOX)
        lines = kept.log.read_text().splitlines()
        # the second, the fourth, the eighth …
        assert [json.loads(line)["times"] for line in lines] == [2**n for n in range(1, 10)]
        assert kept.log.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("has_reader", [False, True])
    def test_a_pipe_in_the_place_of_the_log_holds_nobody_up(
        self, tmp_path: Path, *, has_reader: bool
    ) -> None:
        log = tmp_path / "log"
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
        complaints: list[str] = []
        kept = Record(LocalSystem(), tmp_path / "attempts.json", complaints.append)
        kept.log = log
        kept.add(QUIC, FIREFOX)
        assert "attempts are not on disk" in "".join(complaints)
        if reader is not None:
            os.close(reader)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_a_log_of_another_account_gets_nothing(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.touch()
        os.chown(log, 65534, 65534)
        complaints: list[str] = []
        kept = Record(LocalSystem(), tmp_path / "attempts.json", complaints.append)
        kept.log = log
        kept.add(QUIC, FIREFOX)
        assert "belongs to another account" in "".join(complaints)
        assert log.read_text() == ""

    def test_a_link_in_the_place_of_the_log_is_not_followed(
        self, kept: Record, complaints: list[str], tmp_path: Path
    ) -> None:
        (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
        kept.log = tmp_path / "log"
        kept.add(QUIC, FIREFOX)
        assert not (tmp_path / "elsewhere").exists()
        (words,) = complaints
        assert words.startswith("attempts are not on disk: ")

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', "null"])
    def test_what_is_damaged_says_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        assert known.read(tmp_path / "file") == known.Attempts()


class TestOwners:
    def test_nobody_is_looked_for_who_cannot_be_found(self) -> None:
        owners = Owners(Path("/nowhere"))
        assert owners.find(QUIC._replace(arrived=True)) is None
        assert owners.find(QUIC._replace(uid=None)) is None
        assert owners.find(QUIC._replace(source_port=None)) is None
        assert owners.find(QUIC._replace(protocol="47", source_port=None)) is None

    def test_searches_are_few(self, tmp_path: Path, clock: Time) -> None:
        looked: list[int] = []

        class Counting(Owners):
            def _inode(self, packet: Packet) -> int:
                return packet.source_port or 0

            def _search(self, wanted: str, uid: int) -> None:
                del wanted
                looked.append(uid)

        owners = Counting(tmp_path, clock)
        for port in range(1, 1000):
            owners.find(QUIC._replace(source_port=port))
        assert len(looked) == 10
        clock.now += 1
        for port in range(1, 1000):
            owners.find(QUIC._replace(source_port=port))
        assert len(looked) == 12

    def test_script_unit_and_unprintable_names(self, tmp_path: Path) -> None:
        process = tmp_path / "42"
        (process / "fd").mkdir(parents=True)
        (process / "fd/3").symlink_to("socket:[99]")
        (process / "exe").symlink_to("/usr/bin/python3.11")
        (process / "comm").write_text("up\x1b[2Jdate\n")
        (process / "cgroup").write_text("1:cpu:/\n0::/system.slice/up.service/inner\n")

        class Known(Owners):
            def _inode(self, packet: Packet) -> int:
                del packet
                return 99

        assert Known(tmp_path).find(QUIC) == Owner(42, "up?[2Jdate", "up.service")
        (process / "exe").unlink()
        (process / "exe").symlink_to("/usr/lib/firefox/firefox (deleted)")
        assert Known(tmp_path).find(QUIC) == Owner(42, "firefox", "up.service")


class TestWords:
    @pytest.mark.parametrize(
        ("protocol", "port", "said"),
        [
            ("udp", 443, "QUIC, refused; it falls back to TCP"),
            ("udp", 123, "NTP, refused; the clock is not set; a clock that is far off keeps tor"),
            ("udp", 3478, "STUN of WebRTC, refused; calls find no direct way"),
            ("udp", 5353, "multicast DNS, refused; devices nearby are not found"),
            ("udp", 5355, "LLMNR, refused; devices nearby"),
            ("udp", 1900, "SSDP, refused; devices nearby"),
            ("udp", 137, "NetBIOS names, refused; devices nearby"),
            ("udp", 9999, "refused; the program gets an error at once"),
            ("tcp", 853, "DNS over TLS, refused; names are resolved through Tor"),
            ("tcp", 8080, "TCP that Tor cannot carry, refused; bypass the network"),
            ("icmp", 8, "ping, refused; Tor carries no ICMP"),
            ("ipv6-icmp", 128, "ping, refused"),
            ("ipv6-icmp", 135, "IPv6 neighbour discovery, refused"),
            ("47", None, "a tunnel (GRE), refused"),
            ("253", None, "refused; Tor carries TCP and names alone"),
        ],
    )
    def test_what_it_was_and_what_happens_instead(
        self, protocol: str, port: int | None, said: str
    ) -> None:
        assert words.outcome(protocol, port, "refused").startswith(said)

    def test_what_was_not_refused_has_no_way_instead(self) -> None:
        assert words.outcome("udp", 443, "forwarded") == "QUIC, not forwarded"
        assert words.outcome("udp", 443, "something new") == "QUIC, something new"

    def test_who(self) -> None:
        assert words.who("firefox", "bob", "firefox.service", "", "") == "firefox (bob)"
        assert words.who("a", "bob", "b.service", "", "") == "a (bob, b.service)"
        assert words.who("", "bob", "", "", "") == "a program of bob"
        assert words.who("", "", "", "192.0.2.7", "eth1") == "192.0.2.7 behind eth1"
        assert words.who("", "", "", "", "") == "the kernel, or a socket that is gone"

    def test_where(self) -> None:
        assert words.target("udp", 443, "1.2.3.4") == "UDP 443 → 1.2.3.4"
        assert words.target("ipv6-icmp", 128, "::9") == "ICMPv6 type 128 → ::9"
        assert words.target("47", None, "1.2.3.4") == "IP protocol 47 → 1.2.3.4"
        assert words.target("0x88cc", None, "") == "a frame of type 0x88cc"

    @given(st.sampled_from(["udp", "tcp", "icmp", "ipv6-icmp", "2", "99"]), st.integers(0, 65535))
    def test_there_are_words_for_everything(self, protocol: str, port: int) -> None:
        said = words.outcome(protocol, port, "refused")
        assert "refused" in said
        assert said.isprintable()
        assert len(said) < 160

    def test_ids_of_containers(self, tmp_path: Path) -> None:
        (tmp_path / "subuid").write_text("bob:100000:65536\nbroken\n")
        assert names.account(0) == "root"
        assert names.account(100_005, tmp_path / "subuid") == "100005 of bob"
        assert names.account(4_000_000_000, tmp_path / "subuid") == "account 4000000000"
        assert names.account(4_000_000_000, tmp_path / "none") == "account 4000000000"


# as nft 1.0.6 and 1.1.3 print them
LIMIT = "limit rate 10/second burst 20 packets"
HELD = f"""\
table inet onionward {{
	set bypass4 {{
		type ipv4_addr
		flags interval
		elements = {{ 192.168.1.0/24 }}
	}}
	set refused_by {{
		type uid . inet_proto
		size 16384
		flags dynamic,timeout
		timeout 1d
		elements = {{ 0 . udp counter packets 300 bytes 8700 {LIMIT} expires 23h59m59s992ms,
			     1000 . 132 counter packets 301 bytes 9 {LIMIT} expires 1h }}
	}}
	set forwarded_from6 {{
		type ifname . ipv6_addr . inet_proto
		size 2048
		flags dynamic,timeout
		timeout 1h
		elements = {{ "wlan-0" . 2001:db8:8::11 . ipv6-icmp timeout 1h expires 59m {LIMIT} counter packets 2 bytes 96 }}
	}}
	set spoofed_by {{
		type uid . inet_proto
		size 16384
		flags dynamic,timeout
		timeout 1d
	}}
}}
"""  # noqa: E101, E501


def test_counts_by_sender() -> None:
    assert counted.read(HELD) == (
        counted.Count("refused", 1000, "", "", "132", 301),
        counted.Count("refused", 0, "", "", "udp", 300),
        counted.Count("forwarded", None, "2001:db8:8::11", "wlan-0", "ipv6-icmp", 2),
    )
    assert counted.read("") == ()


@pytest.mark.parametrize("render", [block, route])
@pytest.mark.parametrize("config", ["", '[[lan]]\ninterface = "eth1"\n', "onion = true\n"])
def test_counting_decides_nothing(render: Callable[..., object], config: str) -> None:
    """Whatever the rules that count do, the next rule is asked, and stops the packet."""
    with_log, without = (
        str(render(policy(config, nflog=nflog)).text)  # type: ignore[attr-defined]
        for nflog in (True, False)
    )
    assert "log prefix" in with_log
    assert "log prefix" not in without
    for text in (with_log, without):
        chains = {
            name: body.strip().splitlines()
            for name, body in re.findall(r"chain (\w+) \{\n(.*?)\n\t\}", text, re.DOTALL)
        }
        notes = [name for name in chains if name.startswith("note_")]
        assert notes
        for rule in itertools.chain(*(chains[name] for name in notes)):
            assert not re.search(r"\b(accept|drop|reject|goto|jump|queue)\b", rule), rule
        for name in chains:
            if name.startswith("drop_"):
                note, verdict = map(str.strip, chains[name])
                assert note == f"jump note_{name.removeprefix('drop_')}"
                assert re.fullmatch(r"counter name \w+ drop", verdict)
        for rule in itertools.chain(*chains.values()):
            for called in re.findall(r"(?:jump|goto) ((?:note|drop)_\w+)", rule):
                assert called in chains
        # a reject is the next rule, with the same match
        for body in chains.values():
            for rule, following in itertools.pairwise(body):
                if "jump note_" in rule and "jump note" not in following:
                    match = rule.strip().partition("jump note_")[0]
                    assert following.strip().startswith(f"{match}counter name")

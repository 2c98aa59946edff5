"""Where relays are, by tor's own files and by the program."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from onionward.config import parse
from onionward.policy import Endpoint, reach
from onionward.preflight import problems
from onionward.tor import directory
from onionward.tor.directory import CONSENSUSES, Directory, Place
from onionward.tor.following import Following, consensuses
from tests.support import FACTS

HEAD = "network-status-version 3 microdesc\nvalid-until 2026-11-27 09:14:24\n"
MICRODESC = "r middle1 AAAA 2038-01-01 00:00:00 198.51.100.7 9001 0\na [2001:db8::7]:9002\n"
FULL = "r middle2 AAAA BBBB 2038-01-01 00:00:00 198.51.100.8 443 9030\n"
AUTHORITY = "DirAuthority moria1 orport=9201 v3ident=F5 ipv6=[2001:db8::9]:443 192.0.2.9:9231 1A25"
FALLBACK = "FallbackDir 192.0.2.10 orport=443 id=4F"


def place(address: str, port: int) -> Place:
    return ipaddress.ip_address(address), port


def test_a_consensus() -> None:
    found, until = directory.parse_consensus(HEAD + MICRODESC + "s Fast\n" + FULL)
    assert until == "2026-11-27 09:14:24"
    # no directory port: clients speak to OR ports alone
    assert found == {
        place("198.51.100.7", 9001),
        place("2001:db8::7", 9002),
        place("198.51.100.8", 443),
    }


@pytest.mark.parametrize(
    "line",
    [
        "r",
        "r x",
        "a",
        "a [::1]:9001",
        "a [2001:db8::1]",
        "a [2001:db8::1]:0",
        "a [2001:db8::1]:65536",
        "r n A 2038-01-01 00:00:00 127.0.0.1 9001 0",
        "r n A 2038-01-01 00:00:00 0.0.0.0 9001 0",
        "r n A 2038-01-01 00:00:00 198.51.100.7/8 9001 0",
        "r n A 2038-01-01 00:00:00 example.test 9001 0",
        "r n A 2038-01-01 00:00:00 198.51.100.7 x 0",
        "m 198.51.100.7 9001 0",
    ],
)
def test_what_is_no_relay_is_left_out(line: str) -> None:
    assert directory.parse_consensus(f"{HEAD}{line}\n")[0] == frozenset()


@pytest.mark.parametrize("text", ["", "garbage", MICRODESC, HEAD.replace("valid", "void")])
def test_what_is_no_consensus_lets_nothing_out(text: str) -> None:
    assert directory.parse_consensus(text + MICRODESC) == (frozenset(), "")


def test_one_that_is_cut_anywhere_lets_out_no_more() -> None:
    text = HEAD + MICRODESC + FULL
    whole, _ = directory.parse_consensus(text)
    addresses = {address for address, _ in whole}
    for end in range(len(text)):
        found, _ = directory.parse_consensus(text[:end])
        # an address that lacks its last digits may be another's, but only as the last of all
        assert len({address for address, _ in found} - addresses) <= 1


def test_lines_of_another_network() -> None:
    found = directory.places_of([AUTHORITY, FALLBACK, "FallbackDir 192.0.2.11:80 id=4F"])
    assert found == {
        place("192.0.2.9", 9201),
        place("2001:db8::9", 443),
        place("192.0.2.10", 443),
    }


def test_what_a_program_brings(tmp_path: Path) -> None:
    key = "F533C81CEF0BC0267857C99B2F471ADF249FA232"
    program = tmp_path / "tor"
    lines = (
        f"moria1 orport=9201 v3ident={key} ipv6=[2001:db8::9]:443 192.0.2.9:9231 1A25 C635",
        f"192.0.2.10 orport=443 id={key}",
        "it says orport=1 somewhere 192.0.2.11",
    )
    program.write_bytes(b"\x7fELF\0" + b"\0".join(line.encode() for line in lines) + b"\0\xff")
    assert directory.compiled_in(str(program)) == {
        place("192.0.2.9", 9201),
        place("2001:db8::9", 443),
        place("192.0.2.10", 443),
    }
    assert directory.compiled_in(str(tmp_path / "none")) == frozenset()
    assert directory.compiled_in(None) == frozenset()


def test_the_real_program_brings_some() -> None:
    found = directory.compiled_in(FACTS.tor_path)
    assert len({address for address, _ in found}) > 50
    assert place("128.31.0.39", 9201) in found  # moria1


def test_only_who_is_held_to_relays_asks(tmp_path: Path) -> None:
    (tmp_path / CONSENSUSES[0]).write_text(HEAD + MICRODESC)
    left_alone, strict = parse("", "o.toml"), parse("[tor]\nstrict = true\n", "o.toml")
    bridged = parse(f'[tor]\nstrict = true\nbridges = ["192.0.2.1:9001 {"A" * 40}"]\n', "o.toml")
    assert directory.look(left_alone, tmp_path, FACTS.tor_path) == Directory()
    assert directory.look(bridged, tmp_path, FACTS.tor_path) == Directory()
    assert consensuses(left_alone, tmp_path) == consensuses(bridged, tmp_path) == ()
    named = replace(strict, network_lines=(AUTHORITY, "TestingTorNetwork 1"))
    found = directory.look(named, tmp_path, FACTS.tor_path)
    assert found.first == (place("192.0.2.9", 9201), place("2001:db8::9", 443))
    assert found.relays == (place("198.51.100.7", 9001), place("2001:db8::7", 9002))
    assert found.valid_until == "2026-11-27 09:14:24"

    assert reach(left_alone, found) is None
    assert reach(bridged, found) == (Endpoint(ipaddress.ip_address("192.0.2.1"), 9001),)
    assert reach(named, found) == tuple(
        sorted(
            (Endpoint(*one) for one in (*found.first, *found.relays)),
            key=lambda one: (one.address.version, one),
        )
    )


def test_a_list_is_read_again_when_it_is_another_one(tmp_path: Path) -> None:
    strict = parse("[tor]\nstrict = true\n", "o.toml")
    config = replace(strict, network_lines=(AUTHORITY,))
    known = directory.look(config, tmp_path, None)
    following = Following(config, tmp_path, None, known)
    assert following.changed() is None
    made = tmp_path / "new"
    made.write_text(HEAD + MICRODESC)
    made.rename(tmp_path / CONSENSUSES[0])
    found = following.changed()
    assert found is not None
    assert len(found.relays) == 2
    assert following.changed() is None


def test_who_would_reach_nobody_is_told() -> None:
    config = parse("[tor]\nstrict = true\n", "o.toml")
    (found,) = problems(config, replace(FACTS, directory=Directory()))
    assert "o.toml:2: tor.strict: the directory authorities" in str(found)
    known = Directory((place("192.0.2.9", 9201),))
    assert list(problems(config, replace(FACTS, directory=known))) == []


def test_other_filters_say_that_they_cannot() -> None:
    config = parse('[tor]\nstrict = true\n[firewall]\nbackend = "iptables"\n', "o.toml")
    known = Directory((place("192.0.2.9", 9201),))
    found = [str(one) for one in problems(config, replace(FACTS, directory=known))]
    assert any(
        "o.toml:2: tor.strict: iptables" in one and " does not hold tor to its relays" in one
        for one in found
    )

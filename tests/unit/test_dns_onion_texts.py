"""Texts by which resolvers are led, and the one question that is asked."""

from __future__ import annotations

import pytest

from onionward.dns.onion import query, texts


def forwarder(**changes: object) -> list[str]:
    values: dict[str, object] = {
        "nameservers": ("192.0.2.1", "fe80::1%eth0"),
        "follow": "",
        "rotate": False,
        "account": ("nobody", "nogroup"),
        "pid_file": "/run/onionward/pid",
        "log": "/run/onionward/log",
        **changes,
    }
    return texts.own_dnsmasq(941, **values).splitlines()  # type: ignore[arg-type]


def test_forwarder() -> None:
    lines = forwarder()
    assert lines[0].startswith(texts.MARK)
    assert [line for line in lines if line.startswith("server=")] == [
        "server=192.0.2.1",
        "server=fe80::1%eth0",
        "server=/onion/127.0.0.1#941",
    ]
    for line in ("listen-address=127.0.0.94", "bind-interfaces", "no-resolv", "no-hosts"):
        assert line in lines
    for line in ("user=nobody", "group=nogroup", "cache-size=0", "strict-order", "proxy-dnssec"):
        assert line in lines


def test_forwarder_that_follows_a_list() -> None:
    lines = forwarder(follow="/run/NetworkManager/resolv.conf")
    assert "resolv-file=/run/NetworkManager/resolv.conf" in lines
    assert "no-resolv" not in lines
    assert [line for line in lines if line.startswith("server=")] == ["server=/onion/127.0.0.1#941"]


def test_forwarder_that_asks_in_turn() -> None:
    assert "strict-order" not in forwarder(rotate=True)
    assert texts.rotates("options edns0 rotate\n")
    assert not texts.rotates("search rotate\n#options rotate\n")


def test_resolv_conf_keeps_all_but_the_servers() -> None:
    text = (
        "# by hand\nnameserver 192.0.2.1\nsearch a.test b.test\nnameserver 192.0.2.2\n"
        "options ndots:2  trust-ad\nsortlist 192.0.2.0/24\nunknown x\n\n"
    )
    ours = texts.own_resolv_conf(text, 2)
    assert ours.startswith(texts.MARK)
    assert [line for line in ours.splitlines() if not line.startswith("#")] == [
        "nameserver 127.0.0.94",
        "nameserver 127.0.0.94",
        "search a.test b.test",
        "options ndots:2 trust-ad",
        "sortlist 192.0.2.0/24",
    ]


@pytest.mark.parametrize(
    ("servers", "option", "expected"),
    [
        (1, "timeout:1", "timeout:1"),
        (2, "timeout:1", "timeout:2"),
        (2, "timeout:2", "timeout:2"),
        (3, "timeout:2", "timeout:3"),
        (3, "timeout:5", "timeout:5"),
        (3, "attempts:1", "attempts:1"),
    ],
)
def test_patience_for_the_next_server(servers: int, option: str, expected: str) -> None:
    ours = texts.own_resolv_conf(f"options {option} rotate\n", servers)
    assert f"options {expected} rotate" in ours.splitlines()


def test_drop_ins() -> None:
    assert "server=/onion/127.0.0.1#941\n" in texts.dnsmasq_drop_in(941)
    unbound = texts.unbound_drop_in(942)
    assert 'local-zone: "onion." nodefault' in unbound
    assert "forward-addr: 127.0.0.1@942" in unbound
    for text in (texts.dnsmasq_drop_in(941), unbound):
        assert text.startswith(texts.MARK)


def test_question() -> None:
    assert query.question(0x1234, "a.onion") == (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x05onion\x00\x00\x01\x00\x01"
    )


def reply(records: bytes, count: int = 1) -> bytes:
    asked = query.question(7, "a.onion")
    return asked[:2] + b"\x81\x80\x00\x01" + bytes([0, count]) + b"\x00" * 4 + asked[12:] + records


CNAME = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01b\xc0\x0e"
ADDRESS = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\xc0\x00\x01"


def test_answer() -> None:
    assert query.answer(7, reply(ADDRESS)) == "127.192.0.1"
    assert query.answer(7, reply(CNAME + ADDRESS, 2)) == "127.192.0.1"
    assert query.answer(8, reply(ADDRESS)) == ""
    assert query.answer(7, reply(b"", 0)) == ""
    assert query.answer(7, reply(CNAME)) == ""


def test_answer_that_is_cut_off() -> None:
    whole = reply(CNAME + ADDRESS, 2)
    assert {query.answer(7, whole[:length]) for length in range(len(whole))} == {""}


def test_the_probe_is_led_by_the_resolver_alone() -> None:
    # the packet rules know names with one label before the address of an onion service
    *before, address, suffix = query.PROBE.split(".")
    assert suffix == "onion"
    assert len(before) > 1 or len(address) != 56

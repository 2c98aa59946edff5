"""The name server of a rootless run, without sockets: its table, and messages as bytes."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.app.rootless import names
from onionward.app.rootless.names import NETWORK4, NETWORK6, Code, Query, VirtualNames
from onionward.leaks.packets import dns_query
from onionward.networks import Address

A, MX, PTR, AAAA, HTTPS = 1, 15, 12, 28, 65
OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)


def asked(name: str, kind: int = A) -> Query:
    query = names.read(dns_query(name, kind=kind))
    assert isinstance(query, Query)
    return query


def answered(name: str, kind: int, table: VirtualNames) -> tuple[int, bytes]:
    """Response code and the data of the record, b"" without one."""
    answer = names.answer(asked(name, kind), table)
    assert isinstance(answer, bytes)
    number, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", answer)
    assert (number, questions, flags & 0x8180) == (0x1994, 1, 0x8180)
    question = dns_query(name, kind=kind)[12:]
    assert answer[12:].startswith(question)
    return flags & 15, answer[12 + len(question) + 12 :] if answers else b""


def test_a_name_has_one_address_of_each_family_and_they_lead_back() -> None:
    table = VirtualNames(7)
    code, four = answered("www.Example.test", A, table)
    assert code == Code.NO_ERROR
    _, six = answered("www.example.TEST", AAAA, table)
    address4, address6 = ipaddress.ip_address(four), ipaddress.ip_address(six)
    assert address4 in NETWORK4
    assert address6 in NETWORK6
    assert table.name(address4) == table.name(address6) == "www.example.test"
    assert table.address4("other.test") != address4
    assert six[-4:] == four


def test_forgotten_names_leave_their_address_to_nobody() -> None:
    table = VirtualNames(0, size=3)
    first = table.address4("0.test")
    kept = table.address4("kept.test")
    seen = {first, kept}
    for number in range(1, 50):
        found = table.address4(f"{number}.test")
        assert found not in seen
        seen.add(found)
        assert table.name(kept) == "kept.test"  # which keeps it
    assert table.name(first) is None
    assert table.address4("0.test") not in seen


def test_addresses_begin_again_at_the_end_of_the_network() -> None:
    room = NETWORK4.num_addresses - 2
    table = VirtualNames(room - 1)
    last, first = table.address4("a.test"), table.address4("b.test")
    assert last == NETWORK4[-2]
    assert first == NETWORK4[1]
    assert table.name(last) == "a.test"


@pytest.mark.parametrize(
    ("name", "kind", "code", "data"),
    [
        ("localhost", A, Code.NO_ERROR, ipaddress.ip_address("127.0.0.1").packed),
        ("a.localhost", AAAA, Code.NO_ERROR, ipaddress.ip_address("::1").packed),
        ("host", A, Code.NO_SUCH_NAME, b""),
        ("printer.local", A, Code.NO_SUCH_NAME, b""),
        ("use-application-dns.net", A, Code.NO_SUCH_NAME, b""),
        ("1.0.0.127.in-addr.arpa", A, Code.NO_SUCH_NAME, b""),
        ("not a name.test", A, Code.NO_SUCH_NAME, b""),
        (".".join(["a" * 63] * 3 + ["b" * 62]), A, Code.NO_SUCH_NAME, b""),
        ("example.test", MX, Code.NOT_IMPLEMENTED, b""),
        ("example.test", HTTPS, Code.NOT_IMPLEMENTED, b""),
        ("1.0.0.127.in-addr.arpa", PTR, Code.NO_ERROR, b"\x09localhost\0"),
        ("9.9.192.10.in-addr.arpa", PTR, Code.NO_SUCH_NAME, b""),
        ("1.1.168.192.in-addr.arpa", PTR, Code.NO_SUCH_NAME, b""),
        ("_dns-sd._udp.example.test", PTR, Code.NO_SUCH_NAME, b""),
    ],
)
def test_answers_without_tor(name: str, kind: int, code: Code, data: bytes) -> None:
    assert answered(name, kind, VirtualNames(0)) == (code, data)


def test_a_label_with_a_dot_is_no_host_name() -> None:
    message = dns_query("x.test").replace(b"\x01x\x04test", b"\x06x.test")
    query = names.read(message)
    assert isinstance(query, Query)
    assert query.name is None


@pytest.mark.parametrize("address", ["198.18.80.1", "2001:db8:80::1"])
def test_names_of_other_addresses_are_asked_of_tor(address: str) -> None:
    wanted = ipaddress.ip_address(address)
    query = asked(wanted.reverse_pointer, PTR)
    assert names.answer(query, VirtualNames(0)) == wanted
    assert names.named(query, "www.example.test").endswith(b"\x03www\x07example\x04test\0")


def test_names_of_virtual_addresses_are_those_that_were_asked_for() -> None:
    table = VirtualNames(5)
    virtual: list[Address] = [table.address4("a.onion"), table.address6("a.onion")]
    for address in virtual:
        code, data = answered(address.reverse_pointer, PTR, table)
        assert (code, data) == (Code.NO_ERROR, b"\x01a\x05onion\0")


def test_who_knows_edns_is_answered_so() -> None:
    plain = dns_query("a.test")
    extended = plain[:10] + b"\0\x01" + plain[12:] + OPT
    query = names.read(extended)
    assert isinstance(query, Query)
    answer = names.answer(query, VirtualNames(0))
    assert isinstance(answer, bytes)
    assert answer[10:12] == b"\0\x01"
    assert answer.endswith(OPT)
    assert not names.refuse(asked("a.test"), Code.SERVER_FAILURE).endswith(OPT)


def test_what_is_no_question_of_ours() -> None:
    question = dns_query("a.test")
    assert names.read(question[:2] + b"\x80\0" + question[4:]) is None  # an answer
    for changed, code in ((b"\x28\0", Code.NOT_IMPLEMENTED), (b"\x01\0\0\x02", Code.FORMAT_ERROR)):
        refused = names.read(question[:2] + changed + question[2 + len(changed) :])
        assert isinstance(refused, bytes)
        assert refused[3] & 15 == code


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_or_dropped(message: bytes) -> None:
    found = names.read(message)
    if isinstance(found, Query):
        names.answer(found, VirtualNames(0))


@given(st.binary(max_size=80), st.integers(0, 30))
def test_damaged_queries_are_answered_or_dropped(damage: bytes, place: int) -> None:
    message = bytearray(dns_query("www.example.test"))
    message[place : place + len(damage)] = damage
    found = names.read(bytes(message))
    if isinstance(found, Query):
        names.answer(found, VirtualNames(0))

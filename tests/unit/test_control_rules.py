"""What passes between an account and tor's control port, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.tor.control_rules import FILTERED, Verdict, is_event, is_last, judge, passed


@pytest.mark.parametrize(
    ("line", "forwarded"),
    [
        ("GETINFO version", "GETINFO version"),
        ("getinfo traffic/read traffic/written", "GETINFO traffic/read traffic/written"),
        ("GETINFO status/bootstrap-phase", "GETINFO status/bootstrap-phase"),
        ("GETINFO network-liveness", "GETINFO network-liveness"),
        ("SIGNAL NEWNYM", "SIGNAL NEWNYM"),
        ("signal newnym", "SIGNAL NEWNYM"),
        ("SETEVENTS", "SETEVENTS"),
        ("SETEVENTS extended bw STATUS_CLIENT", "SETEVENTS BW STATUS_CLIENT"),
    ],
)
def test_harmless_commands_pass(line: str, forwarded: str) -> None:
    assert judge(line) == Verdict(forward=forwarded)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("PROTOCOLINFO 1", ("250-PROTOCOLINFO 1", "250-AUTH METHODS=NULL", "250 OK")),
        ("AUTHENTICATE", ("250 OK",)),
        ('AUTHENTICATE "anything"', ("250 OK",)),
        ("USEFEATURE EXTENDED_EVENTS VERBOSE_NAMES", ("250 OK",)),
    ],
)
def test_what_is_answered_without_tor(line: str, answer: tuple[str, ...]) -> None:
    assert judge(line) == Verdict(answer=answer)


def test_quit() -> None:
    assert judge("quit") == Verdict(answer=("250 closing connection",), ends=True)


# every command of control-spec that tells of others or changes something
@pytest.mark.parametrize(
    "line",
    [
        "",
        "GETINFO",
        "GETINFO circuit-status",
        "GETINFO version circuit-status",
        "GETINFO stream-status",
        "GETINFO orconn-status",
        "GETINFO entry-guards",
        "GETINFO address",
        "GETINFO address-mappings/all",
        "GETINFO config-text",
        "GETINFO config-file",
        "GETINFO net/listeners/socks",
        "GETINFO process/pid",
        "GETINFO onions/current",
        "GETINFO hs/client/desc/id/x",
        "GETINFO status/clients-seen",
        "GETINFO status/bootstrap-phase\tcircuit-status",
        "GETCONF ControlPort",
        "SETCONF SocksPort=9050",
        "RESETCONF SocksPort",
        "LOADCONF",
        "SAVECONF",
        "SIGNAL HALT",
        "SIGNAL SHUTDOWN",
        "SIGNAL RELOAD",
        "SIGNAL DUMP",
        "SIGNAL DEBUG",
        "SIGNAL CLEARDNSCACHE",
        "SIGNAL",
        "SIGNAL NEWNYM HALT",
        "SIGNAL  NEWNYM",
        "SETEVENTS CIRC",
        "SETEVENTS STREAM",
        "SETEVENTS ADDRMAP",
        "SETEVENTS HS_DESC",
        "SETEVENTS BW STREAM_BW",
        "SETEVENTS NOTICE",
        "SETEVENTS WARN",
        "SETEVENTS ERR",
        "SETEVENTS SIGNAL",
        "MAPADDRESS 0.0.0.0=example.com",
        "EXTENDCIRCUIT 0",
        "SETCIRCUITPURPOSE 1 purpose=general",
        "ATTACHSTREAM 1 0",
        "REDIRECTSTREAM 1 example.com",
        "CLOSESTREAM 1 1",
        "CLOSECIRCUIT 1",
        "RESOLVE example.com",
        "ADD_ONION NEW:BEST Port=80",
        "DEL_ONION x",
        "HSFETCH x",
        "ONION_CLIENT_AUTH_VIEW",
        "ONION_CLIENT_AUTH_ADD x x25519:y",
        "TAKEOWNERSHIP",
        "DROPOWNERSHIP",
        "DROPGUARDS",
        "DROPTIMEOUTS",
        "AUTHCHALLENGE SAFECOOKIE 00",
        "USEFEATURE SOMETHING",
        "GETINFO version\x00",
        "GETINFO version\rSIGNAL HALT",
        "GETINFO versión",
    ],
)
def test_everything_else_is_filtered(line: str) -> None:
    assert judge(line) == Verdict(answer=(FILTERED,))


def test_a_block_of_data_is_no_commands() -> None:
    assert judge("+LOADCONF") == Verdict(answer=(FILTERED,), skips_data=True)
    assert judge("+SETEVENTS BW") == Verdict(answer=(FILTERED,), skips_data=True)


words = st.sampled_from(
    [
        *("GETINFO", "SIGNAL", "SETEVENTS", "NEWNYM", "HALT", "BW", "STREAM"),
        *("version", "circuit-status", "+", "\r", "\n", "\t"),
    ]
)


@given(st.one_of(st.text(), st.lists(words).map(" ".join)))
def test_tor_gets_nothing_but_the_lists(line: str) -> None:
    allowed = {"GETINFO", "SIGNAL", "SETEVENTS", "NEWNYM", "version", "BW", ""}
    verdict = judge(line)
    assert set(verdict.forward.split(" ")) <= allowed
    assert bool(verdict.forward) != bool(verdict.answer)


@pytest.mark.parametrize(
    "line",
    [
        "250 OK",
        "250-version=0.4.9.11",
        "250-traffic/read=12",
        "552 Unrecognized event",
        "650 BW 12 34",
        "650 BW 12 34 extra=1",
        "650 NETWORK_LIVENESS UP",
        "650 STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED",
        '650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"',
        "650 STATUS_GENERAL WARN TOO_MANY_CONNECTIONS CURRENT=5",
    ],
)
def test_lines_from_tor_that_pass(line: str) -> None:
    assert passed(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "250-circuit-status=",
        "250+circuit-status=",
        "1 BUILT $AAAA~x",
        "650 STREAM 1 NEW 0 example.com:80",
        "650 CIRC 1 BUILT",
        "650 ADDRMAP example.com 192.0.2.1",
        "650 WARN Rejecting example.com",
        "650 STATUS_CLIENT WARN SOCKS_BAD_HOSTNAME HOSTNAME=example.com",
        "650 STATUS_CLIENT WARN DANGEROUS_SOCKS PROTOCOL=SOCKS5 ADDRESS=192.0.2.1:80",
        "650 STATUS_GENERAL WARN CLOCK_SKEW SKEW=90 SOURCE=OR:192.0.2.1:9001",
        '650 STATUS_GENERAL WARN BUG REASON="example.com"',
        "650+STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED",
        "650-BW 1 2",
    ],
)
def test_lines_from_tor_that_do_not(line: str) -> None:
    assert passed(line) is None


def test_addresses_of_relays_are_left_out() -> None:
    phase = (
        "NOTICE BOOTSTRAP PROGRESS=5 "
        'TAG=conn SUMMARY="Connecting" WARNING="No route" REASON=NOROUTE COUNT=3 '
        'RECOMMENDATION=warn HOSTID="ABCD" HOSTADDR="192.0.2.1:443"'
    )
    assert "192.0.2.1" in phase
    for start in ("250-status/bootstrap-phase=", "650 STATUS_CLIENT "):
        line = passed(start + phase)
        assert line is not None
        assert line.endswith("REASON=NOROUTE COUNT=3 RECOMMENDATION=warn")


@pytest.mark.parametrize(
    ("line", "last", "event"),
    [
        ("250 OK", True, False),
        ("250-version=x", False, False),
        ("250+x=", False, False),
        ("551 x", True, False),
        ("650 BW 1 2", True, True),
        ("", False, False),
    ],
)
def test_kinds_of_lines(line: str, last: bool, event: bool) -> None:
    assert is_last(line) is last
    assert is_event(line) is event

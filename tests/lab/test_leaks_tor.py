"""When tor is gone: refused, not open; and nobody else can take its place.

internet ── host0 (witness) ── eth0 host (tor killed)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from onionward.leaks.model import Account, Needs, Place
from tests.lab.leak_bench import Bench, chosen
from tests.lab.leak_trial import Trial
from tests.lab.lifecycle_machine import until
from tests.report import Faults

ORDINARY = chosen(
    lambda v: (
        not v.prepared
        and v.account is Account.USER
        and v.place is Place.HOST
        and v.needs is Needs.NOTHING
    )
)
LISTEN = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
socket.socket(socket.AF_INET, kind).bind(("127.0.0.1", int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def bench(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    opened = Bench(lab, tmp_path_factory.mktemp("tor"))
    try:
        opened.onionward("up")
        pids = opened.tor_pids()
        assert pids, "there is no tor to kill"
        opened.run("kill", "-KILL", *pids)
        until("tor is gone", lambda: not set(pids) & set(opened.tor_pids()))
        yield opened
    finally:
        opened.end()


@pytest.fixture(scope="module")
def without_tor(bench: Bench) -> Trial:
    return bench.try_vectors(ORDINARY, "without-tor")


def test_nothing_escapes_without_tor(without_tor: Trial, faults: Faults) -> None:
    without_tor.assert_nothing_escaped(faults, "ways out when tor is killed")
    for name in ORDINARY:
        without_tor.assert_silent(name, faults, "ways out when tor is killed")


def test_tcp_is_refused_at_once_without_tor(bench: Bench, without_tor: Trial) -> None:
    assert without_tor.outcomes["tcp.web4"].startswith("refused")
    assert without_tor.outcomes["tcp.web6"].startswith("refused")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_ordinary_account_cannot_take_tors_place(bench: Bench, protocol: str) -> None:
    port = bench.targets.trans_port if protocol == "tcp" else bench.targets.dns_port

    def listens(number: int) -> bool:
        argv = ["/usr/bin/python3", "-I", "-c", LISTEN, protocol, str(number)]
        return bench.status(*argv, user=bench.targets.user_account) == 0

    assert listens(9040), "the attempt proves nothing: it cannot even have the wiki's port"
    assert not listens(port)

"""The server's account, files and errors; tests/lab/test_dhcp_server.py has the process itself."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from onionward.errors import CommandError, LanError
from onionward.facts import Account
from onionward.lan import dhcp, dhcp_server
from onionward.paths import Paths
from tests.support import DyingSystem, LocalSystem, ScriptedSystem, addr, net

ETH1 = dhcp.Segment("eth1", (addr("198.18.8.1"),), (net("198.18.8.0/24"),))
NOBODY = Account("nobody", 65534, 65534, Path("/nonexistent"))
DNSMASQ = Account("dnsmasq", 999, 65534, Path("/var/lib/misc"))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(state=tmp_path / "state", runtime=tmp_path / "run")
    found.state.mkdir()
    return found


def with_accounts(monkeypatch: pytest.MonkeyPatch, *accounts: Account) -> None:
    known = {account.name: account for account in accounts}
    monkeypatch.setattr(dhcp_server, "find_account", known.get)


def test_the_package_s_account_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accounts(monkeypatch, NOBODY, DNSMASQ)
    assert dhcp_server.choose_account(947) == DNSMASQ
    with_accounts(monkeypatch, NOBODY)
    assert dhcp_server.choose_account(947) == NOBODY


def test_never_tor_s_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accounts(monkeypatch, NOBODY, DNSMASQ)
    assert dhcp_server.choose_account(DNSMASQ.uid) == NOBODY
    with_accounts(monkeypatch, NOBODY)
    with pytest.raises(LanError, match="no account for the DHCP server") as caught:
        dhcp_server.choose_account(NOBODY.uid)
    assert "adduser" in caught.value.hint


def test_the_configuration_names_the_files(paths: Paths) -> None:
    lines = dhcp_server.render([ETH1], DNSMASQ, paths).splitlines()
    assert f"dhcp-leasefile={paths.state}/dhcp.leases" in lines
    assert f"log-facility={paths.runtime}/dnsmasq-lan.log" in lines
    assert "user=dnsmasq" in lines


def test_where_things_are() -> None:
    assert dhcp_server.command(dhcp_server.config_path()) == [
        "dnsmasq",
        "--conf-file=/run/onionward/dnsmasq-lan.conf",
    ]
    assert str(dhcp_server.lease_path()) == "/var/lib/onionward/dhcp.leases"


def test_dnsmasq_s_words_are_told(paths: Paths) -> None:
    argv = dhcp_server.command(dhcp_server.config_path(paths))
    words = "\ndnsmasq: failed to bind DHCP server socket: Address already in use\n"
    system = ScriptedSystem({"dnsmasq": CommandError(argv, 2, words)})
    with pytest.raises(LanError) as caught:
        dhcp_server.apply(system, dhcp_server.survey(paths), "port=0\n", paths)
    assert caught.value.message == (
        "dnsmasq does not serve DHCP: dnsmasq: failed to bind DHCP server socket: "
        "Address already in use"
    )
    assert str(dhcp_server.config_path(paths)) in caught.value.hint


def test_a_server_that_ends_at_once(paths: Paths) -> None:
    with pytest.raises(LanError, match="has ended after it was started"):
        dhcp_server.start(ScriptedSystem({"dnsmasq": ""}), "port=0\n", paths)


def test_who_has_which_address_is_for_root_only_and_stays(paths: Paths) -> None:
    system = ScriptedSystem({"dnsmasq": ""})
    leases = dhcp_server.lease_path(paths)
    with pytest.raises(LanError):
        dhcp_server.start(system, "port=0\n", paths)
    assert stat.S_IMODE(leases.stat().st_mode) == 0o600
    leases.write_text("known\n")
    with pytest.raises(LanError):
        dhcp_server.start(system, "port=0\n", paths)
    dhcp_server.restore(system, dhcp_server.survey(paths))
    assert leases.read_text() == "known\n"


@pytest.mark.parametrize("survives", range(4))
def test_killed_in_the_middle(paths: Paths, survives: int) -> None:
    saved: dhcp_server.Saved = json.loads(json.dumps(dhcp_server.survey(paths)))
    with pytest.raises(DyingSystem.DeathError):
        dhcp_server.apply(DyingSystem(survives), saved, "port=0\n", paths)
    for _ in range(2):
        assert dhcp_server.restore(LocalSystem(), saved) == ""
    assert [p for p in paths.runtime.parent.rglob("*") if p.is_file()] in (
        [],
        [dhcp_server.lease_path(paths)],
    )


def test_who_else_serves(paths: Paths) -> None:
    system = ScriptedSystem({"ss -Hlunp": "UNCONN 0 0 198.18.8.1:67 0.0.0.0:*\n"})
    (found,) = dhcp_server.listeners(system, dhcp_server.config_path(paths))
    assert str(found.address) == "198.18.8.1"


def test_a_process_that_only_looks_alike_is_not_ours(tmp_path: Path) -> None:
    # this process runs, but with other arguments
    assert dhcp_server.running(tmp_path / "dnsmasq-lan.conf") == ()

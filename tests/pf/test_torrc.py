"""Tor's configuration for each system, read by the real tor as far as the platform's allows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.bsd.kind import KINDS, PATHS
from onionward.bsd.validation import platform_of
from onionward.errors import CommandError
from onionward.paths import Paths
from onionward.render.torrc import Platform, TransProxyType, torrc
from onionward.system import System
from onionward.tor.process import command
from tests.support import policy
from tests.unit.scopes import LAN, gateway

REMOVED = ("TransListenAddress", "DNSListenAddress", "VirtualAddrNetwork ")


@pytest.mark.parametrize("dialect", KINDS)
def test_what_depends_on_the_system(dialect: str) -> None:
    given = gateway(f"[host]\nroute = 'tor'\n{LAN}[tor]\nvirtual_networks = ['10.192.0.0/10']\n")
    text = torrc(given, PATHS, account="_tor", platform=platform_of(KINDS[dialect]))
    assert ("TransProxyType pf-divert" in text) == (dialect == "openbsd")
    assert "TransPort 127.0.0.1:940\nTransPort [::1]:940\nDNSPort 127.0.0.1:941\n" in text
    # clients are handed to loopback itself
    assert "169.254" not in text
    assert "KeepBindCapabilities" not in text
    assert "PidFile /var/run/onionward/tor.pid" in text
    assert "VirtualAddrNetworkIPv4 10.192.0.0/10\n" in text
    assert not any(option in text for option in REMOVED)


def verified(text: str) -> str:
    return System().query([*command(Path("-")), "--verify-config"], stdin=text, timeout=30)


@pytest.mark.parametrize("proxy", ["default", "TPROXY", "ipfw", "pf-divert"])
def test_tor_accepts_what_is_its_systems_and_names_what_is_not(
    proxy: TransProxyType, tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = Paths(*(tmp_path_factory.mktemp(name) for name in ("db", "run")))
    text = torrc(
        policy(),
        paths,
        account=None,
        platform=Platform(proxy, relays=False, keeps_capabilities=False, pid_file=True),
    )
    if proxy in ("default", "TPROXY"):
        assert "Configuration was valid" in verified(text)
        return
    system = {"ipfw": "FreeBSD", "pf-divert": "OpenBSD"}[proxy]
    with pytest.raises(CommandError, match=rf"{proxy} is a {system}-specific|{proxy}.*{system}"):
        verified(text)
    # nothing else in it is refused
    other = text.replace(f"TransProxyType {proxy}\n", "")
    assert "Configuration was valid" in verified(other)

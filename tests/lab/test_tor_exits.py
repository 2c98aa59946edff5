"""Exits in the countries that were asked for: the web server sees from where it is asked."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab.lifecycle_machine import Machine, exactly_back, open_machine, until

SHARED = "/usr/share/tor"


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def geoip(lab: Lab) -> tuple[str, str]:
    """Files as tor reads them: the first exit is in Germany, the second in the Netherlands."""
    countries = dict(zip(_exits(lab, 4), ("DE", "NL"), strict=True))
    lines = []
    for address in sorted({address for address, _ in lab.relays if ":" not in address}):
        number = int(ipaddress.ip_address(address))
        lines.append(f"{number},{number},{countries.get(address, 'SE')}")
    countries = dict(zip(_exits(lab, 6), ("DE", "NL"), strict=True))
    lines6 = [f"{address},{address},{country}" for address, country in countries.items()]
    return "\n".join(lines) + "\n", "\n".join(lines6) + "\n"


def _exits(lab: Lab, version: int) -> list[str]:
    return [a for a in lab.exits if ipaddress.ip_address(a).version == version]


@pytest.fixture
def with_countries(machine: Machine) -> Iterator[Machine]:
    """The machine with the package of countries, which knows those of the lab."""
    machine.output("mount", "-t", "tmpfs", "none", SHARED)
    try:
        for name, text in zip(("geoip", "geoip6"), geoip(machine.lab), strict=True):
            machine.path(f"{SHARED}/{name}").write_text(text)
        yield machine
    finally:
        machine.onionward("down", "--force")
        until("tor is gone", lambda: not machine.tor_pids())
        machine.output("umount", SHARED)


def asked_from(machine: Machine) -> set[int]:
    """Which exits asked the web server, by number."""
    found = set()
    for family in (4, 6):
        web = machine.lab.web4 if family == 4 else f"[{machine.lab.web6}]"
        url = f"http://{web}/"
        shown = machine.output("curl", "-sS", "--fail", "--noproxy", "*", "-m", "30", url)
        found.add(_exits(machine.lab, family).index(json.loads(shown)["client"]))
    return found


def test_exits_are_where_they_should_be(with_countries: Machine) -> None:
    machine = with_countries
    for line, expected in (
        ('exit_countries = ["de"]', 0),
        ('exit_countries = ["nl", "se"]', 1),
        ('exclude_exit_countries = ["nl"]', 0),
    ):
        machine.configure(f"[tor]\nisolate_destinations = true\n{line}\n")
        machine.up()
        assert asked_from(machine) == {expected}, line


def test_a_country_without_exits_is_no_way_out(with_countries: Machine) -> None:
    machine = with_countries
    machine.configure('[tor]\nbootstrap_timeout = 6\nexit_countries = ["se", "at"]\n')
    with exactly_back(machine):
        done = machine.onionward("up")
    assert done.returncode == 1
    assert "no exit is in the countries that exit_countries" in done.stderr
    assert "there are exits in: de, nl" in done.stderr


def test_without_files_of_countries_it_is_refused(machine: Machine) -> None:
    machine.configure('[tor]\nexclude_exit_countries = ["nl"]\n')
    machine.output("mount", "-t", "tmpfs", "none", SHARED)
    try:
        with exactly_back(machine):
            checked, done = machine.onionward("check"), machine.onionward("up")
    finally:
        machine.output("umount", SHARED)
    for one in (checked, done):
        assert one.returncode == 2
        assert "tor.exclude_exit_countries: tor has no GeoIP file" in one.stderr
        assert "apt install tor-geoipdb" in one.stderr

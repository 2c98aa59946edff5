"""Which relays tor uses: countries of exits, lines of bridges, and the torrc that comes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.config import countries, parse
from onionward.config.bridges import Bridge, NoBridgeError, read
from onionward.errors import ConfigError
from onionward.preflight import problems
from onionward.render.torrc import relays
from onionward.tor.installed import Installed
from tests.support import FACTS, addr

ID = "0123456789ABCDEF0123456789ABCDEF01234567"
CERT = "A" * 70
OBFS4 = f"obfs4 192.0.2.1:443 {ID} cert={CERT} iat-mode=0"
THERE = Installed("/usr/bin/obfs4proxy", Path("/usr/share/tor"))


def complaints(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "o.toml")
    return caught.value.problems


@pytest.mark.parametrize("code", ["de", "gb", "us", "zw"])
def test_a_country(code: str) -> None:
    assert countries.problem(code) == ""


@pytest.mark.parametrize(
    ("code", "guess"),
    [("DE", 'write "de"'), ("uk", 'write "gb"'), ("xx", "two small"), ("{de}", "two"), ("", "two")],
)
def test_no_country(code: str, guess: str) -> None:
    assert guess in countries.problem(code)


def test_countries_are_checked_where_they_stand() -> None:
    found = complaints(
        '[tor]\nexit_countries = [\n"de",\n"uk",\n]\nexclude_exit_countries = ["nl", "de"]\n'
    )
    assert len(found) == 2
    assert found[0].startswith('o.toml:4: tor.exit_countries[1]: "uk" is not a country code')
    assert found[1].startswith('o.toml:6: tor.exclude_exit_countries[1]: "de" is among')


def test_countries_become_options() -> None:
    config = parse('[tor]\nexit_countries = ["de", "nl"]\nexclude_exit_countries = ["us"]', "o")
    assert relays(config, THERE) == (
        "GeoIPFile /usr/share/tor/geoip",
        "GeoIPv6File /usr/share/tor/geoip6",
        "ExitNodes {de},{nl}",
        "ExcludeExitNodes {us}",
    )


def test_what_is_missing_is_named_with_its_package() -> None:
    config = parse(f'[tor]\nexit_countries = ["de"]\nbridges = [\n"{OBFS4}"]', "o.toml")
    geoip, transport = problems(config, FACTS)
    assert geoip.startswith("o.toml:2: tor.exit_countries: tor has no GeoIP file")
    assert geoip.endswith("apt install tor-geoipdb")
    assert transport.startswith("o.toml:4: tor.bridges[0]: there is no program")
    assert transport.endswith("apt install obfs4proxy")


@pytest.mark.parametrize(
    ("line", "bridge"),
    [
        (
            OBFS4,
            Bridge("obfs4", addr("192.0.2.1"), 443, ID, (("cert", CERT), ("iat-mode", "0"))),
        ),
        (f"192.0.2.1:9001   {ID.lower()}", Bridge("", addr("192.0.2.1"), 9001, ID, ())),
        (f"[2001:db8::1]:443 {ID}", Bridge("", addr("2001:db8::1"), 443, ID, ())),
        (
            f"obfs4 [2001:db8::1]:443 {ID} cert={CERT}",
            Bridge("obfs4", addr("2001:db8::1"), 443, ID, (("cert", CERT),)),
        ),
    ],
)
def test_a_bridge(line: str, bridge: Bridge) -> None:
    assert read(line) == bridge
    assert read(bridge.line()) == bridge


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "has no address"),
        ("obfs4", "has no address"),
        (f"Bridge {OBFS4}", "leave out the word Bridge"),
        (f"snowflake 192.0.2.3:80 {ID}", "speaks UDP to addresses that nobody knows"),
        (f"meek_lite 192.0.2.3:80 {ID} url=https://x/", "looks up names before"),
        (f"webtunnel [2001:db8::1]:443 {ID} url=https://x/", "looks up names before"),
        (f"obfs5 192.0.2.1:443 {ID}", "the transport 'obfs5' is not known"),
        (f"192.0.2.1 {ID}", "is not an address with a port"),
        (f"192.0.2.1:0 {ID}", "0 is not a port"),
        (f"192.0.2.1:65536 {ID}", "65536 is not a port"),
        (f"192.0.2.256:1 {ID}", "'192.0.2.256' is not an address"),
        (f"192.0.2.1:٣ {ID}", "is not an address with a port"),
        (f"2001:db8::1:443 {ID}", "is not an address with a port"),
        (f"[fe80::1%eth0]:443 {ID}", "cannot be the address of a bridge"),
        (f"[192.0.2.1]:443 {ID}", "is not an address"),
        (f"127.0.0.1:443 {ID}", "cannot be the address of a bridge"),
        (f"224.0.0.1:443 {ID}", "cannot be the address of a bridge"),
        *(
            (f"{place}:443 {ID}", "cannot be the address of a bridge")
            for place in ("0.1.2.3", "255.255.255.255", "[::ffff:192.0.2.1]", "[fe80::1]", "[::9]")
        ),
        (f"bridge.example:443 {ID}", "names are not looked up"),
        ("192.0.2.1:443", "has no fingerprint"),
        (f"192.0.2.1:443 {ID[1:]}", "has no fingerprint"),
        (f"192.0.2.1:443 {ID} cert={CERT}", "the line names none"),
        (f"obfs4 192.0.2.1:443 {ID}", "cert= is missing or cut short"),
        (f"obfs4 192.0.2.1:443 {ID} cert={CERT[1:]}", "cert= is missing or cut short"),
        (f"obfs4 192.0.2.1:443 {ID} cert={CERT} iat-mode=3", "iat-mode=3 is not known"),
        (f"obfs4 192.0.2.1:443 {ID} cert={CERT} cert={CERT}", "has an argument twice"),
        (f"obfs4 192.0.2.1:443 {ID} cert={CERT} x=1", "x= is not known"),
        (f"obfs4 192.0.2.1:443 {ID} cert={CERT} iat", "'iat' is not an argument"),
        (f'obfs4 192.0.2.1:443 {ID} cert={CERT} x="1"', "is not an argument"),
        (f"obfs4 192.0.2.1:443 {ID} cert={CERT} #x=1", "is not an argument"),
    ],
)
def test_no_bridge(line: str, words: str) -> None:
    with pytest.raises(NoBridgeError) as caught:
        read(line)
    assert words in str(caught.value)


def test_bridges_are_checked_where_they_stand() -> None:
    found = complaints(f'[tor]\nbridges = [\n"{OBFS4}",\n"snowflake 192.0.2.3:80 {ID}",\n]')
    assert len(found) == 1
    assert found[0].startswith("o.toml:4: tor.bridges[1]: the transport snowflake")


def test_bridges_become_options() -> None:
    config = parse(f'[tor]\nbridges = ["{OBFS4}", "[2001:db8::1]:9001 {ID}"]', "o.toml")
    assert relays(config, THERE) == (
        "UseBridges 1",
        "ClientTransportPlugin obfs4 exec /usr/bin/obfs4proxy",
        f"Bridge {OBFS4}",
        f"Bridge [2001:db8::1]:9001 {ID}",
    )
    plain = parse(f'[tor]\nbridges = ["192.0.2.1:9001 {ID}"]', "o.toml")
    assert relays(plain, Installed()) == ("UseBridges 1", f"Bridge 192.0.2.1:9001 {ID}")
    assert problems(plain, FACTS) == ()

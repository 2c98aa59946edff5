"""Reading a configuration: what is right is read, what is wrong is said with file and line."""

from __future__ import annotations

import importlib
from pathlib import Path
from textwrap import dedent

import pytest

from onionward import config as config_package
from onionward.config import Config, parse
from onionward.config.parse import NETWORK_OPTIONS, load
from onionward.errors import ConfigError
from tests.support import net

# the package has a function of this name too
PARSE = importlib.import_module("onionward.config.parse")


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(dedent(text), "o.toml")
    assert caught.value.exit_status == 2
    return caught.value.problems


def only_problem(text: str) -> str:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def test_nothing_written_is_the_default() -> None:
    assert parse("", "o.toml") == Config()
    assert Config().tor.virtual == (net("127.192.0.0/10"), net("fd5a:7011::/32"))


def test_everything_written_is_read() -> None:
    read = parse(
        dedent(
            """
            [host]
            route = "tor"
            inbound = "bypass"
            [bypass]
            networks = ["192.168.1.0/24", "2001:db8:5::/48", "192.0.2.7"]
            [tor]
            user = "mytor"
            virtual_networks = ["10.192.0.0/10"]
            trans_port = 9040
            dns_port = 9053
            bootstrap_timeout = 60
            [firewall]
            backend = "nftables"
            """
        ),
        "o.toml",
    )
    assert read.host.inbound == "bypass"
    assert read.bypass.networks == (
        net("192.168.1.0/24"),
        net("2001:db8:5::/48"),
        net("192.0.2.7/32"),
    )
    assert (read.tor.user, read.tor.trans_port, read.tor.dns_port) == ("mytor", 9040, 9053)
    assert read.tor.bootstrap_timeout == 60
    assert read.firewall.backend == "nftables"
    # the family that is not named keeps its default
    assert read.tor.virtual == (net("10.192.0.0/10"), net("fd5a:7011::/32"))


def test_every_problem_at_once_in_the_order_of_lines() -> None:
    found = problems(
        """\
        [host]
        inbund = "link"
        route = "clear"

        [bypass]
        networks = [
            "192.168.1.0/24",
            "192.168.1.7/24",
            "nonsense",
        ]

        [tor]
        trans_port = 70000
        user = 7
        [firwall]
        backend = "auto"
        """
    )
    assert [p.split(": ")[:2] for p in found] == [
        ["o.toml:2", "host.inbund"],
        ["o.toml:3", "host.route"],
        ["o.toml:8", "bypass.networks[1]"],
        ["o.toml:9", "bypass.networks[2]"],
        ["o.toml:13", "tor.trans_port"],
        ["o.toml:14", "tor.user"],
        ["o.toml:15", "firwall"],
    ]
    assert "did you mean inbound?" in found[0]
    assert 'write "192.168.1.0/24"' in found[2]
    assert "did you mean firewall?" in found[6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('host = "tor"', 'o.toml:1: host: "tor" is not a table; write [host]'),
        ("bypass = []", "o.toml:1: bypass: [] is not a table"),
        ("[[tor]]", "o.toml:1: tor: [{}] is not a table"),
        ("[host]\nroute = 1", "o.toml:2: host.route: 1 is not known"),
        ("[host]\nroute = []", "o.toml:2: host.route: [] is not known"),
        ("[host]\ninbound = true", "o.toml:2: host.inbound: true is not known"),
        ('[host]\ninbound = "LINK"', 'known: "none", "bypass", "link", "all"'),
        ("[tor]\nuser = 1.5", "o.toml:2: tor.user: 1.5 is not a text"),
        ('[tor]\nuser = ""', 'o.toml:2: tor.user: "" is not a text'),
        ('[tor]\nuser = "a\\nb"', "o.toml:2: tor.user: 'a\\nb' has a control character"),
        ('[tor]\nuser = "Tor"', "o.toml:2: tor.user: 'Tor' is not an account name"),
        ('[tor]\nuser = "-tor"', "not an account name"),
        ('[tor]\nuser = "a b"', "not an account name"),
        ("[tor]\ntrans_port = true", "o.toml:2: tor.trans_port: true is not a whole number"),
        ("[tor]\ntrans_port = 9040.0", "tor.trans_port: 9040.0 is not a whole number"),
        ('[tor]\ntrans_port = "9040"', 'tor.trans_port: "9040" is not a whole number'),
        ("[tor]\ntrans_port = 1979-05-27", "tor.trans_port: datetime.date(1979, 5, 27) is not"),
        ("[tor]\ndns_port = inf", "tor.dns_port: inf is not a whole number"),
        ("[tor]\ndns_port = {a = 1}", "tor.dns_port: {'a': 1} is not a whole number"),
        ("[tor]\ntrans_port = 0", "o.toml:2: tor.trans_port: 0 is not a port"),
        ("[tor]\ntrans_port = -1", "-1 is not a port"),
        ("[tor]\ndns_port = 65536", "o.toml:2: tor.dns_port: 65536 is not a port"),
        ("[tor]\ndns_port = 53", "o.toml:2: tor.dns_port: port 53 is what local resolvers"),
        ("[tor]\ntrans_port = 53", "o.toml:2: tor.trans_port: port 53"),
        ("[tor]\ntrans_port = 941", "tor.dns_port: 941 is the trans_port too"),
        ("[tor]\nbootstrap_timeout = 4", "o.toml:2: tor.bootstrap_timeout: 4 is out of range"),
        ("[tor]\nbootstrap_timeout = 86401", "86401 is out of range"),
        ('[tor]\nnetwork = "relative"', 'tor.network: "relative" is not an absolute path'),
        ("[tor]\nnetwork = 1", "tor.network: 1 is not a text"),
        ('[tor]\nvirtual_networks = "none"', '"none" is not known; known: "auto"'),
        ("[tor]\nvirtual_networks = 1", "o.toml:2: tor.virtual_networks: 1 is not a list"),
        ("[bypass]\nnetworks = '10.0.0.0/8'", 'bypass.networks: "10.0.0.0/8" is not a list'),
        ("[bypass]\nnetworks = [1]", "bypass.networks[0]: 1 is not a network in quotes"),
        ("[bypass]\nnetworks = [[]]", "bypass.networks[0]: [] is not a network in quotes"),
        ("[bypass]\nnetworks = ['10.0.0.1/8']", 'write "10.0.0.0/8" for the network'),
        ("[bypass]\nnetworks = ['2001:db8::1/32']", 'write "2001:db8::/32" for the network'),
        ("[bypass]\nnetworks = ['10.0.0.0/33']", '"10.0.0.0/33" is not a network'),
        ("[bypass]\nnetworks = ['eth0']", '"eth0" is not a network; write'),
        ("[firewall]\nbackend = 'pf'", 'o.toml:2: firewall.backend: "pf" is not known'),
        ("[host]\nroute.x = 1", "o.toml:2: host.route: {'x': 1} is not known"),
    ],
)
def test_a_wrong_value(text: str, expected: str) -> None:
    assert expected in only_problem(text)


def test_a_long_value_is_shortened() -> None:
    words = only_problem(f"[host]\nroute = '{'x' * 500}'")
    assert "..." in words
    assert len(words) < 150


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ("0.0.0.0/0", "is everything; nothing would go through Tor"),
        ("::/0", "is everything"),
        ("224.0.0.0/4", "multicast or broadcast"),
        ("255.255.255.255", "multicast or broadcast"),
        ("128.0.0.0/1", "multicast or broadcast"),
        ("ff02::/16", "multicast or broadcast"),
        ("127.0.0.0/16", "is loopback"),
    ],
)
def test_a_bypass_that_cannot_be(networks: str, expected: str) -> None:
    words = only_problem(f"[bypass]\nnetworks = ['192.0.2.0/24', '{networks}']")
    assert expected in words
    assert words.startswith("o.toml:2: bypass.networks[1]: ")


@pytest.mark.parametrize(
    ("bypass", "virtual"),
    [
        ("127.0.0.0/8", "127.192.0.0/10"),
        ("10.0.0.0/8", "10.192.0.0/10"),
        ("10.200.1.0/24", "10.192.0.0/10"),
        ("fd5a:7011:1::/48", "fd5a:7011::/32"),
        ("fd00::/8", "fd12::/32"),
    ],
)
def test_a_bypass_over_the_virtual_network_names_both(bypass: str, virtual: str) -> None:
    words = only_problem(
        f"[tor]\nvirtual_networks = ['{virtual}']\n[bypass]\nnetworks = ['{bypass}']"
    )
    assert words.startswith("o.toml:4: bypass.networks[0]: ")
    assert f"{bypass} (" in words
    assert f"overlaps the virtual network {virtual} " in words


def test_the_default_virtual_network_is_checked_too() -> None:
    words = only_problem("[bypass]\nnetworks = ['127.0.0.0/8']")
    assert "127.0.0.0/8 (127.0.0.0 to 127.255.255.255) overlaps" in words
    assert "127.192.0.0/10" in words


@pytest.mark.parametrize(
    ("virtual", "expected"),
    [
        ("'10.0.0.0/24'", "too small for tor; at most /16"),
        ("'fd00::/112'", "too small for tor; at most /104"),
        ("'127.0.0.0/10'", "holds the loopback addresses that programs use"),
        ("'239.0.0.0/8'", "is not a private range"),
        ("'10.0.0.0/7'", "is not a private range"),
        ("'2001:db8::/32'", "is not a unique local network"),
        ("'10.0.0.0/16', '172.16.0.0/16'", "at most one network of each family"),
    ],
)
def test_a_virtual_network_that_cannot_be(virtual: str, expected: str) -> None:
    assert expected in only_problem(f"[tor]\nvirtual_networks = [{virtual}]")


def test_no_bypass_is_accepted_that_overlaps_a_virtual_network_next_door() -> None:
    read = parse(
        "[tor]\nvirtual_networks = ['10.192.0.0/10']\n[bypass]\nnetworks = ['10.0.0.0/9']", "o"
    )
    assert read.bypass.networks == (net("10.0.0.0/9"),)


def test_an_entry_that_was_reported_causes_no_second_report() -> None:
    found = problems("[tor]\nvirtual_networks = ['10.192.0.0/10', 'fd00:::/32']")
    assert [p.split(": ")[1] for p in found] == ["tor.virtual_networks[1]"]
    found = problems(
        "[tor]\nvirtual_networks = ['zzz', 'fd00::/32']\n[bypass]\nnetworks = ['192.0.2.0/24']"
    )
    assert [p.split(": ")[1] for p in found] == ["tor.virtual_networks[0]"]


@pytest.mark.parametrize("entry", ["fe80::%eth0/64", "fe80::%a } ; flush ruleset/64"])
def test_a_network_has_no_interface(entry: str) -> None:
    """ipaddress lets a zone through, and whatever is in it would reach the text for nft."""
    assert "is not a network" in only_problem(f"[bypass]\nnetworks = ['{entry}']")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[host]\nroute = \n", 2),
        ("[host\n", 1),
        ("\n\n[host]\nroute = 'tor' 'tor'\n", 4),
        ("[host]\n[host]\n", 2),
        ("a = 1\na = 2\n", 2),
        ("[tor]\nuser = 'x\n", 2),
        ("[tor]\nuser = '''x\n\n", 2),
        ("[tor]\nvirtual_networks = [\n'10.0.0.0/16'\n", 3),
        ("x = 2024-02-30", 1),
    ],
)
def test_not_toml(text: str, line: int) -> None:
    words = only_problem(text)
    assert words.startswith(f"o.toml:{line}: not TOML: "), words
    assert "(at " not in words


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "1" * 5000,
        "[tor]\ntrans_port = 0x" + "f" * 5000,
        "x = " + "[" * 3000 + "]" * 3000,
        "x = " + "{a=" * 3000 + "1" + "}" * 3000,
    ],
    ids=["decimal digits", "hexadecimal digits", "nested arrays", "nested tables"],
)
def test_absurd_documents_are_configuration_errors(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[typo.sub]\na = 1", "o.toml:1: typo: unknown key"),
        ('["h\\u006fst"]\n\nx = 1', "o.toml:3: host.x: unknown key"),
        ('"a\\u0062" = 1', "o.toml:1: ab: unknown key"),
    ],
)
def test_unusual_ways_to_write_a_key_have_a_line(text: str, start: str) -> None:
    assert only_problem(text).startswith(start)


def test_a_key_with_control_characters_is_shown_harmless() -> None:
    words = only_problem('"a\\u001b[2J\\nb" = 1')
    assert "\n" not in words
    assert "\x1b" not in words


def test_the_default_file_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PARSE, "DEFAULT_PATH", tmp_path / "absent.toml")
    assert load(None) == Config()
    assert config_package.load(None).source.name == "built-in defaults"


def test_the_default_file_is_read_when_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "o.toml"
    path.write_text("[host]\ninbound = 'none'")
    monkeypatch.setattr(PARSE, "DEFAULT_PATH", path)
    assert load(None).host.inbound == "none"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: there is no such file"):
        load(tmp_path / "absent.toml")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "o.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"o\.toml: byte 5 is not UTF-8"):
        load(path)


def network_file(tmp_path: Path, content: bytes) -> Path:
    lines = tmp_path / "lines"
    lines.write_bytes(content)
    path = tmp_path / "o.toml"
    path.write_text(f"[tor]\nnetwork = '{lines}'\n")
    return path


def test_another_tor_network(tmp_path: Path) -> None:
    path = network_file(
        tmp_path,
        b"# ours\nTestingTorNetwork 1\n\n  dirauthority a orport=1 10.0.0.1:7 ABCD # first\n",
    )
    assert load(path).network_lines == (
        "TestingTorNetwork 1",
        "dirauthority a orport=1 10.0.0.1:7 ABCD",
    )


@pytest.mark.parametrize(
    "line",
    [
        "SocksPort 0.0.0.0:9050",
        "socksport 9050",
        "%include /etc/tor/torrc",
        "User root",
        "TransPort 9999",
        "DNSPort 53",
        "ControlPort 9051",
        "ClientTransportPlugin x exec /bin/sh",
        "+SocksPort 1",
        "/UseBridges",
        "DirAuthority a \\",
        "TestingTorNetwork 1\x1b",
    ],
)
def test_another_tor_network_changes_nothing_else(tmp_path: Path, line: str) -> None:
    path = network_file(tmp_path, f"TestingTorNetwork 1\n{line}\n".encode())
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    assert f"{tmp_path / 'lines'}:2: {line.split()[0]}" in str(caught.value)


def test_no_allowed_option_opens_a_port_or_runs_a_program() -> None:
    assert not [o for o in NETWORK_OPTIONS if o.endswith(("Port", "Plugin", "File", "User"))]


def test_another_tor_network_that_cannot_be_read(tmp_path: Path) -> None:
    path = network_file(tmp_path, b"\xff")
    with pytest.raises(ConfigError, match=r"o\.toml:2: tor\.network: .* cannot be read: not UTF-8"):
        load(path)
    (tmp_path / "lines").unlink()
    with pytest.raises(ConfigError, match=r"o\.toml:2: tor\.network: .*No such file"):
        load(path)

"""Reading a configuration: what is right is read, what is wrong is said with file and line."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from textwrap import dedent

import pytest

from onionward import config as config_package
from onionward.config import Config, parse
from onionward.config.parse import NETWORK_OPTIONS, load
from onionward.config.values import LanConfig, UserConfig
from onionward.errors import ConfigError
from tests.support import addr, net

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
    assert Config().virtual == (net("127.192.0.0/10"), net("fd5a:7011::/32"))


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
    assert read.inbound == "bypass"
    assert read.bypass.networks == (
        net("192.168.1.0/24"),
        net("2001:db8:5::/48"),
        net("192.0.2.7/32"),
    )
    assert (read.tor.user, read.tor.trans_port, read.tor.dns_port) == ("mytor", 9040, 9053)
    assert read.tor.bootstrap_timeout == 60
    assert read.firewall.backend == "nftables"
    # the family that is not named keeps its default
    assert read.virtual == (net("10.192.0.0/10"), net("fd5a:7011::/32"))


def test_every_scope_is_read() -> None:
    read = parse(
        dedent(
            """
            onion = false
            [host]
            route = "tor"
            [[lan]]
            interface = "eth1"
            hotplug = true
            services = ["dhcp", "tcp/8080"]
            dhcp = true
            dhcp_range = ["198.18.8.100", "198.18.8.199"]
            [[lan]]
            interface = "wlan0"
            [[user]]
            name = "bob"
            control = true
            accept = ["resolved"]
            [[user]]
            name = "carol"
            route = "direct"
            [tor]
            isolate_destinations = true
            """
        ),
        "o.toml",
    )
    one, other = read.lan
    assert one == LanConfig(
        "eth1",
        hotplug=True,
        services=("dhcp", "tcp/8080"),
        dhcp=True,
        dhcp_range=(addr("198.18.8.100"), addr("198.18.8.199")),
    )
    assert other == LanConfig("wlan0", services=("dhcp", "ping", "ssh"))
    assert read.user == (
        UserConfig("bob", control=True, accept=("resolved",)),
        UserConfig("carol", route="direct"),
    )
    assert read.tor.isolate_destinations
    assert not Config().tor.isolate_destinations


LAN, USER = "[[lan]]\ninterface = 'eth1'\n", "[[user]]\nname = 'bob'\n"


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("", "tor"),
        ("[tor]\ntrans_port = 9040", "tor"),
        ("[host]", "tor"),
        ("[host]\ninbound = 'none'", "tor"),
        (LAN, "direct"),
        (USER, "direct"),
        (LAN + USER, "direct"),
        ("[host]\n" + LAN, "tor"),
        ("onion = true", "onion"),
        ("onion = true\n" + LAN + USER, "onion"),
        ("onion = true\n[host]", "tor"),
        ("[host]\nroute = 'onion'", "onion"),
        ("[host]\nroute = 'direct'\n" + USER, "direct"),
        ("onion = false\n" + LAN, "direct"),
    ],
)
def test_the_scope_that_is_not_said_is_inferred(text: str, route: str) -> None:
    assert parse(text, "o.toml").host_route == route


def test_clients_of_a_lan_get_virtual_addresses_that_they_can_send_to() -> None:
    assert parse(LAN, "o").virtual == (net("10.192.0.0/10"), net("fd5a:7011::/32"))
    assert parse(USER, "o").virtual == (net("127.192.0.0/10"), net("fd5a:7011::/32"))


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
        ("[firewall]\nbackend = 'ipfw'", 'o.toml:2: firewall.backend: "ipfw" is not known'),
        ("[host]\nroute.x = 1", "o.toml:2: host.route: {'x': 1} is not known"),
    ],
)
def test_a_wrong_value(text: str, expected: str) -> None:
    assert expected in only_problem(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what kind of value
        ("onion = 'yes'", 'o.toml:1: onion: "yes" is not true or false'),
        ("onion = 1", "o.toml:1: onion: 1 is not true or false"),
        ("[lan]\ninterface = 'eth1'", "o.toml:1: lan: write [[lan]], in two brackets"),
        ("lan = 'eth1'", "o.toml:1: lan: write [[lan]], in two brackets"),
        ("user = ['bob']", "o.toml:1: user: write [[user]], in two brackets"),
        ("[[host]]", "o.toml:1: host: [{}] is not a table; write [host]"),
        (LAN + "hotplug = 'yes'", 'o.toml:3: lan[0].hotplug: "yes" is not true or false'),
        (LAN + "services = 'ssh'", 'lan[0].services: "ssh" is not a list; write ["ping", "ssh"]'),
        (LAN + "services = ['ssh', 22]", "o.toml:3: lan[0].services[1]: 22 is not a text"),
        (LAN + "dhcp_range = ['x', '::1']", 'o.toml:3: lan[0].dhcp_range[0]: "x" is not an addr'),
        (LAN + "dhcp_range = '198.18.8.9'", "is not a list; write"),
        (USER + "route = 'onion'", 'user[0].route: "onion" is not known; known: "tor", "direct"'),
        (USER + "control = 0", "o.toml:3: user[0].control: 0 is not true or false"),
        (USER + "accept = true", "o.toml:3: user[0].accept: true is not a list"),
        (LAN + "interfac = 1", "o.toml:3: lan[0].interfac: unknown key (did you mean interface?)"),
        (USER + "user = 'x'", "o.toml:3: user[0].user: unknown key; known here: accept, control"),
        ("[tor]\nisolate_destinations = 'x'", 'isolate_destinations: "x" is not true or false'),
        # clients
        ("[[lan]]\ndhcp = false", "o.toml:1: lan[0].interface: is missing; which interface"),
        ("[[lan]]\ninterface = 'eth0/1'", "o.toml:2: lan[0].interface: 'eth0/1' cannot be the na"),
        ("[[lan]]\ninterface = 'sixteen-letters-'", "cannot be the name of an interface"),
        ("[[lan]]\ninterface = 'all'", "'all' cannot be the name of an interface"),
        ("[[lan]]\ninterface = '..'", "'..' cannot be the name of an interface"),
        ("[[lan]]\ninterface = 'lo'", "o.toml:2: lan[0].interface: lo is loopback; no client"),
        (LAN + LAN, "o.toml:4: lan[1].interface: eth1 is that of [[lan]] number 1 already"),
        (LAN + "services = ['http']", "o.toml:3: lan[0].services[0]: 'http' is not known; known:"),
        (LAN + "services = ['tcp/0']", "'tcp/0' is not known"),
        (LAN + "services = ['tcp/65536']", "'tcp/65536' is not known"),
        (LAN + "services = ['tcp/٨٠']", "is not known"),
        (LAN + "services = ['ping', 'tcp/940']", "services[1]: tcp/940 is a port of tor"),
        (LAN + "services = ['udp/9053']\n[tor]\ndns_port = 9053", "udp/9053 is a port of tor"),
        (LAN + "services = ['udp/53']", "udp/53 resolves names, which go to Tor"),
        (LAN + "services = ['tcp/853']", "tcp/853 resolves names"),
        (LAN + "services = []\ndhcp = true", 'lan[0].dhcp: is true, but "dhcp" is not among the'),
        (
            LAN + "dhcp = true\ndhcp_range = ['198.18.8.9']",
            "lan[0].dhcp_range: takes two addresses",
        ),
        (LAN + "dhcp = true\ndhcp_range = ['::1', '::2']", "takes IPv4 addresses; with IPv6"),
        (
            LAN + "dhcp = true\ndhcp_range = ['198.18.8.9', '198.18.8.8']",
            "lan[0].dhcp_range: 198.18.8.9 comes after 198.18.8.8",
        ),
        (LAN + "dhcp_range = ['198.18.8.8', '198.18.8.9']", "has no meaning without dhcp = true"),
        (
            LAN + "[tor]\nvirtual_networks = ['127.192.0.0/10']",
            "o.toml:4: tor.virtual_networks[0]: 127.192.0.0/10 is loopback, where clients of a",
        ),
        # accounts
        ("[[user]]\ncontrol = true", "o.toml:1: user[0].name: is missing; which account?"),
        ("[[user]]\nname = 'Bob!'", "o.toml:2: user[0].name: 'Bob!' is not an account name"),
        ("[[user]]\nname = 'root'", "user[0].name: root is never held by rules that it can remove"),
        ("[[user]]\nname = 'onionward-tor'", "onionward-tor is tor's own account"),
        (USER + "[tor]\nuser = 'bob'", "o.toml:2: user[0].name: bob is tor's own account"),
        (USER + USER, "o.toml:4: user[1].name: bob is [[user]] number 1 already"),
        (
            USER + "route = 'direct'",
            'user[0].route: "direct" is for accounts of a routed host',
        ),
        (
            "[host]\n" + USER + "route = 'direct'\naccept = ['avahi']",
            'o.toml:5: user[0].accept: has no meaning with route = "direct"',
        ),
        # scopes
        (
            "onion = true\n[host]\nroute = 'direct'\n" + LAN,
            'o.toml:1: onion: contradicts host.route = "direct"',
        ),
        ("[host]\nroute = 'direct'", 'o.toml:2: host.route: with "direct" alone nothing goes thr'),
        (LAN + "[bypass]\nnetworks = ['192.0.2.0/24']", "o.toml:4: bypass.networks: nothing is by"),
        (
            "[host]\nroute = 'onion'\n[bypass]\nnetworks = ['192.0.2.0/24']",
            "o.toml:4: bypass.networks: nothing is bypassed where this host is not routed",
        ),
    ],
)
def test_a_wrong_scope(text: str, expected: str) -> None:
    assert expected in only_problem(text)


def test_two_scopes_may_be_wrong_at_once() -> None:
    found = problems(
        """\
        [[lan]]
        services = ["dhcp", "nfs", "udp/5353"]
        dhcp = true

        [[user]]
        name = "root"
        route = "direct"
        """
    )
    assert [p.split(": ")[:2] for p in found] == [
        ["o.toml:1", "lan[0].interface"],
        ["o.toml:2", "lan[0].services[1]"],
        ["o.toml:2", "lan[0].services[2]"],
        ["o.toml:6", "user[0].name"],
        ["o.toml:7", "user[0].route"],
    ]


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
    assert load(None).inbound == "none"


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


def test_a_file_without_an_end() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: more than 16 MiB are no configuration"):
        load(Path("/dev/zero"))


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


@pytest.mark.timeout(20)
def test_another_tor_network_that_never_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/zero", str(tmp_path / "pipe")):
        (tmp_path / "o.toml").write_text(f"[tor]\nnetwork = {place!r}\n")
        with pytest.raises(ConfigError, match=r"o\.toml:2: tor\.network: .* no regular file"):
            load(tmp_path / "o.toml")

"""`dns = "full"`: what is refused, and what unbound reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.config import Config, parse
from onionward.config.resolvers import NoResolverError, read
from onionward.dns import full
from onionward.errors import ConfigError, ResolverError
from onionward.facts import Account

QUAD9 = "resolvers = ['9.9.9.9#dns.quad9.net', '2620:fe::fe#dns.quad9.net']\n"
FULL = f"[tor]\ndns = 'full'\n{QUAD9}"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("9.9.9.9", "9.9.9.9@53"),
        ("9.9.9.9@5353", "9.9.9.9@5353"),
        ("9.9.9.9#dns.quad9.net", "9.9.9.9@853#dns.quad9.net"),
        ("2620:fe::fe@8853#dns.quad9.net", "2620:fe::fe@8853#dns.quad9.net"),
    ],
)
def test_resolvers_are_written_as_unbound_reads_them(text: str, written: str) -> None:
    assert str(read(text)) == written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with an address"),
        ("dns.quad9.net", "does not begin with an address"),
        ("9.9.9.9:53", "does not begin with an address"),
        ("9.9.9.9@", "is not a port"),
        ("9.9.9.9@0", "is not a port"),
        ("9.9.9.9@65536", "is not a port"),
        pytest.param(f"9.9.9.9@{'0' * 4400}53", "is not a port", id="thousands of digits"),
        ("9.9.9.9@٥٣", "is not a port"),
        ("9.9.9.9#", "is not the name of a server"),
        ("9.9.9.9#a\nb", "is not the name of a server"),
        ('9.9.9.9#a"', "is not the name of a server"),
        ("9.9.9.9#a b", "is not the name of a server"),
        ("127.0.0.1", "Tor cannot reach"),
        ("192.168.1.1", "Tor cannot reach"),
        ("fe80::1%eth0", "Tor cannot reach"),
        ("::1", "Tor cannot reach"),
        ("224.0.0.251", "Tor cannot reach"),
        ("::ffff:9.9.9.9", "Tor cannot reach"),
        ("0.0.0.1", "Tor cannot reach"),
    ],
)
def test_what_is_no_resolver_is_refused(text: str, words: str) -> None:
    with pytest.raises(NoResolverError, match=words):
        read(text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[tor]\ndns = 'full'\n", 2, "which resolvers are to be asked"),
        ("[tor]\nresolvers = ['9.9.9.9']\n", 2, "nobody asks them"),
        ("onion = true\n" + FULL, 3, "for a host that is routed"),
        (FULL + "[[lan]]\ninterface = 'eth1'\n", 2, "for a host that is routed"),
        (FULL + "full_dns_port = 941\n", 4, "is a port of tor"),
        (FULL + "full_dns_port = 53\n", 4, "port 53 is what local resolvers"),
        (FULL + "full_dns_port = 70000\n", 4, "is not a port"),
        (FULL + "[bypass]\nnetworks = ['9.9.9.0/24']\n", 3, "is bypassed (9.9.9.0/24)"),
        ("[tor]\ndns = 'full'\nresolvers = ['9.9.9.9#a.b', '1.1.1.1']\n", 3, "give all"),
        ("[tor]\ndns = 'all'\n", 2, '"all" is not known; known: "tor", "full"'),
        ("[tor]\ndns = 'full'\nresolvers = ['here']\n", 3, "does not begin with an address"),
    ],
)
def test_contradictions_have_their_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.toml")
    assert any(p.startswith(f"c.toml:{line}: ") and words in p for p in caught.value.problems), (
        caught.value.problems
    )


def test_nothing_is_asked_but_resolvers_and_tor() -> None:
    text = full.render(parse(FULL, "c.toml"), "nobody", "", ipv6=False)
    asked = [line.split()[1] for line in text.splitlines() if "forward-addr:" in line]
    assert asked == ["127.0.0.1@941", "9.9.9.9@853#dns.quad9.net", "2620:fe::fe@853#dns.quad9.net"]
    assert "forward-tls-upstream: yes" in text
    assert "::1@" not in text
    assert "forward-first" not in text


def test_all_that_its_configuration_says_is_compared() -> None:
    texts = [FULL, FULL + "dnssec = false\n", FULL + "full_dns_port = 950\n"]
    texts += [FULL + "dns_port = 951\n", FULL.replace("9.9.9.9", "9.9.9.10")]
    wanted = [full.wanted(parse(text, "c.toml"), ipv6=True) for text in texts]
    wanted.append(full.wanted(parse(FULL, "c.toml"), ipv6=False))
    assert len({str(each) for each in wanted}) == len(wanted)


@pytest.mark.parametrize(
    ("profiles", "confined"),
    [
        ("", False),
        ("unbound (enforce)\nman (enforce)\n", True),
        ("/usr/sbin/unbound (enforce)\n", True),
        ("unbound (complain)\n", False),
        ("unbound-anchor (enforce)\nunbound (unconfined)\n", False),
    ],
)
def test_apparmor_says_whether_it_is_confined(profiles: str, confined: bool) -> None:
    assert full.is_confined(profiles) is confined


def test_an_account_with_rules_of_its_own_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    uids = {"unbound": 120, "nobody": 65534}
    monkeypatch.setattr(full, "find_account", lambda name: Account(name, uids[name], 1, Path("/")))
    assert full.choose_account([99]).name == "unbound"
    assert full.choose_account([99, 120]).name == "nobody"
    with pytest.raises(ResolverError, match="no account for full DNS"):
        full.choose_account([65534, 120])


def test_what_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = parse(FULL, "c.toml")
    assert full.problems(config) == ()
    monkeypatch.setattr(full, "find_tool", lambda _: None)
    monkeypatch.setattr(full, "ROOT_KEY", tmp_path / "root.key")
    monkeypatch.setattr(full, "CERTIFICATES", tmp_path / "certificates")
    unbound, key, certificates = full.problems(config)
    assert unbound.startswith("c.toml:2: tor.dns: unbound is missing")
    assert "dns-root-data" in key
    assert "ca-certificates" in certificates
    assert full.problems(Config()) == ()

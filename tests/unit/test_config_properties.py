"""What holds for every configuration, right or wrong."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from onionward.config import Config, parse
from onionward.config.values import (
    BypassConfig,
    FirewallConfig,
    HostConfig,
    TorConfig,
    VirtualNetworks,
)
from onionward.errors import ConfigError
from onionward.networks import Network, overlapping
from tests.unit.documents import DOCUMENTS, VALUES, value_texts

_SECTIONS = {
    "host": ["route", "inbound"],
    "bypass": ["networks"],
    "tor": [
        "user",
        "virtual_networks",
        "trans_port",
        "dns_port",
        "bootstrap_timeout",
        "network",
    ],
    "firewall": ["backend"],
}
_AUTO: VirtualNetworks = "auto"
_LIKELY = (
    st.sampled_from(["tor", "link", "auto", "10.0.0.0/8", "fd00::/8", "::/0", "10.0.0.1/8", ""])
    | st.lists(st.sampled_from(["10.0.0.0/9", "127.0.0.0/8", "ff00::/8", "x", "fd5a:7011::/64"]))
    | st.integers(0, 70000)
)


@st.composite
def likely_documents(draw: st.DrawFn) -> str:
    """Documents with the right keys and any values."""
    lines = []
    for section in draw(st.permutations(sorted(_SECTIONS))):
        lines.append(f"[{section}]")
        keys = draw(st.lists(st.sampled_from(_SECTIONS[section]), unique=True))
        lines += [f"{key} = {draw(value_texts(draw(_LIKELY | VALUES)))}" for key in keys]
    return "\n".join(lines)


def check_outcome(text: str) -> None:
    """Either a configuration, or problems on lines that hold the key they name."""
    try:
        parse(text, "o.toml")
    except ConfigError as error:
        problems = error.problems
    else:
        return
    lines = text.split("\n")
    assert problems
    for problem in problems:
        assert "\n" not in problem
        found = re.match(r"o\.toml:(\d+): ", problem)
        assert found, problem
        line = int(found[1])
        assert 1 <= line <= len(lines)
        # entries of a list stand on lines of their own, without the key
        words = re.match(r"o\.toml:\d+: (\w+)\.(\w+): ", problem)
        if words:
            assert re.search(rf"\b{words[2]}\b|\\u0061", lines[line - 1]), problem


@given(st.text())
def test_any_text(text: str) -> None:
    check_outcome(text)


@given(DOCUMENTS)
def test_any_document(text: str) -> None:
    check_outcome(text)


@given(likely_documents())
def test_any_values(text: str) -> None:
    check_outcome(text)


def networks(
    version: Literal[4, 6], prefixes: st.SearchStrategy[int]
) -> st.SearchStrategy[Network]:
    return st.tuples(st.ip_addresses(v=version), prefixes).map(
        lambda parts: ipaddress.ip_network(parts, strict=False)
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Valid configurations."""
    virtual: VirtualNetworks = draw(
        st.just(_AUTO)
        | st.lists(
            st.sampled_from(["10.192.0.0/10", "172.16.0.0/12", "127.128.0.0/9"]), max_size=1
        ).map(lambda names: tuple(map(ipaddress.ip_network, names)))
    )
    tor = TorConfig(
        user=draw(st.from_regex(r"\A[a-z_][a-z0-9_-]{0,30}\Z")),
        virtual_networks=virtual,
        trans_port=draw(st.integers(1, 30000).filter(lambda p: p != 53)),
        dns_port=draw(st.integers(30001, 65535)),
        bootstrap_timeout=draw(st.integers(5, 86400)),
    )
    never = [
        *map(ipaddress.ip_network, ("224.0.0.0/3", "ff00::/8", "127.0.0.0/8", "::1/128")),
        *tor.virtual,
    ]
    bypass = st.lists(networks(4, st.integers(1, 32)) | networks(6, st.integers(1, 128)))
    return Config(
        HostConfig(inbound=draw(st.sampled_from(["none", "bypass", "link", "all"]))),
        BypassConfig(
            tuple(n for n in draw(bypass) if not any(overlapping(n, other) for other in never))
        ),
        tor,
        FirewallConfig(draw(st.sampled_from(["auto", "nftables"]))),
    )


def written(config: Config) -> str:
    """A configuration as TOML."""

    def shown(value: Any) -> str:
        if isinstance(value, tuple):
            return "[" + ", ".join(f'"{network}"' for network in value) + "]"
        return f'"{value}"' if isinstance(value, str) else str(value)

    return "\n".join(
        [
            "[host]",
            f"inbound = {shown(config.host.inbound)}",
            "[bypass]",
            f"networks = {shown(config.bypass.networks)}",
            "[tor]",
            f"user = {shown(config.tor.user)}",
            f"virtual_networks = {shown(config.tor.virtual_networks)}",
            f"trans_port = {config.tor.trans_port}",
            f"dns_port = {config.tor.dns_port}",
            f"bootstrap_timeout = {config.tor.bootstrap_timeout}",
            "[firewall]",
            f"backend = {shown(config.firewall.backend)}",
        ]
    )


@given(configs())
def test_a_valid_configuration_comes_back_as_it_was(config: Config) -> None:
    assert parse(written(config), "o.toml") == config

"""What holds for every configuration, right or wrong."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import replace
from typing import Any, Literal, get_args

from hypothesis import given
from hypothesis import strategies as st

from onionward.config import Config, parse
from onionward.config.values import (
    Backend,
    BypassConfig,
    FirewallConfig,
    HostConfig,
    Inbound,
    LanConfig,
    Route,
    TorConfig,
    UserConfig,
    VirtualNetworks,
)
from onionward.errors import ConfigError
from onionward.networks import Network, overlapping
from tests.unit.documents import DOCUMENTS, VALUES, value_texts

_SECTIONS = {
    "[host]": ["route", "inbound"],
    "[[lan]]": ["interface", "hotplug", "services", "dhcp", "dhcp_range"],
    "[[user]]": ["name", "route", "control", "accept"],
    "[bypass]": ["networks"],
    "[tor]": [
        "user",
        "virtual_networks",
        "trans_port",
        "dns_port",
        "bootstrap_timeout",
        "network",
        "isolate_destinations",
    ],
    "[firewall]": ["backend"],
}
_AUTO: VirtualNetworks = "auto"
_LIKELY = (
    st.sampled_from(["tor", "link", "auto", "direct", "10.0.0.0/8", "fd00::/8", "::/0", "bob", ""])
    | st.lists(st.sampled_from(["10.0.0.0/9", "127.0.0.0/8", "ff00::/8", "x", "fd5a:7011::/64"]))
    | st.lists(st.sampled_from(["dhcp", "ssh", "tcp/80", "udp/53", "tcp/0", "10.0.0.9", "::1"]))
    | st.integers(0, 70000)
    | st.booleans()
)


@st.composite
def likely_documents(draw: st.DrawFn) -> str:
    """Documents with the right keys and any values."""
    lines = [f"onion = {draw(value_texts(draw(_LIKELY)))}"] if draw(st.booleans()) else []
    arrays = [name for name in _SECTIONS if name.startswith("[[")]
    repeated = draw(st.lists(st.sampled_from(arrays), max_size=2))
    for section in draw(st.permutations([*sorted(_SECTIONS), *repeated])):
        if draw(st.integers(0, 3)) == 0:
            continue
        lines.append(section)
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
    lans = tuple(draw(st.lists(lan_configs(), max_size=2, unique_by=lambda lan: lan.interface)))
    has_scope = bool(lans) or draw(st.booleans())
    onion = draw(st.booleans())
    host = draw(st.none() | host_configs(direct=has_scope and not onion))
    route = Config(host=host, lan=lans or (LanConfig(),) * has_scope, onion=onion).host_route
    users = user_configs(direct=route == "tor")
    user = tuple(
        draw(st.lists(users, min_size=has_scope and not lans, max_size=2, unique_by=user_name))
        if has_scope
        else []
    )
    virtual: VirtualNetworks = draw(
        st.just(_AUTO)
        | st.lists(
            st.sampled_from(
                ["10.192.0.0/10", "172.16.0.0/12", *([] if lans else ["127.128.0.0/9"])]
            ),
            max_size=1,
        ).map(lambda names: tuple(map(ipaddress.ip_network, names)))
    )
    tor = TorConfig(
        user=draw(
            st.from_regex(r"\A[a-z_][a-z0-9_-]{0,30}\Z").filter(
                lambda name: name not in map(user_name, user)
            )
        ),
        virtual_networks=virtual,
        trans_port=draw(st.integers(1, 30000).filter(lambda p: p not in (22, 53, 67, 69, 8080))),
        dns_port=draw(st.integers(30001, 65535)),
        bootstrap_timeout=draw(st.integers(5, 86400)),
        isolate_destinations=draw(st.booleans()),
    )
    config = Config(
        host=host,
        lan=lans,
        user=user,
        onion=onion,
        tor=tor,
        firewall=FirewallConfig(draw(st.sampled_from(get_args(Backend)))),
    )
    never = [
        *map(ipaddress.ip_network, ("224.0.0.0/3", "ff00::/8", "127.0.0.0/8", "::1/128")),
        *config.virtual,
    ]
    bypass = st.lists(networks(4, st.integers(1, 32)) | networks(6, st.integers(1, 128)))
    listed = draw(bypass) if config.host_route == "tor" else []
    allowed = tuple(n for n in listed if not any(overlapping(n, other) for other in never))
    return replace(config, bypass=BypassConfig(allowed))


def host_configs(*, direct: bool) -> st.SearchStrategy[HostConfig]:
    routes: list[Route] = ["tor", "onion", *(["direct"] if direct else [])]  # type: ignore[list-item]
    inbound: list[Inbound] = ["none", "bypass", "link", "all"]
    return st.builds(HostConfig, st.sampled_from(routes), st.sampled_from(inbound))


@st.composite
def lan_configs(draw: st.DrawFn) -> LanConfig:
    dhcp = draw(st.booleans())
    known = ["ping", "ssh", "tcp/8080", "udp/69", *([] if dhcp else ["dhcp"])]
    services = draw(st.lists(st.sampled_from(known), unique=True))
    first = ipaddress.ip_address("198.18.8.100")
    return LanConfig(
        draw(st.sampled_from(["eth1", "wlan0.5", "br-lan"])),
        draw(st.booleans()),
        (*services, *(["dhcp"] if dhcp else [])),
        dhcp,
        (first, first + draw(st.integers(0, 99))) if dhcp and draw(st.booleans()) else (),
    )


def user_configs(*, direct: bool) -> st.SearchStrategy[UserConfig]:
    names = st.sampled_from(["bob", "carol.x", "machine$", "_dave"])
    accepted = st.lists(st.sampled_from(["systemd", "docker"]), unique=True).map(tuple)
    routed = st.builds(UserConfig, names, st.just("tor"), st.booleans(), accepted)
    bypassed = st.builds(UserConfig, names, st.just("direct"), st.booleans(), st.just(()))
    return routed | bypassed if direct else routed


def user_name(user: UserConfig) -> str:
    return user.name


def written(config: Config) -> str:
    """A configuration as TOML."""

    def shown(value: Any) -> str:
        if isinstance(value, tuple):
            return "[" + ", ".join(f'"{entry}"' for entry in value) + "]"
        return str(value).lower() if isinstance(value, bool) else json.dumps(value)

    def section(header: str, values: Any, *left_out: str) -> list[str]:
        keys = [name for name in values._fields if name not in left_out]
        return [header, *(f"{key} = {shown(getattr(values, key))}" for key in keys)]

    return "\n".join(
        [
            f"onion = {shown(config.onion)}",
            *(section("[host]", config.host) if config.host else []),
            *(line for lan in config.lan for line in section("[[lan]]", lan)),
            *(line for user in config.user for line in section("[[user]]", user)),
            *section("[bypass]", config.bypass),
            *section("[tor]", config.tor, "network"),
            *section("[firewall]", config.firewall),
        ]
    )


@given(configs())
def test_a_valid_configuration_comes_back_as_it_was(config: Config) -> None:
    assert parse(written(config), "o.toml") == config

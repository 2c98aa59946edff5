"""What pf cannot express is an error that names the scope and the way out; the rest is said."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import replace

from onionward.bsd.kind import PF_ACCOUNT
from onionward.config.values import DEFAULT_ACCOUNT, Config
from onionward.toml_lines import KeyPath

_VIRTUAL4 = ipaddress.ip_network("10.192.0.0/10")


def adapted(config: Config) -> Config:
    """The configuration with what is "auto" as BSD needs it.

    Nothing is behind the addresses of 127.0.0.0/8 but loopback's own there, and the package of tor
    makes the account.
    """
    tor = config.tor
    if tor.virtual_networks == "auto":
        virtual6 = tuple(network for network in config.virtual if network.version == 6)
        tor = tor._replace(virtual_networks=(_VIRTUAL4, *virtual6))
    if tor.user == DEFAULT_ACCOUNT:
        tor = tor._replace(user=PF_ACCOUNT)
    return replace(config, tor=tor)


def problems(config: Config) -> tuple[str, ...]:
    """Every part of an adapted configuration that pf cannot put in force, with its line."""
    return tuple(config.source.locate(path, words) for path, words in _problems(config))


def _problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    if config.host_route == "onion":
        key: KeyPath = ("onion",) if config.onion else ("host", "route")
        yield (
            key,
            "the scope onion is not possible with pf, which cannot read what a query asks for; "
            'route the host instead ([host] route = "tor"), or use a machine with nftables',
        )
    for index, network in enumerate(config.virtual):
        if network.version == 4 and network.is_loopback:
            yield (
                ("tor", "virtual_networks", index),
                f"{network} is loopback, which pf cannot turn round (the kernel rejects it first); "
                f"take {_VIRTUAL4}",
            )
    if config.resolver not in ("auto", "file"):
        yield (
            ("host", "resolver"),
            f"{config.resolver} manages no resolv.conf on this system; leave it out, and the file "
            "is replaced",
        )
    if config.tor.bridges:
        yield (
            ("tor", "bridges"),
            "pf's rules do not hold tor to its bridges; use a machine with nftables",
        )
    if config.tor.strict:
        yield (
            ("tor", "strict"),
            "pf's rules do not hold tor to its relays; leave it out, or use a machine with "
            "nftables",
        )
    if config.tor.dns == "full":
        yield (
            ("tor", "dns"),
            "with pf tor alone resolves names; leave it out, or use a machine with nftables or "
            "iptables",
        )
    for index, lan in enumerate(config.lan):
        if lan.dhcp:
            yield (
                ("lan", index, "dhcp"),
                f"the scope lan ({lan.interface}) with pf serves no DHCP; leave it out and run "
                "the system's dhcpd and rad",
            )
    for index, user in enumerate(config.user):
        if user.control:
            yield (
                ("user", index, "control"),
                f"the scope user ({user.name}) has no control port with pf, because there is no "
                "filter for it on this system; leave it out",
            )


def warnings(config: Config) -> tuple[str, ...]:
    """What holds with nftables and not with pf, as far as this configuration is concerned."""
    found = [
        "pf: tor is recognised by its account alone; whatever else runs as it may connect directly",
        "pf: bpf(4) is below it: programs with root's rights that write frames, DHCP clients among "
        "them, are not held",
    ]
    if any(user.route == "tor" for user in config.user):
        if config.host_route != "tor":
            found.append(
                "pf: only TCP and UDP have an owner: nobody on this machine can ping while an "
                "account is routed, and set-user-ID programs and local services that connect for "
                "whoever asks are not looked for"
            )
            found.append(
                "pf: whose a connection is cannot be told either: `up` and `down` cut the outward "
                "TCP connections of everybody on this machine"
            )
        found.append("pf: routed accounts share the circuits of their address; none has its own")
    found += [
        f"IN CLEAR: TCP and UDP that {user.name} sends, because it is bypassed; names that it asks "
        "for on loopback still go through Tor"
        for user in config.user
        if user.route == "direct"
    ]
    return tuple(found)

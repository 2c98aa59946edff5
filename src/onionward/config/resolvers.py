"""Resolvers that are asked through Tor, as unbound.conf(5) writes them: ADDRESS[@PORT][#NAME]."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from onionward.config.values import Config
from onionward.networks import UNROUTABLE, Address, contains, holding
from onionward.toml_lines import KeyPath

EXAMPLE = '["9.9.9.9#dns.quad9.net", "2620:fe::fe#dns.quad9.net"]'
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
# loopback, groups, and IPv4 written as IPv6
_ELSEWHERE = (
    *UNROUTABLE,
    *map(
        ipaddress.ip_network, ("127.0.0.0/8", "224.0.0.0/3", "::/96", "::ffff:0:0/96", "ff00::/8")
    ),
)
_PORT, _TLS_PORT = 53, 853


class NoResolverError(ValueError):
    """A text names no resolver that can be asked through Tor."""


class Resolver(NamedTuple):
    """Whom to ask.

    Attributes:
        address: its address.
        port: TCP.
        name: that of its certificate, which makes it TLS; "" for plain TCP.

    """

    address: Address
    port: int
    name: str

    def __str__(self) -> str:
        """As unbound.conf(5) writes it."""
        return f"{self.address}@{self.port}" + (f"#{self.name}" if self.name else "")


def read(text: str) -> Resolver:
    """A resolver from the configuration.

    Raises:
        NoResolverError: it is none, or Tor cannot reach it.

    """
    place, has_name, name = text.partition("#")
    host, has_port, number = place.partition("@")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise NoResolverError(f"{text!r} does not begin with an address; write {EXAMPLE}") from None
    if "%" in host or contains(_ELSEWHERE, address):
        raise NoResolverError(f"Tor cannot reach {host}, which is no address of the Internet")
    if has_name and not _NAME.fullmatch(name):
        raise NoResolverError(f"{name!r} is not the name of a server; write {EXAMPLE}")
    if has_port and not (re.fullmatch(r"\d{1,5}", number, re.ASCII) and 1 <= int(number) <= 65535):
        raise NoResolverError(f"{number!r} is not a port; ports are 1 to 65535")
    port = int(number) if has_port else _TLS_PORT if has_name else _PORT
    return Resolver(address, port, name)


def problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with `dns = "full"` and what belongs to it, whatever the machine."""
    tor = config.tor
    if tor.dns != "full":
        if tor.resolvers:
            yield ("tor", "resolvers"), 'nobody asks them; write dns = "full", or leave them out'
        return
    if config.host_route != "tor":
        yield (
            ("tor", "dns"),
            "is for a host that is routed, and this configuration routes none: others have their "
            "names from Tor, because one memory of answers would tell them from each other",
        )
    if not tor.resolvers:
        yield ("tor", "dns"), f"which resolvers are to be asked, through Tor? resolvers = {EXAMPLE}"
    for index, text in enumerate(tor.resolvers):
        try:
            found = read(text)
        except NoResolverError as error:
            yield ("tor", "resolvers", index), str(error)
            continue
        if (network := holding(config.bypass.networks, found.address)) is not None:
            yield (
                ("tor", "resolvers", index),
                f"{found.address} is bypassed ({network}), and names are never resolved in clear",
            )
    names = [text for text in tor.resolvers if "#" in text]
    if names and len(names) < len(tor.resolvers):
        yield (
            ("tor", "resolvers"),
            "some have the name of a certificate and are asked over TLS, some have none; give all "
            "of them one, or none",
        )
    if tor.full_dns_port in (tor.trans_port, tor.dns_port):
        yield ("tor", "full_dns_port"), f"{tor.full_dns_port} is a port of tor; take another one"

"""What old setups say, gathered from any number of files."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple

from onionward.networks import Network


class Note(NamedTuple):
    """Something about a place in a file.

    Attributes:
        place: file and line, or "".
        words: what became of it, and why.

    """

    place: str
    words: str


@dataclass
class Found:
    """All that was read so far.

    Attributes:
        host: whether all that the machine sends goes to tor.
        onion: whether only what is mapped from names under .onion does.
        lans: interfaces of clients.
        users: accounts that go to tor.
        control: accounts that may speak to tor's control port, each with the place.
        bypass: networks reached directly, with the place where they are named.
        virtual: where names are mapped.
        exits: countries of exits, by the key of the configuration.
        bridges: lines of bridges.
        mapped: networks that rules redirected, besides everything, each with the place.
        accepted: networks that a filter let out, each with the place.
        refused: where what nothing else takes is refused to leave; "" where it is not.
        use_bridges: where a torrc wants bridges; "" where it does not.
        isolate: whether each destination gets circuits of its own.
        inbound: TCP ports that were open to others.
        unnamed: accounts that go to tor, but are not named one by one.
        turned_to: ports that rules redirect to, each with the first place.
        tor_ports: where tor took what was redirected.
        tor_account: of tor, by name or number.
        ip6: whether IPv6 was thought of.
        rules: whether there were rules of a packet filter at all.
        kept: what means the same now.
        changed: what was made safe.
        left_out: what has no meaning here.

    """

    host: bool = False
    onion: bool = False
    lans: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    control: dict[str, str] = field(default_factory=dict)
    bypass: dict[Network, str] = field(default_factory=dict)
    virtual: dict[int, tuple[Network, str]] = field(default_factory=dict)
    exits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bridges: list[str] = field(default_factory=list)
    mapped: dict[Network, str] = field(default_factory=dict)
    accepted: dict[Network, str] = field(default_factory=dict)
    refused: str = ""
    use_bridges: str = ""
    isolate: bool = False
    inbound: dict[int, str] = field(default_factory=dict)
    unnamed: list[Note] = field(default_factory=list)
    turned_to: dict[int, str] = field(default_factory=dict)
    tor_ports: set[int] = field(default_factory=set)
    tor_account: str = ""
    ip6: bool = False
    rules: bool = False
    # each note once, in the order in which it was made
    kept: dict[Note, None] = field(default_factory=dict)
    changed: dict[Note, None] = field(default_factory=dict)
    left_out: dict[Note, None] = field(default_factory=dict)

    def keep(self, place: str, words: str) -> None:
        """Say that something means the same now."""
        self.kept.setdefault(Note(place, words))

    def change(self, place: str, words: str) -> None:
        """Say that something was made safe, and why."""
        self.changed.setdefault(Note(place, words))

    def leave_out(self, place: str, words: str) -> None:
        """Say that something has no meaning here."""
        self.left_out.setdefault(Note(place, words))

    def route_host(self, place: str) -> None:
        """All that the machine sends goes to tor."""
        self.host = True
        self.keep(place, "everything that this machine sends goes through Tor")

    def add_lan(self, interface: str, place: str) -> None:
        """Clients behind an interface go to tor."""
        if interface.endswith(("+", "*")):
            self.change(
                place,
                f"{interface} stands for any number of interfaces, the uplink perhaps among them: "
                "name those of clients yourself, as [[lan]]",
            )
            return
        if interface == "lo":
            self.leave_out(place, "lo: nobody is behind loopback")
            return
        if interface not in self.lans:
            self.lans.append(interface)
        self.keep(place, f"clients behind {interface} go through Tor")

    def add_user(self, name: str, place: str) -> None:
        """An account goes to tor."""
        if name not in self.users:
            self.users.append(name)
        self.keep(place, f"the account {name} goes through Tor")

    def bypass_network(self, text: str, place: str) -> None:
        """A network is reached directly."""
        network = network_of(text)
        if network is None:
            self.leave_out(place, f"{text} is no network")
        elif network.is_loopback or network.is_multicast or network.is_reserved:
            self.leave_out(place, f"{network} never leaves this machine, and needs no bypass")
        elif network.prefixlen == 0:
            self.change(place, f"{network} is everything: not bypassed")
        elif not network.is_unspecified and int(network.network_address) >> (
            network.max_prefixlen - 8
        ):
            self.bypass.setdefault(network, place)
            self.keep(place, f"{network} is reached directly")
        else:
            self.leave_out(place, f"{network} is nobody's address, and is refused")


def network_of(text: str) -> Network | None:
    """A network or address as iptables and pf write it."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None

"""The lab as a value, and the file that remembers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onionward.errors import LabError
from onionward.lab import topology
from onionward.lab.host import Host

FILE_NAME = "lab.json"


@dataclass(frozen=True)
class Lab:
    """A private Tor network with hosts.

    Args:
        name: tells labs on one machine apart.
        directory: what is on disk of it.
        hosts: "internet"; "host" and "gateway" (to be protected) and "neighbour" on the uplink;
            "client1" to "client3" on the gateway's LAN; "container" on the gateway's bridge.
        onions: host names of the onion services, "….onion".
        relays: every (address, port) that a Tor client may contact.
        exits: addresses from which the web server sees Tor clients.

    """

    name: str
    directory: Path
    hosts: Mapping[str, Host]
    onions: tuple[str, ...]
    relays: tuple[tuple[str, int], ...]
    exits: tuple[str, ...]
    host_link: str = topology.HOST.port
    """The end of host's cable, in `internet`: what tcpdump sees there has left the host."""
    neighbour_link: str = topology.NEIGHBOUR.port
    gateway_link: str = topology.GATEWAY.port
    """The end of the gateway's cable to the uplink, in `internet`, as `host_link`."""
    lan_link: str = topology.LAN_PORT
    """The end of the gateway's cable to the LAN, also in `internet`."""
    uplink: str = topology.UPLINK.bridge
    web4: str = topology.WEB4
    web6: str = topology.WEB6
    dns4: str = topology.DNS4
    dns6: str = topology.DNS6
    stranger4: str = topology.STRANGER4
    stranger6: str = topology.STRANGER6
    router4: str = topology.UPLINK.router4
    """The router of the uplink, which is `internet`."""
    router6: str = topology.UPLINK.router6
    host4: str = topology.HOST.address4
    host6: str = topology.HOST.address6
    neighbour4: str = topology.NEIGHBOUR.address4
    neighbour6: str = topology.NEIGHBOUR.address6
    gateway4: str = topology.GATEWAY.address4
    """The gateway on the uplink."""
    gateway6: str = topology.GATEWAY.address6
    lan_device: str = topology.LAN_DEVICE
    """The gateway's interface on the LAN."""
    lan_network4: str = topology.LAN.network4
    lan_network6: str = topology.LAN.network6
    lan_gateway4: str = topology.LAN.router4
    """The gateway on the LAN."""
    lan_gateway6: str = topology.LAN.router6
    bridge_device: str = topology.BRIDGE.bridge
    """The gateway's bridge for containers."""
    bridge_network4: str = topology.BRIDGE.network4
    bridge_network6: str = topology.BRIDGE.network6
    bridge_gateway4: str = topology.BRIDGE.router4
    """The gateway on this bridge."""
    bridge_gateway6: str = topology.BRIDGE.router6
    container4: str = topology.CONTAINER.address4
    container6: str = topology.CONTAINER.address6

    def client4(self, number: int) -> str:
        """IPv4 address of a client of the LAN.

        Args:
            number: as in the client's name, 1 for "client1".

        Raises:
            LabError: there is no such client.

        """
        return _client(number).address4

    def client6(self, number: int) -> str:
        """IPv6 address of a client of the LAN; arguments and errors as `client4`."""
        return _client(number).address6

    @property
    def onion(self) -> str:
        """Host name of the first onion service; "" when the network has none."""
        return self.onions[0] if self.onions else ""

    @property
    def network_torrc(self) -> Path:
        """Lines that make a tor use this network; the host has them at `render.NETWORK_TORRC`."""
        return self.directory / "network.torrc"

    def to_json(self) -> str:
        """The text of lab.json."""
        fields = {**asdict(self), "directory": str(self.directory)}
        return json.dumps(fields, indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Lab:
        """The lab that `to_json` wrote.

        Raises:
            LabError: it was not written by this version.

        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["directory"] = Path(fields["directory"])
            fields["hosts"] = {name: Host(**host) for name, host in fields["hosts"].items()}
            fields["onions"] = tuple(fields["onions"])
            fields["relays"] = tuple((address, port) for address, port in fields["relays"])
            fields["exits"] = tuple(fields["exits"])
            return Lab(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LabError(f"{FILE_NAME} cannot be read: {error}") from error


def _client(number: int) -> topology.Machine:
    for client in topology.CLIENTS:
        if client.name == f"client{number}":
            return client
    raise LabError(f"the lab has no client{number}", f"There are {len(topology.CLIENTS)}.")

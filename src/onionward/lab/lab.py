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
        hosts: "internet", "host" (to be protected) and "neighbour" (on the same link).
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
    uplink: str = topology.UPLINK
    web4: str = topology.WEB4
    web6: str = topology.WEB6
    dns4: str = topology.DNS4
    dns6: str = topology.DNS6
    stranger4: str = topology.STRANGER4
    stranger6: str = topology.STRANGER6
    gateway4: str = topology.GATEWAY4
    gateway6: str = topology.GATEWAY6
    host4: str = topology.HOST.address4
    host6: str = topology.HOST.address6
    neighbour4: str = topology.NEIGHBOUR.address4
    neighbour6: str = topology.NEIGHBOUR.address6

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

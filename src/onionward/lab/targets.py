"""A lab as the targets of the leak detector."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from typing import Any

from onionward.config.values import TorConfig
from onionward.lab import topology
from onionward.lab.host import Host
from onionward.lab.lab import Lab
from onionward.leaks.model import Targets

HOST_DEVICE = "eth0"


def targets(lab: Lab, name: str = topology.HOST.name) -> Targets:
    """Where the vectors aim in this lab.

    Args:
        lab: built.
        name: the machine that tries them; its router is that of its link.

    """
    machine = next(machine for machine in topology.MACHINES if machine.name == name)
    link, router = machine.link, lab.hosts["internet"]
    far = link.bridge
    if link is not topology.UPLINK:
        router = lab.hosts[topology.GATEWAY.name]
        far = topology.LAN_DEVICE if link is topology.LAN else link.bridge
    theirs, own = _link(router, far), _link(lab.hosts[name], HOST_DEVICE)
    addresses = theirs["addr_info"]
    defaults = TorConfig()
    return Targets(
        web4=lab.web4,
        web6=lab.web6,
        dns4=lab.dns4,
        dns6=lab.dns6,
        stranger4=lab.stranger4,
        stranger6=lab.stranger6,
        host4=machine.address4,
        host6=machine.address6,
        neighbour4=lab.neighbour4,
        neighbour6=lab.neighbour6,
        gateway4=link.router4,
        gateway6=link.router6,
        router6=next(a["local"] for a in addresses if a["local"].startswith("fe80")),
        broadcast4=str(ipaddress.ip_network(link.network4).broadcast_address),
        device=HOST_DEVICE,
        device_mac=own["address"],
        far_device=machine.port,
        far_mac=theirs["address"],
        relay=next(relay for relay in lab.relays if relay[1] == 9001),
        trans_port=defaults.trans_port,
        dns_port=defaults.dns_port,
    )


def _link(host: Host, name: str) -> dict[str, Any]:
    argv = host.network_command(["ip", "-j", "address", "show", "dev", name])
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return dict(found[0])

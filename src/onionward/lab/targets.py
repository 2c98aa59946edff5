"""A lab as the targets of the leak detector."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from typing import Any

from onionward.config.values import TorConfig
from onionward.lab.host import Host
from onionward.lab.lab import Lab
from onionward.leaks.model import Targets

HOST_DEVICE = "eth0"


def targets(lab: Lab) -> Targets:
    """Where the vectors aim in this lab."""
    host, internet = lab.hosts["host"], lab.hosts["internet"]
    uplink, own = _link(internet, lab.uplink), _link(host, HOST_DEVICE)
    addresses = uplink["addr_info"]
    defaults = TorConfig()
    return Targets(
        web4=lab.web4,
        web6=lab.web6,
        dns4=lab.dns4,
        dns6=lab.dns6,
        stranger4=lab.stranger4,
        stranger6=lab.stranger6,
        host4=lab.host4,
        host6=lab.host6,
        neighbour4=lab.neighbour4,
        neighbour6=lab.neighbour6,
        gateway4=lab.gateway4,
        gateway6=lab.gateway6,
        router6=next(a["local"] for a in addresses if a["local"].startswith("fe80")),
        broadcast4=str(ipaddress.ip_network(f"{lab.host4}/24", strict=False).broadcast_address),
        device=HOST_DEVICE,
        device_mac=own["address"],
        far_device=lab.host_link,
        far_mac=uplink["address"],
        relay=next(relay for relay in lab.relays if relay[1] == 9001),
        trans_port=defaults.trans_port,
        dns_port=defaults.dns_port,
    )


def _link(host: Host, name: str) -> dict[str, Any]:
    argv = host.network_command(["ip", "-j", "address", "show", "dev", name])
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return dict(found[0])

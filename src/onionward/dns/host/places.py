"""Files by which managers of resolv.conf are told of us; apart, because `status` is in a hurry."""

from __future__ import annotations

from pathlib import Path

# after all others in order: "~" is the last in ASCII
_NAME = "zz~onionward"
RESOLVED = Path(f"/run/systemd/resolved.conf.d/{_NAME}.conf")
NETWORKMANAGER = {
    "run": Path(f"/run/NetworkManager/conf.d/{_NAME}.conf"),
    "etc": Path(f"/etc/NetworkManager/conf.d/{_NAME}.conf"),
}
"""The first is gone after a reboot; the second prevails over what else is said below /etc."""
OPENRESOLV = Path("/etc/resolvconf.conf")
DHCLIENT = Path("/etc/dhcp/dhclient-enter-hooks.d/zz-onionward")

"""The resolv.conf(5) of a routed machine."""

from __future__ import annotations

RESOLV_CONF = """\
# Written by onionward: names are resolved through Tor.
# The file that was here returns with `onionward down`.
nameserver 127.0.0.1
options timeout:15 attempts:2
"""


def resolv_conf() -> str:
    """Loopback only, no search list (it would be asked of strangers), patience for Tor.

    Packets for port 53 are redirected to DNSPort wherever they are addressed.
    """
    return RESOLV_CONF

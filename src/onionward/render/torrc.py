"""Policy → torrc, complete: nothing of /etc/tor is read. Options are those of tor(1)."""

from __future__ import annotations

from collections.abc import Sequence

from onionward.paths import Paths
from onionward.policy import RELAY4, RELAY6, Policy


def torrc(policy: Policy, paths: Paths, *, account: str | None, network: Sequence[str] = ()) -> str:
    """The configuration of onionward's own tor.

    Args:
        policy: for ports and virtual networks.
        paths: of data, sockets and log.
        account: whom tor becomes after it has opened its ports; None while it does not exist.
        network: lines that name another Tor network than the public one.

    """
    addresses = ["127.0.0.1", *(["[::1]"] if policy.ipv6 else [])]
    if policy.lans:
        addresses += [str(RELAY4), *([f"[{RELAY6}]"] if policy.ipv6 else [])]
    # clients of different addresses and listeners are isolated by default
    isolation = " IsolateDestAddr IsolateDestPort" if policy.isolate_destinations else ""
    lines = [
        f"DataDirectory {paths.tor_data}",
        *([f"User {account}"] if account else []),
        "RunAsDaemon 1",
        f"Log notice file {paths.tor_log}",
        "ClientOnly 1",
        "SocksPort 0",
        *(f"TransPort {address}:{policy.trans_port}{isolation}" for address in addresses),
        *(f"DNSPort {address}:{policy.dns_port}" for address in addresses),
        f"VirtualAddrNetworkIPv4 {policy.virtual4}",
        f"VirtualAddrNetworkIPv6 [{policy.virtual6.network_address}]/{policy.virtual6.prefixlen}",
        "AutomapHostsOnResolve 1",
        "ClientUseIPv6 1",
        "ControlPort 0",
        f"ControlSocket {paths.control_socket}",
        "CookieAuthentication 1",
        f"CookieAuthFile {paths.control_cookie}",
        # the rules stay when tor goes, so the ports must come back as they were
        "KeepBindCapabilities 1",
        *network,
    ]
    return "\n".join(lines) + "\n"

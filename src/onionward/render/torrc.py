"""Policy → torrc, complete: nothing of /etc/tor is read. Options are those of tor(1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from onionward.config.values import Config
from onionward.paths import Paths
from onionward.policy import RELAY4, RELAY6, Policy
from onionward.tor.installed import Installed

TransProxyType = Literal["default", "TPROXY", "ipfw", "pf-divert"]


class Platform(NamedTuple):
    """What of tor's configuration depends on the system.

    Attributes:
        trans_proxy_type: how tor learns where a redirected connection was going (tor(1)).
        relays: whether clients of a LAN are turned to addresses of their own on loopback.
        keeps_capabilities: whether tor can keep the right to open privileged ports.
        pid_file: whether tor writes down its process id, because there is no /proc.
        offers_socks: whether accounts can have runs of their own, which need SOCKS.

    """

    trans_proxy_type: TransProxyType = "default"
    relays: bool = True
    keeps_capabilities: bool = True
    pid_file: bool = False
    offers_socks: bool = True


LINUX = Platform()


def relays(config: Config, installed: Installed) -> tuple[str, ...]:
    """Lines about the relays that are used: of which network, which exits, by which bridges."""
    return (*config.network_lines, *_exits(config, installed), *_bridges(config, installed))


def _exits(config: Config, installed: Installed) -> list[str]:
    tor = config.tor
    if not tor.names_countries:
        return []
    found = installed.geoip
    lines = [] if found is None else [f"GeoIPFile {found}/geoip", f"GeoIPv6File {found}/geoip6"]
    # whatever StrictNodes says: that is about ExcludeNodes alone (tor(1))
    for option, codes in (
        ("ExitNodes", tor.exit_countries),
        ("ExcludeExitNodes", tor.exclude_exit_countries),
    ):
        if codes:
            lines.append(f"{option} {','.join(f'{{{code}}}' for code in codes)}")
    return lines


def _bridges(config: Config, installed: Installed) -> list[str]:
    if not config.tor.bridges:
        return []
    from onionward.config import bridges

    found = [bridges.read(line) for line in config.tor.bridges]
    lines = ["UseBridges 1"]
    for transport in sorted({bridge.transport for bridge in found} - {bridges.PLAIN}):
        program = installed.transport or "/usr/bin/obfs4proxy"  # refused where it is to be used
        lines.append(f"ClientTransportPlugin {transport} exec {program}")
    return [*lines, *(f"Bridge {bridge.line()}" for bridge in found)]


def torrc(
    policy: Policy,
    paths: Paths,
    *,
    account: str | None,
    network: Sequence[str] = (),
    platform: Platform = LINUX,
    only_at: Sequence[str] = (),
) -> str:
    """The configuration of onionward's own tor.

    Args:
        policy: for ports and virtual networks.
        paths: of data, sockets and log.
        account: whom tor becomes after it has opened its ports; None while it does not exist.
        network: lines about the relays, as `relays` gives them.
        platform: the system that it is for.
        only_at: the addresses it listens at, in the place of those of the policy.

    """
    addresses = ["127.0.0.1", *(["[::1]"] if policy.ipv6 else [])]
    if policy.lans and platform.relays:
        addresses += [str(RELAY4), *([f"[{RELAY6}]"] if policy.ipv6 else [])]
    addresses = list(only_at) or addresses
    # clients of different addresses and listeners are isolated by default
    isolation = " IsolateDestAddr IsolateDestPort" if policy.isolate_destinations else ""
    lines = [
        f"DataDirectory {paths.tor_data}",
        *([f"User {account}"] if account else []),
        "RunAsDaemon 1",
        f"Log notice file {paths.tor_log}",
        "ClientOnly 1",
        *(["SocksPort 0"] if only_at or not platform.offers_socks else _for_accounts(paths)),
        *(f"TransPort {address}:{policy.trans_port}{isolation}" for address in addresses),
        *(f"DNSPort {address}:{policy.dns_port}" for address in addresses),
        *_trans_proxy_type(platform.trans_proxy_type),
        f"VirtualAddrNetworkIPv4 {policy.virtual4}",
        f"VirtualAddrNetworkIPv6 [{policy.virtual6.network_address}]/{policy.virtual6.prefixlen}",
        "AutomapHostsOnResolve 1",
        "ClientUseIPv6 1",
        "ControlPort 0",
        f"ControlSocket {paths.control_socket}",
        "CookieAuthentication 1",
        f"CookieAuthFile {paths.control_cookie}",
        # the rules stay when tor goes, so the ports must come back as they were
        *(["KeepBindCapabilities 1"] if platform.keeps_capabilities else []),
        *([f"PidFile {paths.tor_pid}"] if platform.pid_file else []),
        *network,
    ]
    return "\n".join(lines) + "\n"


def _for_accounts(paths: Paths) -> list[str]:
    """Where runs of accounts find tor (`onionward.app.rootless`)."""
    # the directory is tor's own and nobody else can write there, which is enough
    anybody = "WorldWritable RelaxDirModeCheck SessionGroup=1 IsolateSOCKSAuth IPv6Traffic"
    return [
        f"SocksPort unix:{paths.socks4} {anybody} NoPreferIPv6",
        f"SocksPort unix:{paths.socks6} {anybody} PreferIPv6",
    ]


def _trans_proxy_type(wanted: TransProxyType) -> list[str]:
    # "default" asks the packet filter: SO_ORIGINAL_DST on Linux, /dev/pf on BSD
    return [] if wanted == "default" else [f"TransProxyType {wanted}"]

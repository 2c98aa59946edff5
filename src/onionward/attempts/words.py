"""What a stopped packet was, and what the program does instead, in words; nothing here looks."""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """What a kind of packet is.

    Attributes:
        name: what people call it.
        instead: what happens instead, or "" when nothing is known to.

    """

    name: str
    instead: str = ""


_NAMES = "names are resolved through Tor by asking the resolver of this machine"
_NEARBY = "devices nearby are not found, and do not find this one"
_TUNNEL = "the tunnel does not come up; Tor carries TCP alone"
_UNKNOWN = Meaning("", "the program gets an error at once")
# IANA's registry of ports, and the RFC that is named
_UDP = {
    **dict.fromkeys((53,), Meaning("DNS", _NAMES)),
    **dict.fromkeys((67, 547), Meaning("DHCP", "only DHCP clients of the machine may ask")),
    69: Meaning("TFTP"),
    80: Meaning("QUIC", "it falls back to TCP"),
    123: Meaning("NTP", "the clock is not set; a clock that is far off keeps tor from starting"),
    137: Meaning("NetBIOS names", _NEARBY),
    138: Meaning("NetBIOS", _NEARBY),
    161: Meaning("SNMP", _NEARBY),
    443: Meaning("QUIC", "it falls back to TCP"),
    500: Meaning("IPsec", _TUNNEL),
    514: Meaning("syslog", "nothing is logged elsewhere"),
    853: Meaning("DNS over QUIC", _NAMES),
    1194: Meaning("OpenVPN", "OpenVPN over TCP goes through Tor"),
    1900: Meaning("SSDP", _NEARBY),
    3478: Meaning("STUN of WebRTC", "calls find no direct way; TURN over TCP goes through Tor"),
    3702: Meaning("WS-Discovery", _NEARBY),
    4500: Meaning("IPsec", _TUNNEL),
    5349: Meaning("STUN of WebRTC", "calls find no direct way; TURN over TCP goes through Tor"),
    5350: Meaning("NAT-PMP", "no port is opened at the router"),
    5351: Meaning("NAT-PMP", "no port is opened at the router"),
    5353: Meaning("multicast DNS", _NEARBY),
    5355: Meaning("LLMNR", _NEARBY),
    19302: Meaning("STUN of WebRTC", "calls find no direct way; TURN over TCP goes through Tor"),
    51820: Meaning("WireGuard", _TUNNEL),
    **dict.fromkeys(range(6881, 6890), Meaning("BitTorrent", "peers are not reached over UDP")),
}
_TCP = {
    53: Meaning("DNS over TCP", _NAMES),
    137: Meaning("NetBIOS names", _NEARBY),
    139: Meaning("Windows shares", "bypass the network to reach them"),
    445: Meaning("Windows shares", "bypass the network to reach them"),
    631: Meaning("printing", "bypass the network to reach the printer"),
    853: Meaning("DNS over TLS", _NAMES),
    9100: Meaning("printing", "bypass the network to reach the printer"),
}
_TCP_ELSE = Meaning("TCP that Tor cannot carry", "bypass the network to reach it")
# RFC 792; RFC 4443, RFC 4861, RFC 3810
_PING = Meaning("ping", "Tor carries no ICMP; whether a host is up, TCP tells")
_ICMP = {8: _PING, 13: Meaning("ICMP timestamp")}
_ICMP6 = {
    128: _PING,
    **dict.fromkeys((131, 132, 143), Meaning("membership of multicast groups", _NEARBY)),
    133: Meaning("IPv6 router solicitation", "routers are heard without being asked"),
    134: Meaning("IPv6 router advertisement"),
    **dict.fromkeys((135, 136), Meaning("IPv6 neighbour discovery", "the kernel's own passes")),
}
_OTHERS = {
    "2": Meaning("membership of multicast groups (IGMP)", _NEARBY),
    "4": Meaning("a tunnel (IP in IP)", _TUNNEL),
    "41": Meaning("a tunnel (IPv6 in IPv4)", _TUNNEL),
    "47": Meaning("a tunnel (GRE)", _TUNNEL),
    "50": Meaning("a tunnel (IPsec)", _TUNNEL),
    "51": Meaning("a tunnel (IPsec)", _TUNNEL),
    "sctp": Meaning("SCTP"),
    "dccp": Meaning("DCCP"),
    "0x0806": Meaning("address resolution of a program", "the kernel's own passes"),
    "0x888e": Meaning("802.1X of a program"),
    "0x88cc": Meaning("LLDP", "the switch does not learn what this machine is"),
}
_ENDINGS = {
    "refused": "refused",
    "spoofed": "dropped, because its source is no address of whoever sent it",
    "invalid": "dropped, because it belongs to no connection",
    "escaped": "dropped at the last look: no rule lets it leave",
    "forwarded": "not forwarded",
    "strangers": "no service of this machine for it",
}


def meaning(protocol: str, port: int | None) -> Meaning:
    """What a packet of this protocol to this port (or of this ICMP type) is."""
    match protocol:
        case "udp":
            return _UDP.get(port or 0, _UNKNOWN)
        case "tcp":
            return _TCP.get(port or 0, _TCP_ELSE)
        case "icmp":
            return _ICMP.get(-1 if port is None else port, Meaning("ICMP"))
        case "ipv6-icmp":
            return _ICMP6.get(-1 if port is None else port, Meaning("ICMPv6"))
    return _OTHERS.get(protocol, Meaning("", "Tor carries TCP and names alone"))


def outcome(protocol: str, port: int | None, reason: str) -> str:
    """What it was, what became of it and what happens instead: "QUIC, refused; it falls …"."""
    what = meaning(protocol, port)
    ending = _ENDINGS.get(reason, reason)
    words = f"{what.name}, {ending}" if what.name else ending
    return f"{words}; {what.instead}" if what.instead and reason == "refused" else words


def target(protocol: str, port: int | None, address: str) -> str:
    """Where it was to go: "UDP 443 → 1.2.3.4"."""
    name = protocol.upper() if not protocol.isdecimal() else f"IP protocol {protocol}"
    if protocol.startswith("0x"):
        name = f"a frame of type {protocol}"
    number = "" if port is None else f" type {port}" if "icmp" in protocol else f" {port}"
    to = f" → {address}" if address else ""
    return f"{name.replace('IPV6-ICMP', 'ICMPv6')}{number}{to}"


def who(program: str, account: str, unit: str, client: str, interface: str) -> str:
    """Who tried it: "firefox (bob)"."""
    if client:
        return f"{client} behind {interface}"
    if not account:
        return f"{program} (no account)" if program else "the kernel, or a socket that is gone"
    if not program:
        return f"a program of {account}"
    shown = f", {unit}" if unit and unit.rpartition(".")[0] != program else ""
    return f"{program} ({account}{shown})"


def times(number: int) -> str:
    """How often."""
    return "once" if number == 1 else f"{number} times"

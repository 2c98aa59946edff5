"""What people see on the wire: expressions of pcap-filter(7) by which a witness knows an attempt.

{n} is the attempt's number.
"""

from __future__ import annotations

from onionward.leaks.model import Attempt, Sees

_TCP_DATA = "((tcp[12] & 0xf0) >> 2)"

SEES_TCP = "tcp and src port {n}"
SEES_LETTER = f"{SEES_TCP} and tcp[{_TCP_DATA}:2] = {{n}}"
SEES_LETTER6 = "ip6[6] = 6 and ip6[40:2] = {n} and ip6[53] & 8 != 0"
SEES_UDP = "udp and src port {n}"
SEES_PING4 = "icmp[0] = 8 and icmp[4:2] = {n}"
SEES_PING6 = "icmp6 and ip6[40] = 128 and ip6[44:2] = {n}"


def sees_payload4(protocol: int) -> str:
    """An IPv4 packet of that protocol whose payload begins with the number."""
    return f"ip proto {protocol} and ip[20:2] = {{n}}"


def sees_payload6(protocol: int) -> str:
    """An IPv6 packet of that protocol whose payload begins with the number."""
    return f"ip6 and ip6[6] = {protocol} and ip6[40:2] = {{n}}"


def sees_asked(*, before: bytes = b"", upper: bool = False, over: str = "udp") -> Sees:
    """A query for the attempt's name, whoever sends it.

    Args:
        before: what stands in the question before the label that begins with the number's name.
        upper: whether the letters are upper case.
        over: "udp", "udp6" (UDP over IPv6), or "tcp".

    """

    def sees(attempt: Attempt) -> str:
        label = attempt.name.split(".")[0].encode()
        text = label.upper() if upper else label
        # the header of the query, and the length of the label
        start = 12 + len(before) + 1
        match over:
            case "udp":
                query, layer, place = "udp dst port 53", "udp", f"{8 + start}"
            case "udp6":
                query, layer, place = "ip6[6] = 17 and ip6[42:2] = 53", "ip6", f"{48 + start}"
            case _:
                # two bytes tell the length (RFC 1035, 4.2.2)
                query, layer, place = "tcp dst port 53", "tcp", f"{_TCP_DATA} + {2 + start}"
        words = [
            f"{layer}[{place} + {at}:{size}] = {int.from_bytes(text[at : at + size], 'big'):#x}"
            for at, size in ((0, 4), (4, 4), (8, 2), (10, 1))
        ]
        return " and ".join([query, *words])

    return sees

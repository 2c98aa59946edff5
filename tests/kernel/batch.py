"""The packets of a case on their way: who sent which, and by what each is known again."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from onionward.leaks.packets import dns_query
from tests.kernel import clients
from tests.kernel.cases import Case, Send
from tests.kernel.fates import Fate, outcome
from tests.kernel.frames import TCP, Frame
from tests.kernel.policies import UPLINK
from tests.kernel.servers import Services, StandIn

Replies = list[tuple[str | None, list[Any] | None]]


class Batch:
    """What is sent, and what has become of it so far.

    Attributes:
        case: whose packets they are.
        fates: of each packet.
        strays: frames that nobody was asked to send.
        orders: what each sender is asked to send.

    """

    def __init__(self, case: Case, devices: Mapping[str, int], numbers: Iterator[int]) -> None:
        self.case = case
        self.fates = [Fate() for _ in case.sends]
        self.strays: list[tuple[str, Frame]] = []
        self.orders: dict[str, list[dict[str, Any]]] = {}
        self._replies: list[tuple[str, bytes]] = []
        self._owners: dict[str, list[Fate]] = {}
        self._tokens: dict[str, Fate] = {}
        self._streams: dict[int, Fate] = {}
        self._clients: dict[int, tuple[Send, int]] = {}
        for send, fate in zip(case.sends, self.fates, strict=True):
            number = next(numbers)
            token = f"onionward?{number:08x}"
            source_port = send.packet.source_port or 20000 + number % 40000
            self._tokens[token] = fate
            if send.packet.protocol == "tcp" and (send.is_client or not send.raw):
                self._streams[source_port] = fate
            if send.is_client:
                self._clients[id(fate)] = (send, source_port)
                data = clients.frame(send, source_port, token, case.networks)
                order: dict[str, Any] = {"frame": data.hex()}
            else:
                order = _order(case, send, source_port, token, devices)
                self._owners.setdefault(send.account, []).append(fate)
            self.orders.setdefault(send.account, []).append(order)

    def _fate(self, frame: Frame) -> Fate | None:
        if frame.token is not None:
            return self._tokens.get(frame.token)
        if frame.protocol == TCP and frame.source_port in self._streams:
            return self._streams[frame.source_port]
        if frame.protocol == TCP and frame.port in self._streams:
            return self._streams[frame.port]
        return None

    def saw_far(self, device: str, frame: Frame) -> None:
        """A frame has left the machine."""
        fate = self._fate(frame)
        if fate is None and frame.is_of_the_kernel:
            return
        if fate is None:
            self.strays.append((device, frame))
        elif id(fate) in self._clients:
            self._saw_for_client(fate, device, frame)
        elif frame.is_answer:
            self.strays.append((device, frame))
        else:
            fate.far.append((device, frame))

    def _saw_for_client(self, fate: Fate, device: str, frame: Frame) -> None:
        send, source_port = self._clients[id(fate)]
        if device != send.account or frame.to != send.packet.source:
            fate.far.append((device, frame))
        elif frame.is_opened:
            assert frame.source is not None
            assert frame.source_port is not None
            fate.answer = (frame.source, frame.source_port)
            data = clients.acknowledgement(send, source_port, frame.sequence)
            self._replies.append((device, data))
        elif frame.is_reset:
            # a connection that was accepted is reset in the end
            fate.told = fate.told or f"a reset by {frame.source} port {frame.source_port}"
        elif frame.is_error:
            fate.told = f"ICMP {frame.kind}, {frame.code}"
        else:
            fate.answer = (frame.source or send.packet.destination, frame.source_port or 0)

    def replies(self) -> list[tuple[str, bytes]]:
        """Frames that clients send now, with their interfaces."""
        found, self._replies = self._replies, []
        return found

    def saw_near(self, frame: Frame) -> None:
        """A frame is on loopback."""
        fate = None if frame.is_answer else self._fate(frame)
        if fate is not None:
            fate.near.append(frame)

    def saw_servers(self, tor: StandIn, services: Services) -> None:
        """Ask them for news."""
        for connected in tor.connected():
            fate = self._streams.get(connected.peer[1])
            if fate is not None:
                fate.connected, fate.peer = connected.meant, connected.peer
        for token, peer in tor.asked():
            if token in self._tokens:
                self._tokens[token].asked = True
                self._tokens[token].peer = peer
        for connected in services.connected():
            fate = self._streams.get(connected.peer[1])
            if fate is not None:
                fate.served = connected.meant
        for token, peer in services.asked():
            if token in self._tokens:
                self._tokens[token].served = peer

    def heard(self, account: str, replies: Replies) -> None:
        """What senders were told."""
        for fate, (told, answer) in zip(self._owners.get(account, ()), replies, strict=True):
            fate.told = told
            fate.answer = None if answer is None else (ipaddress.ip_address(answer[0]), answer[1])

    def outcomes(self) -> list[str]:
        """What became of each packet, in words."""
        pairs = zip(self.case.sends, self.fates, strict=True)
        return [outcome(self.case, send, fate) for send, fate in pairs]


def _order(
    case: Case, send: Send, source_port: int, token: str, devices: Mapping[str, int]
) -> dict[str, Any]:
    packet = send.packet
    to = packet.destination
    needs_device = to.is_link_local or to.is_multicast
    # an address within a link belongs to one device
    device = next((link.name for link in case.links if to in link.addresses), UPLINK)
    return {
        "to": str(to),
        "protocol": send.number,
        "port": packet.port,
        "source": None if packet.source is None else str(packet.source),
        "source_port": source_port,
        "raw": send.raw and packet.protocol != "udp",
        "flags": send.kind,
        "icmp_type": send.kind if send.kind_is_icmp else None,
        "device": devices[device] if needs_device else 0,
        "token": token,
        "query": "" if send.name is None else dns_query(send.name).hex(),
    }

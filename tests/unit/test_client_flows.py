"""Connections of clients: how they are read, and the segment that makes a client speak."""

from __future__ import annotations

import ipaddress
import json

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from onionward.lan.client_flows import parse, segment
from onionward.policy import Flow

CLIENT4, WEB4 = ipaddress.ip_address("198.18.8.11"), ipaddress.ip_address("198.18.80.1")
CLIENT6, WEB6 = ipaddress.ip_address("2001:db8:8::11"), ipaddress.ip_address("2001:db8:80::1")
FLOWS = (Flow(CLIENT4, 40001, WEB4, 443), Flow(CLIENT6, 40002, WEB6, 80))


def listed(*flows: Flow) -> str:
    elements = [
        {
            "elem": {
                "val": {"concat": [str(f.peer), f.peer_port, str(f.local), f.local_port]},
                "timeout": 7200,
                "expires": 7100,
            }
        }
        for f in flows
    ]
    found = {"set": {"family": "inet", "name": "client_flows4", "elem": elements}}
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, found]})


def test_what_nft_lists_is_read() -> None:
    assert parse(listed(*FLOWS)) == FLOWS


def test_an_empty_set_has_no_elements() -> None:
    assert parse(json.dumps({"nftables": [{"set": {"name": "client_flows4"}}]})) == ()


@pytest.mark.parametrize(("flow", "layer"), list(zip(FLOWS, (IP, IPv6), strict=True)))
def test_the_segment_is_a_syn_ack_from_the_destination(flow: Flow, layer: type) -> None:
    raw = segment(flow)
    packet = layer(raw)
    assert (packet.src, packet.dst) == (str(flow.local), str(flow.peer))
    assert (packet[TCP].sport, packet[TCP].dport) == (flow.local_port, flow.peer_port)
    assert packet[TCP].flags == "SA"
    written = packet[TCP].chksum
    del packet[TCP].chksum
    assert layer(bytes(packet))[TCP].chksum == written

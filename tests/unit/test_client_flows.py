"""Connections of clients: how they are read, and the segment that makes a client speak."""

from __future__ import annotations

import ipaddress
import json

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from onionward.backend import nftables
from onionward.lan.client_flows import catch_up, parse, parse_tracked, segment
from onionward.policy import Flow
from tests.support import ScriptedSystem

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


TRACKED4 = """\
tcp      6 86399 ESTABLISHED src=198.18.8.11 dst=198.18.80.1 sport=40001 dport=443 \
src=169.254.94.8 dst=198.18.8.11 sport=940 dport=40001 [ASSURED] mark=1953460739 use=1
tcp      6 100 CLOSE_WAIT src=198.18.8.12 dst=198.18.80.1 sport=40003 dport=80 \
src=169.254.94.8 dst=198.18.8.12 sport=940 dport=40003 [ASSURED] mark=1953460739 use=1
tcp      6 119 TIME_WAIT src=198.18.8.11 dst=198.18.80.1 sport=40004 dport=80 \
src=169.254.94.8 dst=198.18.8.11 sport=940 dport=40004 [ASSURED] mark=1953460739 use=1
tcp      6 119 SYN_SENT src=198.18.8.11 dst=198.18.80.1 sport=40005 dport=80 [UNREPLIED] \
src=169.254.94.8 dst=198.18.8.11 sport=940 dport=40005 mark=1953460739 use=1
"""
TRACKED6 = """\
tcp      6 86399 ESTABLISHED src=2001:db8:8::11 dst=2001:db8:80::1 sport=40002 dport=80 \
src=fd5a:7010::8 dst=2001:db8:8::11 sport=940 dport=40002 [ASSURED] mark=1953460739 use=1
"""
CLOSED = Flow(ipaddress.ip_address("198.18.8.12"), 40003, WEB4, 80)


def test_what_connection_tracking_lists_is_read() -> None:
    assert parse_tracked(TRACKED4) == (FLOWS[0], CLOSED)
    assert parse_tracked(TRACKED6) == (FLOWS[1],)


def test_only_what_the_new_rules_do_not_know_is_added() -> None:
    loaded: list[str] = []

    def keep(text: str) -> str:
        loaded.append(text)
        return ""

    system = ScriptedSystem(
        {
            "nft -j list set inet onionward client_flows4": listed(FLOWS[0]),
            "nft -j list set inet onionward client_flows6": listed(FLOWS[1]),
            "conntrack -L -f ipv4 -p tcp -m 1953460739": TRACKED4,
            "conntrack -L -f ipv6 -p tcp -m 1953460739": TRACKED6,
            "nft -f -": keep,
        }
    )
    catch_up(system, nftables)
    element = "198.18.8.12 . 40003 . 198.18.80.1 . 80"
    assert loaded == [f"add element inet onionward client_flows4 {{ {element} }}\n"]
    assert system.effects == ["nft -f -  # 1 connections of clients"]


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

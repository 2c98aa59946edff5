"""DHCP and router advertisements reach the clients of a routed gateway, through its rules.

internet ── eth0 gateway eth1 (dnsmasq) ── switch ── eth0 client1 (dhclient)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onionward.lab import Host, Lab
from onionward.system import System
from tests.lab.lan_network import Node, announcement, lease, options, until

SYSTEM = System()
_CONFIG = """\
[tor]
network = "/run/onionward-lab/network.torrc"
[[lan]]
interface = "eth1"
dhcp = true
dhcp_range = ["198.18.8.100", "198.18.8.199"]
"""
_PATH = "/run/onionward-lab/dhcp.toml"


def run(host: Host, *argv: str) -> str:
    return SYSTEM.query(host.command(argv), timeout=120)


def servers(gateway: Host) -> list[str]:
    lines = run(gateway, "ps", "-eo", "args=").splitlines()
    return [line for line in lines if line.startswith("dnsmasq") and "onionward/" in line]


@contextmanager
def routed(gateway: Host) -> Iterator[None]:
    (gateway.root / _PATH.lstrip("/")).write_text(_CONFIG)
    run(gateway, "onionward", "up", "--config", _PATH)
    try:
        yield
    finally:
        run(gateway, "onionward", "down", "--force")


@pytest.fixture
def client(lab: Lab) -> Iterator[Node]:
    namespace = os.open(f"/proc/{lab.hosts['client1'].pid}/ns/net", os.O_RDONLY)
    yield Node(namespace)
    os.close(namespace)


def is_router(client: Node, address: str) -> bool:
    """Whether the neighbour says of itself that it is a router, asked now."""
    client.run("ip", "neighbour", "replace", address, "dev", "eth0", "nud", "none")
    client.run("ip", "neighbour", "change", address, "dev", "eth0", "use", check=False)
    entry = ""

    def known() -> bool:
        nonlocal entry
        entry = client.ip(f"-6 neighbour show {address} dev eth0")
        return "lladdr" in entry

    until("the gateway has answered", known)
    return " router " in entry


def test_clients_of_a_routed_gateway(lab: Lab, client: Node, tmp_path: Path) -> None:
    gateway = lab.hosts["gateway"]
    with routed(gateway):
        assert servers(gateway) == ["dnsmasq --conf-file=/run/onionward/dnsmasq-lan.conf"]
        told = lease(client, tmp_path)
        assert told["ip_address"].startswith("198.18.8.1")
        assert told["routers"] == told["domain_name_servers"] == lab.lan_gateway4
        name_server = options(announcement(client))[25][8:]
        assert name_server == socket.inet_pton(socket.AF_INET6, lab.lan_gateway6)
        assert is_router(client, lab.lan_gateway6)
    assert servers(gateway) == []
    assert not is_router(client, lab.lan_gateway6)


def test_a_range_outside_the_network_is_refused(lab: Lab) -> None:
    gateway = lab.hosts["gateway"]
    text = _CONFIG.replace("198.18.8.199", "198.18.9.199")
    (gateway.root / _PATH.lstrip("/")).write_text(text)
    argv = ["onionward", "up", "--config", _PATH]
    words = SYSTEM.query(gateway.command(["sh", "-c", f"{' '.join(argv)} 2>&1"]), accept=(2,))
    assert f"{_PATH}:6: lan[0].dhcp_range: 198.18.9.199 is not in 198.18.8.0/24" in words
    assert servers(gateway) == []

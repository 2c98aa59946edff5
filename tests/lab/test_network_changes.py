"""The network changes under a routed machine: it stays covered, and goes on by itself.

internet ── host0 (witness) ── eth0 host (six processes that send without pause; guard)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from onionward.lab.targets import targets
from tests.lab.lifecycle_machine import Machine, open_machine, until
from tests.lab.lifecycle_wire import Packet, Wire
from tests.lab.test_guard import page, until_whole
from tests.lab.test_leaks_flood import flooding

NETWORKS = {"4": "198.18.70.0/24", "6": "2001:db8:70::/64"}


@pytest.fixture
def routed(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as machine:
        commands = addresses(machine)
        assert len(commands) == 4
        machine.up()
        try:
            yield machine
        finally:
            if machine.run("ip", "link", "show", "wan0").returncode == 0:
                script = "ip link set wan0 down; ip link set wan0 name eth0; ip link set eth0 up"
                machine.output("sh", "-c", f"{script}; {furnished(commands, 'eth0')}")
        machine.down()


def addresses(machine: Machine) -> list[str]:
    """Commands that give eth0 what it has now."""
    shown = json.loads(machine.output("ip", "-j", "address", "show", "dev", "eth0"))
    commands = [
        f"ip address replace {a['local']}/{a['prefixlen']} dev DEVICE nodad"
        for a in shown[0]["addr_info"]
        if a["scope"] == "global"
    ]
    for family in ("-4", "-6"):
        routes = json.loads(machine.output("ip", "-j", family, "route", "show", "default"))
        commands += [
            f"ip {family} route replace default via {route['gateway']} dev DEVICE"
            for route in routes
        ]
    return commands


def furnished(commands: list[str], device: str) -> str:
    return "; ".join(command.replace("DEVICE", device) for command in commands)


def elements(machine: Machine, name: str) -> str:
    return machine.output("nft", "list", "set", "inet", "onionward", name)


def until_element(machine: Machine, version: str, network: str, *, there: bool) -> None:
    def reached() -> bool:
        return (network in elements(machine, f"link{version}")) == there

    until(f"{network} is {'' if there else 'not '}admitted", reached, 60)


def is_frame(packet: Packet) -> bool:
    """Sent by a packet socket."""
    return "ethertype Unknown (0x88b5)" in packet.words


def test_link_goes_and_comes_and_is_renamed(lab: Lab, routed: Machine) -> None:
    """Nothing of IP leaves; frames are stopped again when the guard has heard of another name."""
    commands = addresses(routed)
    covered = 0.0
    with Wire(routed) as wire, flooding(routed.host, targets(lab)):
        for name, other in (("eth0", "eth0"), ("eth0", "wan0"), ("wan0", "eth0")):
            renamed = "" if name == other else f"ip link set {name} name {other};"
            again = furnished(commands, other)
            wire.assert_silent(covered)
            script = f"ip link set {name} down; {renamed} ip link set {other} up; {again}"
            routed.output("sh", "-c", script)
            until_whole(routed)
            covered = time.time()
            assert routed.status()["interfaces"] == [other]
            assert page(routed).returncode == 0
        wire.assert_silent(covered)
        assert [packet for packet in wire.packets() if not is_frame(packet)] == []


def test_another_network_by_dhcp(lab: Lab, routed: Machine) -> None:
    """New neighbours are let in, those of a network that is left are not any more."""
    for version, network in NETWORKS.items():
        assert network not in elements(routed, f"link{version}")
    with Wire(routed) as wire, flooding(routed.host, targets(lab)):
        routed.output(
            "sh",
            "-c",
            "ip address add 198.18.70.2/24 dev eth0;"
            "ip address add 2001:db8:70::2/64 dev eth0 nodad",
        )
        for version, network in NETWORKS.items():
            until_element(routed, version, network, there=True)
        until_whole(routed)
        routed.output(
            "sh",
            "-c",
            "ip address del 198.18.70.2/24 dev eth0; ip address del 2001:db8:70::2/64 dev eth0",
        )
        for version, network in NETWORKS.items():
            until_element(routed, version, network, there=False)
        until_whole(routed)
        wire.assert_silent()
    assert page(routed).returncode == 0


def test_what_changed_while_everything_slept(lab: Lab, routed: Machine) -> None:
    """As after a suspension: no process has run, and the network is another one."""
    sleepers = [*routed.tor_pids(), *routed.guard_pids()]
    with Wire(routed) as wire, flooding(routed.host, targets(lab)):
        for pid in sleepers:
            routed.output("kill", "-STOP", str(pid))
        routed.output("ip", "address", "add", "198.18.70.2/24", "dev", "eth0")
        routed.output("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "usb1")
        time.sleep(2)
        for pid in sleepers:
            routed.output("kill", "-CONT", str(pid))
        until("it is noticed", lambda: "usb0" in routed.status()["interfaces"], 60)
        until_whole(routed)
        assert NETWORKS["4"] in elements(routed, "link4")
        assert page(routed).returncode == 0
        routed.output("ip", "link", "delete", "usb0")
        routed.output("ip", "address", "del", "198.18.70.2/24", "dev", "eth0")
        until("it is noticed", lambda: "usb0" not in routed.status()["interfaces"], 60)
        until_whole(routed)
        wire.assert_silent()

"""Rules for interfaces of a LAN that become ports of a bridge."""

from __future__ import annotations

from onionward.errors import CommandError
from onionward.lan import bridge_ports
from onionward.policy import Lan
from tests.support import ScriptedSystem

NAMED = Lan("eth1", (), (), ping=False, dhcp=False, tcp_ports=(), udp_ports=(), number=3)
LATER = NAMED._replace(interface="usb0", number=0)
UNKNOWN = CommandError(["nft"], 1, "Error: Could not process rule: Operation not supported")
LISTED = """\
table bridge onionward_ports {
	chain ports {
		type filter hook prerouting priority -310; policy accept;
		iifname "eth1" counter name "ports" drop
		iif 3 counter name "ports" drop
	}
}
"""


def test_names_and_numbers_are_dropped_in_one_transaction() -> None:
    loaded: list[str] = []

    def keep(text: str) -> str:
        loaded.append(text)
        return ""

    system = ScriptedSystem({"nft --check": "", "nft -f -": keep})
    saved = bridge_ports.survey(system)
    bridge_ports.apply(system, saved, (NAMED, LATER))
    assert system.effects == ["nft -f -  # ports of bridges"]
    (text,) = loaded
    assert text.startswith("table bridge onionward_ports\ndelete table bridge onionward_ports\n")
    rules = [line.strip() for line in text.splitlines() if line.endswith(" drop")]
    assert rules == [
        'iifname "eth1" counter name ports drop',
        "iif 3 counter name ports drop",
        'iifname "usb0" counter name ports drop',
    ]
    assert bridge_ports.restore(system, saved) == ""
    assert loaded[1:] == ["table bridge onionward_ports\ndelete table bridge onionward_ports\n"]


def test_a_kernel_without_rules_for_bridges_is_left_alone() -> None:
    system = ScriptedSystem({"nft --check": UNKNOWN, "nft list table ": UNKNOWN})
    saved = bridge_ports.survey(system)
    bridge_ports.apply(system, saved, (NAMED,))
    bridge_ports.restore(system, saved)
    assert system.effects == []
    assert bridge_ports.covered(system, ["eth1"]) == frozenset()


def test_what_is_covered_is_what_the_kernel_holds() -> None:
    system = ScriptedSystem({"nft list table bridge onionward_ports": LISTED})
    assert bridge_ports.covered(system, ["eth1", "eth10", "usb0"]) == {"eth1"}


def test_what_is_left_is_recognised() -> None:
    for tables, left in (("table bridge onionward_ports\n", True), ("table inet x\n", False)):
        system = ScriptedSystem({"nft list tables": tables})
        assert bridge_ports.recognised(system) is left

"""Rulesets that users and their tools save while we are on, and machines that boot with them.

ONIONWARD_SWEEP=1 tries each tool on Debian 12 and 13, and shows what happens without a `down`;
otherwise one is tried on this release.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onionward.lab import Lab
from tests.machines.boot_machine import PACKAGES, furnish
from tests.machines.firewalls import NFTABLES, RULES, SAVERS, onionward, theirs
from tests.machines.test_boot import CONFIG, Disk, status

SWEEP = "ONIONWARD_SWEEP" in os.environ
RELEASES = ["", "trixie"] if SWEEP else [""]
SAVES = {
    "nftables": f"(echo '#!/usr/sbin/nft -f'; echo flush ruleset; nft list ruleset) > {RULES}",
    "netfilter-persistent": "netfilter-persistent save",
}
OWN = {
    "nftables": f"nft -f {RULES}",
    "netfilter-persistent": (
        "iptables -A INPUT -p tcp --dport 22 -m comment --comment mine -j ACCEPT; "
        "iptables -t nat -A POSTROUTING -s 198.18.200.0/24 -j MASQUERADE; "
        "ip6tables -A OUTPUT -p tcp --dport 25 -j REJECT; netfilter-persistent save"
    ),
}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("tool", SAVES if SWEEP else ["nftables"])
def test_what_is_saved_does_not_bring_ours_back(
    lab: Lab, tmp_path: Path, tool: str, release: str
) -> None:
    disk = Disk(lab, tmp_path, release, PACKAGES if tool == "nftables" else SAVERS)
    with disk.on() as (machine, _):
        furnish(machine, lab, CONFIG)
        machine.write(RULES, NFTABLES, mode=0o755)
        machine.output("sh", "-c", OWN[tool])
        machine.output("systemctl", "enable", f"{tool}.service")
        machine.power_off()
    with disk.on() as (machine, _):
        never = theirs(machine)
        assert never != []
        onionward(machine, "up")
        machine.output("sh", "-c", SAVES[tool])
        if tool == "nftables":
            assert RULES in " ".join(map(str, status(machine)["problems"]))  # type: ignore[call-overload]
            assert f"{RULES} had tables of onionward" in onionward(machine, "down")
        else:
            assert status(machine)["problems"] == []
            onionward(machine, "down")
        machine.power_off()
    with disk.on() as (machine, _):
        assert machine.output("systemctl", "is-active", tool) == "active\n"
        assert theirs(machine) == never
        assert "onionward" not in machine.output("nft", "list", "ruleset")
        assert status(machine)["state"] == "off"
        assert status(machine)["problems"] == []
        # why it matters: a machine that is restarted while it is on
        if tool != "nftables" or not SWEEP:
            return
        onionward(machine, "up")
        machine.output("sh", "-c", SAVES[tool])
        machine.power_off()
    with disk.on(reached="degraded") as (machine, _):
        assert machine.run("systemctl", "is-active", tool).stdout == "failed\n"
        assert theirs(machine) == []
        assert RULES in " ".join(map(str, status(machine)["problems"]))  # type: ignore[call-overload]
        assert f"nft -f {RULES}" in onionward(machine, "down")
        machine.output("nft", "-f", RULES)
        assert theirs(machine) == never
        machine.power_off()
    with disk.on() as (machine, _):
        assert machine.output("systemctl", "is-active", tool) == "active\n"
        assert theirs(machine) == never

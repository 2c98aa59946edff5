"""Other people's firewalls in booted machines: what their trees have, and what is there of theirs.

Debian's ufw and netfilter-persistent exclude one another, so there are two trees.
"""

from __future__ import annotations

import json
from typing import Any

from tests.lab.foreign_firewalls import without_counts
from tests.machines.boot_machine import PACKAGES as BASE
from tests.machines.machine import Machine

MANAGERS = (*BASE, "iptables", "firewalld", "polkitd", "ufw")
SAVERS = (*BASE, "iptables", "iptables-persistent")
RULES = "/etc/nftables.conf"
NFTABLES = """\
#!/usr/sbin/nft -f

flush ruleset

table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
		icmp type echo-request accept
		tcp dport 22 counter accept comment "administration"
	}
	chain output {
		type filter hook output priority filter; policy accept;
		tcp dport 25 counter reject
	}
}
"""


def theirs(machine: Machine) -> list[Any]:
    """All rules but ours, without counts and handles: programs write theirs anew."""
    objects = json.loads(machine.output("nft", "--json", "list", "ruleset"))["nftables"]
    found = []
    for entry in without_counts(objects):
        ((kind, value),) = entry.items()
        value.pop("handle", None)
        table = value.get("name" if kind == "table" else "table", "")
        if kind != "metainfo" and not table.startswith("onionward"):
            found.append(entry)
    return found


def onionward(machine: Machine, *argv: str) -> str:
    """What a command says, in one line; its failure is the test's."""
    done = machine.onionward(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())

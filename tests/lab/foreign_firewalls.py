"""What other programs write into the packet filter, and what is there of theirs."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.lab.lifecycle_machine import Machine

# a container engine: its own chains beside those of iptables, forwarding closed but for its bridge
CONTAINERS = """
table ip nat {
	chain PREROUTING { type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter jump DOCKER
	}
	chain OUTPUT { type nat hook output priority -100; policy accept;
		ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
	}
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
		oifname != "docker0" ip saddr 198.18.200.0/24 counter masquerade
	}
	chain DOCKER {
		iifname "docker0" counter return
		iifname != "docker0" tcp dport 8080 counter dnat to 198.18.200.2:80
	}
}
table ip filter {
	chain FORWARD { type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		oifname "docker0" ct state related,established counter accept
		oifname "docker0" counter jump DOCKER
		iifname "docker0" counter accept
	}
	chain DOCKER {
		ip daddr 198.18.200.2 oifname "docker0" tcp dport 80 counter accept
	}
	chain DOCKER-USER {
		counter return
	}
}
"""
# virtual machines: tables of its own for both families
GUESTS = """
table ip libvirt_network {
	chain forward { type filter hook forward priority filter; policy accept;
		counter jump guest_cross
	}
	chain guest_cross {
		iifname "virbr0" oifname "virbr0" counter accept
		oifname "virbr0" ip daddr 198.18.201.0/24 ct state related,established counter accept
		oifname "virbr0" counter reject
	}
	chain guest_nat { type nat hook postrouting priority srcnat; policy accept;
		ip saddr 198.18.201.0/24 ip daddr 224.0.0.0/24 counter return
		meta l4proto tcp ip saddr 198.18.201.0/24 masquerade to :1024-65535
	}
}
table ip6 libvirt_network {
	chain forward { type filter hook forward priority filter; policy accept;
		oifname "virbr0" counter reject
	}
}
"""
# written by hand: closed inward, and everything that leaves gets the address of the uplink
BY_HAND = """
table inet filter {
	set friends { type ipv4_addr; flags interval; elements = { 198.18.77.0/24 } }
	chain input { type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state vmap { established : accept, related : accept, invalid : drop }
		ip saddr @friends tcp dport 22 accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain output { type filter hook output priority filter; policy accept;
		ct state invalid counter drop
	}
	chain nat { type nat hook postrouting priority srcnat; policy accept;
		oifname "eth0" counter masquerade
	}
}
"""
# a service that manages zones, after the usual priorities
ZONES = """
table inet firewalld {
	chain raw { type filter hook prerouting priority raw + 10; policy accept;
		icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
		meta nfproto ipv6 fib saddr . mark . iif oif missing drop
	}
	chain input { type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		jump zones
		ct state invalid drop
		reject with icmpx admin-prohibited
	}
	chain output { type filter hook output priority filter + 10; policy accept;
		ct state { established, related } accept
		oifname "lo" accept
		ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 addr-unreachable
	}
	chain zones {
		iifname "eth0" tcp dport 22 accept
	}
}
"""
ALL = {"containers": CONTAINERS, "guests": GUESTS, "by hand": BY_HAND, "zones": ZONES}


def start(machine: Machine, text: str) -> None:
    """Load rules as a service does it: what there was of its tables is replaced in one go."""
    machine.path("/run/onionward-lab/theirs.nft").write_text(_removal(text) + text)
    machine.output("nft", "-f", "/run/onionward-lab/theirs.nft")


def stop(machine: Machine, text: str) -> None:
    """Remove the tables of such rules."""
    machine.path("/run/onionward-lab/theirs.nft").write_text(_removal(text))
    machine.output("nft", "-f", "/run/onionward-lab/theirs.nft")


def _removal(text: str) -> str:
    tables = re.findall(r"^table (\w+ \w+) \{", text, re.MULTILINE)
    return "".join(f"table {table}\ndelete table {table}\n" for table in tables)


def dump(machine: Machine) -> list[Any]:
    """All rules of others, with handles, without counts."""
    text = machine.output("nft", "--json", "list", "ruleset")
    found = []
    for entry in json.loads(text)["nftables"]:
        ((kind, value),) = entry.items()
        table = value.get("name" if kind == "table" else "table", "")
        if kind != "metainfo" and not table.startswith("onionward"):
            found.append(without_counts(entry))
    return found


def without_counts(value: Any) -> Any:
    """What nft has printed as JSON, without what packets change."""
    if isinstance(value, list):
        return [without_counts(one) for one in value]
    if isinstance(value, dict):
        return {
            name: without_counts(one)
            for name, one in value.items()
            if name not in ("packets", "bytes", "used")
        }
    return value

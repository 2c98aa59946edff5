"""The block of the boot: two texts, of which no beginning opens anything."""

from __future__ import annotations

import pytest

from onionward.render.nftables import boot
from tests.unit.scopes import LAN, USERS, gateway

CONFIGS = {
    "host": "",
    "lan": LAN,
    "users": USERS,
    "onion": "onion = true",
    "host and lan": f"[host]\n{LAN}",
    "all but host": f"onion = true\n{LAN}{USERS}",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_opens_stands_last(name: str) -> None:
    policy = gateway(CONFIGS[name])
    table, _, ending = boot.rest(policy).partition("\n}\n")
    assert table.startswith("table inet onionward_boot {\n")
    assert "delete" not in table
    assert "flush" not in table
    chains = ["first_wire", "first_clients"] if policy.lans else ["first_wire"]
    assert ending.splitlines() == [f"delete chain inet onionward_boot {c}" for c in chains]
    assert all(f"add chain inet onionward_boot {c} " in boot.first(policy) for c in chains)


def test_the_first_text_fits_into_one_line_of_any_program() -> None:
    text = boot.first(gateway(CONFIGS["all but host"]))
    assert "\n" not in text
    assert "'" not in text
    assert text.startswith(
        "add table inet onionward_boot; delete table inet onionward_boot; add table "
    )


def test_a_host_keeps_loopback_and_dhcp_alone() -> None:
    policy = gateway("")
    assert 'oifname "lo" accept; add rule inet onionward_boot first_wire drop' in boot.first(policy)
    accepting = [line.strip() for line in boot.rest(policy).splitlines() if "accept" in line]
    assert [line.split()[0] for line in accepting] == ["oifname", "icmpv6", "udp", "udp"]
    assert str(policy.tor_uid) not in boot.whole(policy)


def test_others_than_the_scopes_are_left_alone() -> None:
    text = boot.whole(gateway(USERS))
    assert "meta skuid { 1001, 1002 } drop" in text
    assert "policy drop" not in text
    assert "eth" not in text
    assert 'iifname { "eth1" } drop' in boot.first(gateway(LAN))


def test_names_and_addresses_of_onion_services_are_blocked() -> None:
    policy = gateway("onion = true")
    text = boot.first(policy)
    assert f"ip daddr {policy.virtual4} drop" in text
    assert f"ip6 daddr {policy.virtual6} drop" in text
    assert text.count("udp dport 53 ") == 64

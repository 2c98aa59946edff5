"""Networks of either family."""

from __future__ import annotations

import ipaddress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionward.networks import (
    Address,
    AddressSet,
    Network,
    address_range,
    contains,
    of_version,
    overlapping,
)
from tests.support import addr, net

# few bits, so that networks overlap, touch and repeat
_FEW = st.integers(0, 255)
NETWORKS: st.SearchStrategy[Network] = st.builds(
    lambda n, p: ipaddress.IPv4Network((n, p + 24), strict=False), _FEW, st.integers(0, 8)
) | st.builds(
    lambda n, p: ipaddress.IPv6Network((n, p + 120), strict=False), _FEW, st.integers(0, 8)
)


def addresses(networks: tuple[Network, ...] | list[Network], version: int) -> set[Address]:
    return {a for n in networks if n.version == version for a in n}


@given(st.lists(NETWORKS), st.sampled_from([4, 6]))
def test_merged_networks_hold_the_same_addresses_and_do_not_overlap(
    networks: list[Network], version: int
) -> None:
    merged = of_version(networks, version)
    assert addresses(merged, version) == addresses(networks, version)
    assert all(n.version == version for n in merged)
    assert sum(n.num_addresses for n in merged) == len(addresses(networks, version))
    assert all(int(one[-1]) < int(other[0]) for one, other in pairwise(merged))
    assert of_version(merged, version) == merged


@given(NETWORKS, NETWORKS)
def test_overlapping_means_a_common_address(one: Network, other: Network) -> None:
    expected = one.version == other.version and bool(set(one) & set(other))
    assert overlapping(one, other) == overlapping(other, one) == expected


@given(st.lists(NETWORKS), _FEW, st.sampled_from([4, 6]))
def test_contains(networks: list[Network], number: int, version: int) -> None:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    address = kind(number)
    expected = address in addresses(networks, version)
    assert contains(networks, address) == (address in AddressSet(networks)) == expected


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.192.0.0/10", "10.192.0.0 to 10.255.255.255"),
        ("192.0.2.7/32", "192.0.2.7 to 192.0.2.7"),
        ("fd5a:7011::/32", "fd5a:7011:: to fd5a:7011:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_address_range(network: str, expected: str) -> None:
    assert address_range(net(network)) == expected


def test_families_are_kept_apart() -> None:
    assert not overlapping(net("0.0.0.0/0"), net("::/0"))
    assert not contains([net("::/0")], addr("192.0.2.1"))

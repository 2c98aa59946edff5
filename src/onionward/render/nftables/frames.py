"""Below IP: on a routed machine only stamped packets leave an interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from onionward.render.nftables.text import Chain

if TYPE_CHECKING:
    from onionward.policy import Policy


def chains(policy: Policy) -> tuple[Chain, ...]:
    """The egress chain and what it calls; none where no interface is watched."""
    return on_devices(policy.devices, policy.stamp)


def on_devices(names: Iterable[str], stamp: int, priority: int = 0) -> tuple[Chain, ...]:
    """The same for these interfaces.

    Args:
        names: of the interfaces.
        stamp: the packet mark of what may leave.
        priority: of the hook; a higher one comes later.

    """
    devices = ", ".join(f'"{name}"' for name in names)
    if not devices:
        return ()
    return (
        Chain(
            "of_kernel_or_root",
            "",
            (
                # address resolution is the kernel's or a DHCP client's business
                "meta skuid @dhcp_accounts accept",
                "meta skuid >= 0 return",
                "accept",
            ),
        ),
        Chain(
            "egress",
            f"type filter hook egress devices = {{ {devices} }} priority {priority}; policy drop;",
            (
                f"meta mark {stamp:#x} accept",
                # ARP as long as a padded Ethernet frame, which has no room for a letter
                "meta protocol arp meta length <= 64 jump of_kernel_or_root",
                # link aggregation: the kernel's own, as long as its only message (802.1AX)
                "meta protocol 0x8809 ether daddr 01:80:c2:00:00:02 meta length <= 128 "
                "jump of_kernel_or_root",
                # 802.1X and 802.11 pre-authentication: what has no owner here is a guest's
                "meta protocol { 0x888e, 0x88c7 } meta skuid @dhcp_accounts accept",
                "ip daddr 255.255.255.255 udp sport 68 udp dport 67 "
                "meta skuid @dhcp_accounts accept",
                "counter name escaped drop",
            ),
        ),
    )

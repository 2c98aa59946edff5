"""Below IP: on a routed machine only stamped packets leave an interface."""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render.nftables.text import Chain


def chains(policy: Policy) -> tuple[Chain, ...]:
    """The egress chain and what it calls; none where no interface is watched."""
    if not policy.devices:
        return ()
    devices = ", ".join(f'"{name}"' for name in policy.devices)
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
            f"type filter hook egress devices = {{ {devices} }} priority 0; policy drop;",
            (
                f"meta mark {policy.stamp:#x} accept",
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

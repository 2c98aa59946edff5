"""nftables text of runs: two tables with the same chains, one of which nobody else can change.

    arriving    what a run may send at all: TCP and UDP 53, from its own address
    to_tor      all of it is turned to tor
    judged      what was not goes nowhere: not to this machine, and not beyond it
    forwarded   neither to nor from a run
    leaving     only tor's answers reach a run

`onionward_run` stays when the keeper of runs is killed, the other one when somebody flushes all
rules. Rules name the devices of runs by the beginning of their name, and so never change.
"""

from __future__ import annotations

from onionward.app.root.places import INTERFACE, RUNS4, RUNS6, TOR4, TOR6
from onionward.render.nftables.marks import MARK_RUN as MARK
from onionward.render.nftables.text import Chain, print_chain
from onionward.tables import RUN_LOCK_TABLE, RUN_TABLE

_OF_RUN = f'iifname "{INTERFACE}*"'
_TO_RUN = f'oifname "{INTERFACE}*"'


def render(trans_port: int, dns_port: int) -> str:
    """The table that stays, replaced in one transaction."""
    name = " ".join(RUN_TABLE)
    return f"table {name}\ndelete table {name}\n{_table(name, '', trans_port, dns_port)}"


def owned(trans_port: int, dns_port: int) -> str:
    """The table that belongs to the process that loads it."""
    return _table(" ".join(RUN_LOCK_TABLE), "\tflags owner\n", trans_port, dns_port)


def remove() -> str:
    """Text that removes the table that stays, whether or not it exists."""
    name = " ".join(RUN_TABLE)
    return f"table {name}\ndelete table {name}\n"


def _table(name: str, flags: str, trans_port: int, dns_port: int) -> str:
    chains = "\n".join(map(print_chain, _chains(trans_port, dns_port)))
    return f"table {name} {{\n{flags}{chains}\n}}\n"


def _chains(trans_port: int, dns_port: int) -> tuple[Chain, ...]:
    turned = f"ct mark set {MARK:#x}"
    return (
        Chain(
            "strangers",
            "type filter hook prerouting priority -320; policy accept;",
            (
                f"{_OF_RUN} goto arriving",
                # programs can send from addresses that are not theirs (ipv6(7), IPV6_FREEBIND)
                f"ip daddr {TOR4} ip saddr {RUNS4} drop",
                f"ip6 daddr {TOR6} ip6 saddr {RUNS6} drop",
                'iifname "lo" accept',
                # nobody outside speaks to tor here
                f"ip daddr {TOR4} drop",
                f"ip6 daddr {TOR6} drop",
            ),
        ),
        Chain(
            "arriving",
            "",
            (
                # root in a run's network may try anything
                f"ip saddr != {RUNS4} drop",
                f"ip6 saddr != {RUNS6} drop",
                "fib saddr . iif oif missing drop",
                "ip option lsrr exists drop",
                "ip option ssrr exists drop",
                "exthdr rt exists drop",
                "meta l4proto tcp accept",
                "udp dport 53 accept",
                "drop",
            ),
        ),
        Chain(
            "to_tor",
            "type nat hook prerouting priority -110; policy accept;",
            (
                f"{_OF_RUN} meta nfproto ipv4 meta l4proto tcp {turned} "
                f"dnat ip to {TOR4}:{trans_port}",
                f"{_OF_RUN} meta nfproto ipv6 meta l4proto tcp {turned} "
                f"dnat ip6 to [{TOR6}]:{trans_port}",
                f"{_OF_RUN} meta nfproto ipv4 udp dport 53 {turned} dnat ip to {TOR4}:{dns_port}",
                f"{_OF_RUN} meta nfproto ipv6 udp dport 53 {turned} "
                f"dnat ip6 to [{TOR6}]:{dns_port}",
            ),
        ),
        Chain(
            "judged",
            # after the redirection and before routing: forwarding and services are no matter
            "type filter hook prerouting priority -90; policy accept;",
            (
                f"{_OF_RUN} ct mark {MARK:#x} ct status dnat ip daddr {TOR4} "
                f"tcp dport {trans_port} accept",
                f"{_OF_RUN} ct mark {MARK:#x} ct status dnat ip6 daddr {TOR6} "
                f"tcp dport {trans_port} accept",
                f"{_OF_RUN} ct mark {MARK:#x} ct status dnat ip daddr {TOR4} "
                f"udp dport {dns_port} accept",
                f"{_OF_RUN} ct mark {MARK:#x} ct status dnat ip6 daddr {TOR6} "
                f"udp dport {dns_port} accept",
                f"{_OF_RUN} drop",
            ),
        ),
        Chain(
            "forwarded",
            "type filter hook forward priority -10; policy accept;",
            (f"{_OF_RUN} drop", f"{_TO_RUN} drop"),
        ),
        Chain(
            "leaving",
            "type filter hook postrouting priority 340; policy accept;",
            (
                f"{_TO_RUN} ct mark {MARK:#x} ct direction reply ct status dnat accept",
                f"{_TO_RUN} drop",
                # what tor answers once a run's device is gone, or connection tracking forgot
                'oifname "lo" accept',
                f"ct mark {MARK:#x} drop",
                f"ip saddr {TOR4} drop",
                f"ip6 saddr {TOR6} drop",
            ),
        ),
    )

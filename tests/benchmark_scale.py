"""How the rules scale: connections per second through the redirection, and `up` to blocked.

    python tests/benchmark_scale.py [ROUNDS]

Namespaces of the benchmark's own hold the rules, rendered from policies as `up` renders them; a
stand-in listens where tor would, so that tor's own speed hides nothing. Rulesets are compared in
turns, and the ratio is the median of the rounds: what else the machine does weighs on both.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from onionward.accounts import User
from onionward.facts import Account, Link
from onionward.networks import Network
from onionward.policy import RELAY4, Policy
from onionward.render import nftables
from tests.kernel import namespaces
from tests.support import FACTS, addr, net, policy

CONNECTIONS = 1500
TARGET = "203.0.113.1"
_CONNECT = Path(__file__).with_name("benchmark_connect.py")
_USER = 20500
_CLIENTS = tuple(f"198.18.8.{n}" for n in range(2, 256))

UPLINK = Link("up0", (addr("198.18.0.2"),), (net("198.18.0.0/24"),), is_uplink=True)
LAN = Link("lan0", (addr("198.18.8.1"),), (net("198.18.8.0/23"),))


class Site:
    """A machine with an uplink and a LAN, in namespaces; `close` removes it."""

    def __init__(self) -> None:
        self._closers = contextlib.ExitStack()
        self.machine, self.clients = namespaces.create(), namespaces.create()
        for namespace in (self.machine, self.clients):
            self._closers.callback(os.close, namespace)
        self._run(
            self.machine,
            f"""
            ip link set lo up
            ip link add up0 type veth peer name far0
            ip link set up0 arp off up; ip link set far0 up
            ip address add 198.18.0.2/24 dev up0
            ip route add default via 198.18.0.1
            ip link add lan0 type veth peer name eth0 netns {namespaces.path(self.clients)}
            ip address add 198.18.8.1/23 dev lan0; ip link set lan0 up
            ip address add {RELAY4}/32 dev lo
            """,
        )
        addresses = "".join(f"ip address add {a}/23 dev eth0;" for a in _CLIENTS)
        self._run(
            self.clients,
            f"ip link set lo up; ip link set eth0 up; {addresses}"
            "ip route add default via 198.18.8.1",
        )
        self._listen()

    def close(self) -> None:
        """Remove it."""
        self._closers.close()

    def load(self, rules: Policy) -> None:
        """Put rules in force, in one transaction."""
        self.load_text(nftables.route(rules).text)

    def load_text(self, text: str) -> None:
        """Put a ruleset in force."""
        self._run(self.machine, "nft -f -", text)
        self._run(self.machine, "conntrack -F 2>/dev/null")

    def rate(self, *, lan: int = 0) -> float:
        """Connections per second: of an account, or of so many clients of the LAN in turns."""
        namespace = self.clients if lan else self.machine
        sources = [*_CLIENTS[:lan]] or ["any"]
        argv = [
            sys.executable,
            "-I",
            "-S",
            str(_CONNECT),
            str(CONNECTIONS),
            str(_USER),
            TARGET,
            *sources,
        ]
        done = subprocess.run(
            ["nsenter", f"--net={namespaces.path(namespace)}", *argv],
            capture_output=True,
            text=True,
            check=True,
        )
        return CONNECTIONS / float(done.stdout)

    def _listen(self) -> None:
        def listener(address: str) -> socket.socket:
            made = socket.create_server((address, 940), backlog=4096)
            self._closers.callback(made.close)
            return made

        for address in ("127.0.0.1", str(RELAY4)):
            made = namespaces.inside(self.machine, partial(listener, address))
            # a listener accepts without anybody's help; what is not taken must not pile up
            threading.Thread(target=_take, args=(made,), daemon=True).start()

    def _run(self, namespace: int, script: str, stdin: str = "") -> None:
        argv = ["nsenter", f"--net={namespaces.path(namespace)}", "sh", "-euc", script]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)


def _take(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def host(networks: int = 0) -> Policy:
    """A routed host with so many bypassed networks."""
    return policy("", replace(FACTS, links=(UPLINK,)), tor_cgroup=None, bypass=bypassed(networks))


def bypassed(count: int) -> tuple[Network, ...]:
    """Networks that cannot be merged."""
    first = int(ipaddress.ip_address("10.0.0.0"))
    return tuple(ipaddress.IPv4Network((first + 8 * n, 30)) for n in range(count))


def users(count: int) -> Policy:
    """A host with so many routed accounts, one of which is that of the connections."""
    ids = range(_USER, _USER + count)
    accounts = tuple(
        User(Account(f"u{uid}", uid, uid, Path("/nonexistent")), frozenset({uid})) for uid in ids
    )
    text = "\n".join(f"[[user]]\nname = 'u{uid}'" for uid in ids)
    return policy(text, replace(FACTS, links=(UPLINK,), users=accounts), tor_cgroup=None)


def gateway() -> Policy:
    """A gateway."""
    text = "[[lan]]\ninterface = 'lan0'"
    return policy(text, replace(FACTS, links=(UPLINK, LAN)), tor_cgroup=None)


def in_turns(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> float:
    """The median of other/one."""
    return statistics.median(_ratio(one, other, n) for n in range(rounds))


def _ratio(one: Callable[[], float], other: Callable[[], float], number: int) -> float:
    if number % 2:
        second = other()
        return second / one()
    first = one()
    return other() / first


def rate_with(site: Site, rules: Policy | str, **sender: int) -> Callable[[], float]:
    """Measures the rate with these rules in force."""

    def measure() -> float:
        if isinstance(rules, str):
            site.load_text(rules)
        else:
            site.load(rules)
        return site.rate(**sender)

    return measure


def one_by_one(count: int) -> str:
    """The rules of a routed host that compare so many bypassed networks in turns, without a set."""
    lines = []
    for line in nftables.route(host()).text.splitlines():
        if "ip daddr @bypass4 " in line:
            lines += [line.replace("@bypass4", str(network)) for network in bypassed(count)]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def rows(site: Site, rounds: int) -> Iterator[tuple[str, str, float]]:
    """What is compared with what, and the ratio of their rates."""

    with_rules = partial(rate_with, site)
    empty = with_rules(host())
    for count in (1_000, 10_000, 100_000):
        ratio = in_turns(rounds, empty, with_rules(host(count)))
        yield f"{count:,} bypassed networks", "none", ratio
    yield "1,000 accounts", "1", in_turns(rounds, with_rules(users(1)), with_rules(users(1_000)))
    rules = gateway()
    yield (
        "254 clients of a LAN",
        "1",
        in_turns(rounds, with_rules(rules, lan=1), with_rules(rules, lan=254)),
    )


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    site = Site()
    try:
        site.load(host())
        sys.stdout.write(f"connections per second through the redirection: {site.rate():.0f}\n")
        sys.stdout.write(f"{'':26}{'against':>9}{'ratio':>8}   (median of {rounds})\n")
        for what, against, ratio in rows(site, rounds):
            sys.stdout.write(f"{what:26}{against:>9}{ratio:8.3f}\n")
            sys.stdout.flush()
    finally:
        site.close()


if __name__ == "__main__":
    main()

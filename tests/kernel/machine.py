"""A machine in a namespace, with far ends in others: rules are loaded, packets sent and watched.

    namespace of the machine                          namespaces of the far ends
    senders ─► rules ─► up0 ─────────────────────────► far0 ─► Tap
                 │      lan0, lan1 ◄──────────────────► far1, far2 ─► Tap
                 │                                        └── senders of the clients' frames
                 └────► lo ─► Tap, StandIn (TransPort, DNSPort), Services

The devices ask nobody for addresses of neighbours (NOARP), so that every packet goes out at once.
The far ends have no addresses and answer nothing by themselves. Fences, frames that are sent after
the packets from the same processor, tell when all that was to arrive has.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from onionward.facts import cgroup_mount
from onionward.policy import ControlGroup
from onionward.system import System
from tests.kernel import namespaces
from tests.kernel.batch import Batch, Replies
from tests.kernel.cases import Case
from tests.kernel.frames import Frame, Tap
from tests.kernel.policies import ACCOUNTS, DEVICES, GATEWAYS, GROUP, UPLINK, Account
from tests.kernel.sender import FENCE_PROTOCOL
from tests.kernel.servers import Services, StandIn

# how long a refused program may have to wait until it knows
TOLD_SECONDS = 0.3
_FENCE_SECONDS = 30.0
_SENDER = Path(__file__).with_name("sender.py")


class Sender:
    """A process that sends as an account (sender.py)."""

    def __init__(
        self, namespace: int, account: Account, processor: int, group: Path, role: str
    ) -> None:
        enter = ("nsenter", f"--net={namespaces.path(namespace)}", sys.executable, "-I", "-S")
        self._process = subprocess.Popen(
            [*enter, str(_SENDER), str(account.uid), str(processor), role, str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def reply(self) -> Replies:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"a sender ended with status {self._process.wait(5)}; see standard error"
        replies: Replies = json.loads(line)
        return replies

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


class Machine:
    """Everything above, for as long as the tests run; `close` removes it."""

    def __init__(self, trans_port: int, dns_port: int, loader: str = "nft -f -") -> None:
        self._loader = loader
        self._system = System()
        self._closers = contextlib.ExitStack()
        self._numbers = itertools.count(1)
        self._set_up: dict[str, frozenset[str]] = {}
        self._senders: dict[str, Sender] = {}
        self._wires: dict[str, Tap] = {}
        try:
            self._build(trans_port, dns_port)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._closers.close()

    def _build(self, trans_port: int, dns_port: int) -> None:
        mount = cgroup_mount(Path("/proc/self/mountinfo").read_text())
        assert mount is not None, "control groups (version 2) are not mounted below /sys/fs/cgroup"
        group = mount / f"{GROUP.name}-{os.getpid()}-{id(self)}"
        self._group = ControlGroup(str(group.relative_to("/sys/fs/cgroup")), 1)
        group.mkdir()
        self._closers.callback(_remove_group, group)
        self._here = self._namespace()
        # everybody is to be told at once, however many there are (icmp(7))
        self._run(
            """
            ip link set lo up
            echo 0 > /proc/sys/net/ipv4/icmp_ratemask
            echo > /proc/sys/net/ipv6/icmp/ratemask
            """
        )
        far = {device.name: self._namespace() for device in DEVICES}
        for device in DEVICES:
            first = " ".join(f"ip address add {i} dev {device.name} nodad;" for i in device.first)
            self._run(
                f"""
                ip link add {device.name} address {device.hardware} type veth \
                    peer name far0 netns {namespaces.path(far[device.name])}
                nsenter --net={namespaces.path(far[device.name])} sh -euc '
                    echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
                    ip link set far0 arp off up'
                ip link set {device.name} arp off up
                {first}
                """
            )
            shown = self._run(f"ip -6 address show dev {device.name}")
            assert str(device.link_local) in shown
        self._run(
            f"""
            ip route add default via {GATEWAYS[0]} dev {UPLINK}
            ip -6 route add default via {GATEWAYS[1]} dev {UPLINK}
            """
        )
        links = json.loads(self._run("ip -j link show"))
        self._devices = {link["ifname"]: link["ifindex"] for link in links}
        for name, namespace in far.items():
            self._wires[name] = namespaces.inside(namespace, lambda: Tap("far0"))
            self._closers.callback(self._wires[name].close)
        self._loopback = namespaces.inside(self._here, lambda: Tap("lo"))
        self._tor = namespaces.inside(self._here, lambda: StandIn(trans_port, dns_port))
        indices = {device.name: self._devices[device.name] for device in DEVICES}
        self._services = namespaces.inside(self._here, lambda: Services(indices))
        for each in (self._loopback, self._tor, self._services):
            self._closers.callback(each.close)
        self._start_senders(far, group)

    def _namespace(self) -> int:
        made = namespaces.create()
        self._closers.callback(os.close, made)
        return made

    def _start_senders(self, far: dict[str, int], group: Path) -> None:
        # all on one processor, so that packets keep their order: each has a queue of its own
        processor = min(os.sched_getaffinity(0))
        for name, account in ACCOUNTS.items():
            role = "member" if account.in_group else "keeper" if account.uid == 0 else "stranger"
            self._senders[name] = Sender(self._here, account, processor, group, role)
        for name, namespace in far.items():
            self._senders[name] = Sender(namespace, Account(0), processor, group, "client")
        for sender in self._senders.values():
            self._closers.callback(sender.close)

    def _run(self, script: str, stdin: str = "") -> str:
        prefix = ["nsenter", f"--net={namespaces.path(self._here)}", "sh", "-euc"]
        return self._system.query([*prefix, script], stdin=stdin, timeout=60)

    def try_out(self, case: Case, rules: str, hoped: Sequence[Collection[str]]) -> Batch:
        """Load rules, send the packets of a case and see what becomes of them.

        Args:
            case: what to send, and on which machine.
            rules: for nft.
            hoped: outcomes of each packet that need not be waited for any longer.

        """
        self._load(case, rules)
        batch = Batch(case, self._devices, self._numbers)
        self._fence(case, lambda _device, _frame: None)  # what came before is of no interest
        for sender, packets in batch.orders.items():
            what = "frames" if sender in self._wires else "send"
            self._senders[sender].ask(do=what, packets=packets, device="far0")
        for sender in batch.orders:
            batch.heard(sender, self._senders[sender].reply())
        self._fence(case, batch.saw_far)
        deadline = time.monotonic() + TOLD_SECONDS
        while True:
            self._look(batch)
            pairs = zip(batch.outcomes(), hoped, strict=True)
            if all(happened in good for happened, good in pairs) or time.monotonic() > deadline:
                break
            time.sleep(0.002)
        self._each(batch, "close")
        return batch

    def _look(self, batch: Batch) -> None:
        for name, wire in self._wires.items():
            for frame in wire.arrived():
                batch.saw_far(name, frame)
        for frame in self._loopback.arrived():
            batch.saw_near(frame)
        for name, data in batch.replies():
            self._senders[name].ask(do="frames", packets=[{"frame": data.hex()}], device="far0")
            self._senders[name].reply()
        batch.saw_servers(self._tor, self._services)
        self._each(batch, "look")

    def _each(self, batch: Batch, what: str) -> None:
        programs = [name for name in batch.orders if name not in self._wires]
        for account in programs:
            self._senders[account].ask(do=what)
        for account in programs:
            replies = self._senders[account].reply()
            if replies:
                batch.heard(account, replies)

    def _load(self, case: Case, rules: str) -> None:
        policy = case.policy
        if policy.tor_cgroup is not None:
            rules = rules.replace(f'"{policy.tor_cgroup.name}"', f'"{self._group.name}"').replace(
                f"cgroupv2 level {policy.tor_cgroup.level} ",
                f"cgroupv2 level {self._group.level} ",
            )
            path = "/".join(self._group.name.split("/")[-self._group.level :])
            rules = rules.replace(f"--path {policy.tor_cgroup.name}", f"--path {path}")
        kernel = {
            "ipv4/ip_forward": case.forwarding[0],
            "ipv6/conf/all/forwarding": case.forwarding[1],
            "ipv6/conf/lo/disable_ipv6": not policy.ipv6,
        }
        script = [f"echo {int(on)} > /proc/sys/net/{name}" for name, on in kernel.items()]
        script += self._changes("addresses", _addresses(case), "ip address {} {}")
        if not policy.ipv6:  # what loopback has of it goes with it
            for what in ("routes", "places"):
                left = self._set_up.get(what, frozenset())
                self._set_up[what] = frozenset(each for each in left if ":" not in each)
        routes = frozenset(f"local {n} dev lo table local" for n in policy.local_routes)
        script += self._changes("routes", routes, "ip route {} {}")
        places = frozenset(f"{a} dev lo scope host" for a in policy.local_addresses)
        script += self._changes("places", places, "ip address {} {}")
        self._run("\n".join([*script, self._loader, "conntrack -F 2>&1"]), stdin=rules)

    def _changes(self, what: str, wanted: frozenset[str], command: str) -> list[str]:
        """Commands that put these in the place of what an earlier case has left."""
        left = self._set_up.get(what, frozenset())
        self._set_up[what] = wanted
        return [
            *(command.format("del", each) for each in sorted(left - wanted)),
            *(command.format("add", each) for each in sorted(wanted - left)),
        ]

    def _fence(self, case: Case, saw: Callable[[str, Frame], None]) -> None:
        """Wait for all that was sent before to arrive at the far ends."""
        token = f"fence{next(self._numbers)}"
        for name in self._wires:
            self._senders["root"].ask(do="fence", device=name, mark=case.policy.stamp, token=token)
            self._senders["root"].reply()
        deadline = time.monotonic() + _FENCE_SECONDS
        waiting = set(self._wires)
        while waiting:
            for name in sorted(waiting):
                for frame in self._wires[name].arrived():
                    if frame.protocol != FENCE_PROTOCOL:
                        saw(name, frame)
                    elif frame.payload.startswith(token.encode()):
                        waiting.discard(name)
            assert time.monotonic() < deadline, f"the far end of {waiting} does not see the fence"
            if waiting:
                time.sleep(0.001)


def _addresses(case: Case) -> frozenset[str]:
    """Addresses besides those that the devices always have, as `ip address` takes them."""
    always = {str(i) for device in DEVICES for i in device.first}
    wanted = set()
    for link in case.links:
        for address, network in zip(link.addresses, link.networks, strict=True):
            if not address.is_link_local or address.version == 4:
                wanted.add((f"{address}/{network.prefixlen}", link.name))
    return frozenset(f"{a} dev {name}" for a, name in wanted if a not in always)


def _remove_group(group: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # the sender of root has done it already
        group.rmdir()

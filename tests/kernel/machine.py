"""A machine in a namespace, with a far end in another: rules are loaded, packets sent and watched.

    namespace of the machine                         namespace of the far end
    senders ─► rules ─► up0 ────────────────────────► far0 ─► Tap
                 └────► lo ─► Tap, StandIn (TransPort, DNSPort)

The device asks nobody for addresses of neighbours (NOARP), so that every packet goes out at once.
The far end has no addresses and answers nothing. A fence, a frame that is sent after the packets
from the same processor, tells when all that was to arrive has.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from onionward.facts import cgroup_mount
from onionward.policy import ControlGroup
from onionward.system import System
from tests.kernel import namespaces
from tests.kernel.cases import (
    ACCOUNTS,
    DEVICE,
    FIRST,
    GATEWAYS,
    GROUP,
    HARDWARE_ADDRESS,
    LINK_LOCAL,
    Account,
    Case,
    Send,
)
from tests.kernel.fates import Fate, outcome
from tests.kernel.frames import TCP, Frame, StandIn, Tap
from tests.kernel.sender import FENCE_PROTOCOL

# how long a refused program may have to wait until it knows
TOLD_SECONDS = 0.3
_FENCE_SECONDS = 30.0
_SENDER = Path(__file__).with_name("sender.py")


class Sender:
    """A process that sends as an account (sender.py)."""

    def __init__(self, namespace: int, account: Account, processor: int, group: Path) -> None:
        role = "member" if account.in_group else "keeper" if account.uid == 0 else "stranger"
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

    def reply(self) -> list[tuple[str | None, list[Any] | None]]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"a sender ended with status {self._process.wait(5)}; see standard error"
        replies: list[tuple[str | None, list[Any] | None]] = json.loads(line)
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


class Batch:
    """The packets of a case on their way: who sent which, and by what each is known again."""

    def __init__(self, case: Case, device: int, numbers: Iterator[int]) -> None:
        self.case = case
        self.fates = [Fate() for _ in case.sends]
        self.strays: list[Frame] = []
        self.orders: dict[str, list[dict[str, Any]]] = {}
        self._owners: dict[str, list[Fate]] = {}
        self._tokens: dict[str, Fate] = {}
        self._streams: dict[int, Fate] = {}
        for send, fate in zip(case.sends, self.fates, strict=True):
            number = next(numbers)
            order = _order(send, number, device)
            self.orders.setdefault(send.account, []).append(order)
            self._owners.setdefault(send.account, []).append(fate)
            self._tokens[order["token"]] = fate
            if send.packet.protocol == "tcp" and not send.raw:
                self._streams[order["source_port"]] = fate

    def _fate(self, frame: Frame) -> Fate | None:
        if frame.token is not None:
            return self._tokens.get(frame.token)
        if frame.protocol == TCP and frame.source_port is not None:
            return self._streams.get(frame.source_port)
        return None

    def saw_far(self, frame: Frame) -> None:
        fate = None if frame.is_answer else self._fate(frame)
        if fate is None:
            self.strays.append(frame)
        else:
            fate.far.append(frame)

    def saw_near(self, frame: Frame) -> None:
        fate = None if frame.is_answer else self._fate(frame)
        if fate is not None:
            fate.near.append(frame)

    def saw_stand_in(self, tor: StandIn) -> None:
        for source_port, to, port in tor.connected():
            if source_port in self._streams:
                self._streams[source_port].connected = (to, port)
        for token in tor.asked():
            if token in self._tokens:
                self._tokens[token].asked = True

    def heard(self, account: str, replies: list[tuple[str | None, list[Any] | None]]) -> None:
        for fate, (told, answer) in zip(self._owners[account], replies, strict=True):
            fate.told = told
            fate.answer = None if answer is None else (ipaddress.ip_address(answer[0]), answer[1])

    def outcomes(self) -> list[str]:
        """What became of each packet, in words."""
        pairs = zip(self.case.sends, self.fates, strict=True)
        return [outcome(self.case, send, fate) for send, fate in pairs]


def _order(send: Send, number: int, device: int) -> dict[str, Any]:
    packet = send.packet
    is_icmp = send.kind_is_icmp
    needs_device = packet.destination.is_link_local or packet.destination.is_multicast
    source_port = packet.source_port
    return {
        "to": str(packet.destination),
        "protocol": send.number,
        "port": packet.port,
        "source": None if packet.source is None else str(packet.source),
        "source_port": 20000 + number % 40000 if source_port is None else source_port,
        "raw": send.raw and packet.protocol != "udp",
        "flags": send.kind,
        "icmp_type": send.kind if is_icmp else None,
        "device": device if needs_device else 0,
        "token": f"onionward?{number:08x}",
    }


class Machine:
    """Everything above, for as long as the tests run; `close` removes it."""

    def __init__(self, trans_port: int, dns_port: int) -> None:
        self._system = System()
        self._closers = contextlib.ExitStack()
        self._numbers = itertools.count(1)
        self._addresses: set[str] = set()
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
        group = mount / f"{GROUP.name}-{os.getpid()}"
        self._group = ControlGroup(str(group.relative_to("/sys/fs/cgroup")), 1)
        group.mkdir()
        self._closers.callback(_remove_group, group)
        self._here, far = namespaces.create(), namespaces.create()
        for namespace in (self._here, far):
            self._closers.callback(os.close, namespace)
        first = " ".join(f"ip address add {i} dev {DEVICE} nodad;" for i in FIRST)
        self._run(
            f"""
            ip link set lo up
            ip link add {DEVICE} address {HARDWARE_ADDRESS} type veth \
                peer name far0 netns {namespaces.path(far)}
            nsenter --net={namespaces.path(far)} sh -euc '
                echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
                ip link set far0 arp off up'
            ip link set {DEVICE} arp off up
            {first}
            ip route add default via {GATEWAYS[0]} dev {DEVICE}
            ip -6 route add default via {GATEWAYS[1]} dev {DEVICE}
            """
        )
        assert str(LINK_LOCAL) in self._run(f"ip -6 address show dev {DEVICE}")
        self._device = json.loads(self._run(f"ip -j link show {DEVICE}"))[0]["ifindex"]
        self._wire = namespaces.inside(far, lambda: Tap("far0"))
        self._loopback = namespaces.inside(self._here, lambda: Tap("lo"))
        self._tor = namespaces.inside(self._here, lambda: StandIn(trans_port, dns_port))
        for each in (self._wire, self._loopback, self._tor):
            self._closers.callback(each.close)
        processor = min(os.sched_getaffinity(0))
        self._senders: dict[str, Sender] = {}
        for name, account in ACCOUNTS.items():
            self._senders[name] = Sender(self._here, account, processor, group)
            self._closers.callback(self._senders[name].close)

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
        batch = Batch(case, self._device, self._numbers)
        self._fence(case, lambda _: None)  # what came before is of no interest
        for account, packets in batch.orders.items():
            self._senders[account].ask(do="send", packets=packets)
        for account in batch.orders:
            batch.heard(account, self._senders[account].reply())
        self._fence(case, batch.saw_far)
        deadline = time.monotonic() + TOLD_SECONDS
        while True:
            for frame in self._loopback.arrived():
                batch.saw_near(frame)
            batch.saw_stand_in(self._tor)
            self._each(batch, "look")
            pairs = zip(batch.outcomes(), hoped, strict=True)
            if all(happened in good for happened, good in pairs) or time.monotonic() > deadline:
                break
            time.sleep(0.002)
        self._each(batch, "close")
        return batch

    def _each(self, batch: Batch, what: str) -> None:
        for account in batch.orders:
            self._senders[account].ask(do=what)
        for account in batch.orders:
            replies = self._senders[account].reply()
            if replies:
                batch.heard(account, replies)

    def _load(self, case: Case, rules: str) -> None:
        link, policy = case.link, case.policy
        pairs = zip(link.addresses, link.networks, strict=True)
        wanted = {f"{a}/{n.prefixlen}" for a, n in pairs} - {str(i) for i in FIRST}
        wanted.discard(f"{LINK_LOCAL}/64")
        local = f"ip -6 route replace local {policy.virtual6} dev lo table local"
        script = [
            f"echo {0 if policy.ipv6 else 1} > /proc/sys/net/ipv6/conf/lo/disable_ipv6",
            "ip -6 route flush type local dev lo table local proto boot",
            *(f"ip address del {a} dev {DEVICE}" for a in sorted(self._addresses - wanted)),
            *(f"ip address add {a} dev {DEVICE} nodad" for a in sorted(wanted - self._addresses)),
            *([local] if policy.ipv6 else []),
            "nft -f -",
            "conntrack -F 2>&1",
        ]
        if policy.tor_cgroup is not None:
            rules = rules.replace(f'"{policy.tor_cgroup.name}"', f'"{self._group.name}"').replace(
                f"cgroupv2 level {policy.tor_cgroup.level} ",
                f"cgroupv2 level {self._group.level} ",
            )
        self._run("\n".join(script), stdin=rules)
        self._addresses = wanted

    def _fence(self, case: Case, saw: Callable[[Frame], None]) -> None:
        """Wait for all that was sent before to arrive at the far end."""
        token = f"fence{next(self._numbers)}"
        self._senders["root"].ask(do="fence", device=DEVICE, mark=case.policy.stamp, token=token)
        self._senders["root"].reply()
        deadline = time.monotonic() + _FENCE_SECONDS
        while True:
            for frame in self._wire.arrived():
                if frame.protocol != FENCE_PROTOCOL:
                    saw(frame)
                elif frame.payload.startswith(token.encode()):
                    return
            assert time.monotonic() < deadline, "the far end does not see the fence"
            time.sleep(0.001)


def _remove_group(group: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # the sender of root has done it already
        group.rmdir()

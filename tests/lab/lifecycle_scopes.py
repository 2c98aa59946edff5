"""The lab's gateway with senders of every scope, and what a witness sees of each of them.

    client1 (LAN)   alice  bob  carol  root      each sends from ports of its own
          └── eth1 gateway eth0 ──┴── witness

The gateway forwards, as somebody else has told it to: what the rules do not stop leaves.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from onionward.lab import Lab
from onionward.paths import PATHS
from tests.lab.lifecycle_effects import REMOVED, reached, run_logged
from tests.lab.lifecycle_machine import BACKEND, Machine, difference, open_machine, until
from tests.lab.lifecycle_talker import PORTS
from tests.lab.lifecycle_wire import Packet, Wire
from tests.report import Fault

LAN = '[[lan]]\ninterface = "eth1"\n'
DHCP = f'{LAN}dhcp = true\ndhcp_range = ["198.18.8.100", "198.18.8.199"]\n'
ALICE = '[[user]]\nname = "alice"\n'
BOB = '[[user]]\nname = "bob"\naccept = ["subordinate"]\n'
CONTROL = "control = true\n"
NEVER_ROUTED = "carol"
CAROL_DIRECT = '[[user]]\nname = "carol"\nroute = "direct"\n'
ONION = "onion = true\n"

SENDERS = {
    name: 6000 + PORTS * number
    for number, name in enumerate(("root", "alice", "bob", "carol", "client1"))
}


@dataclass(frozen=True)
class Scope:
    """A configuration.

    Attributes:
        name: for messages.
        text: as the file has it.
        routed: of the senders, those whose packets go through Tor.
        scopes: how the lines begin by which `status` tells of it.
        clients: what `status` says of those behind eth1 and br0.

    """

    name: str
    text: str
    routed: frozenset[str]
    scopes: tuple[str, ...]
    clients: Mapping[str, str]


def _scope(name: str, text: str, routed: str, scopes: Sequence[str], **clients: str) -> Scope:
    return Scope(name, text, frozenset(routed.split()), tuple(scopes), clients)


LAN_ONLY = _scope("lan", DHCP, "client1", ["lan: "], br0="untouched", eth1="routed")
USER_ONLY = _scope("user", ALICE + CONTROL, "alice", ["user: alice"], br0="untouched")
ONION_ONLY = _scope("onion", ONION, "", ["onion: "], br0="untouched")
MIXED = _scope(
    "onion, lan, users",
    ONION + LAN + ALICE + BOB + CONTROL,
    "client1 alice bob",
    ["onion: ", "lan: ", "user: alice", "user: bob"],
    br0="untouched",
    eth1="routed",
)
ALL = _scope(
    "host, lan, users",
    "[host]\n" + DHCP + ALICE + CONTROL + BOB + CAROL_DIRECT,
    "root alice bob client1",
    ["host: ", "lan: ", "user: alice", "user: bob", "IN CLEAR: user carol"],
    br0="blocked",
    eth1="routed",
)
WITHOUT_HOST = Scope(
    "onion, lan, users",
    ONION + DHCP + ALICE + BOB + CONTROL,
    frozenset({"client1", "alice", "bob"}),
    (),
    {},
)
SCOPES = (LAN_ONLY, USER_ONLY, ONION_ONLY, MIXED, ALL)


@dataclass(frozen=True)
class Heard:
    """What has come over the connections that a sender holds open, one after the other."""

    opened: int
    received: int


class Senders:
    """Everybody who sends, all the time."""

    def __init__(self, machine: Machine, names: Sequence[str]) -> None:
        lab = machine.lab
        self._talkers: dict[str, subprocess.Popen[str]] = {}
        for name in names:
            argv = ("lifecycle_talker.py", str(SENDERS[name]), lab.web4, lab.web6, lab.dns4)
            on = name if name in lab.hosts else ""
            user = None if name in ("root", *lab.hosts) else name
            self._talkers[name] = machine.script(*argv, on=on, user=user)
        self.wait_until_all_hear()

    def heard(self, name: str) -> Heard:
        """How it is for one of them until now."""
        talker = self._talkers[name]
        assert talker.stdin is not None
        assert talker.stdout is not None
        talker.stdin.write("\n")
        return Heard(*map(int, talker.stdout.readline().split()))

    def all_heard(self) -> dict[str, Heard]:
        """How it is for each of them until now."""
        return {name: self.heard(name) for name in self._talkers}

    def wait_until_all_hear(self) -> None:
        """Wait until something more has come for everybody."""
        for name, before in self.all_heard().items():

            def more(name: str = name, before: Heard = before) -> bool:
                return self.heard(name).received > before.received

            until(f"{name} hears", more, 30)

    def close(self) -> None:
        """End them."""
        for talker in self._talkers.values():
            assert talker.stdin is not None
            talker.stdin.close()
            talker.wait(10)


_ENDS = re.compile(r"[\da-f.:]+\.(\d+) > ([\da-f.:]+)\.(\d+): (.*)")


@dataclass(frozen=True)
class Sent:
    """A packet of a sender, in clear."""

    packet: Packet
    sender: str
    flow: tuple[int, str, int]
    opens: bool


def sent(packets: Sequence[Packet]) -> list[Sent]:
    """Those packets that are a sender's.

    Left out is what everybody answers who has no such connection: to servers that have not heard
    that one of long ago was cut.
    """
    found = []
    for packet in packets:
        ends = _ENDS.search(packet.words)
        if ends is None or "Flags [R]," in packet.words:
            continue
        port, address, target, words = int(ends[1]), ends[2], int(ends[3]), ends[4]
        sender = next((n for n, p in SENDERS.items() if p <= port < p + PORTS), "")
        if sender:
            opens = "Flags [S]" in words or "Flags" not in words
            found.append(Sent(packet, sender, (port, address, target), opens))
    return found


def tails(packets: Sequence[Packet]) -> list[Sent]:
    """What was sent of connections that had not begun in clear, by who is ever routed."""
    begun, found = set(), []
    for each in sent(packets):
        if each.opens:
            begun.add(each.flow)
        elif each.flow not in begun and each.sender != NEVER_ROUTED:
            found.append(each)
    return found


@dataclass(frozen=True)
class Stage:
    """The gateway, everybody who sends, and the witness."""

    machine: Machine
    wire: Wire
    senders: Senders

    def leaks(self, names: frozenset[str], since: float, before: float) -> list[Sent]:
        """What has left in clear of these senders in a span of time."""
        return [s for s in sent(self.wire.packets(since, before)) if s.sender in names]

    def tails(self) -> list[Sent]:
        """What has left in clear of connections that had not begun in clear."""
        return tails(self.wire.packets())

    def down(self) -> float:
        """Everything back; returns when the rules were about to go, or now if they were gone."""
        effects = run_logged(self.machine, "down")
        return reached(effects, REMOVED) or (effects[0].time if effects else time.time())

    def works(self, fresh: dict[str, Any]) -> None:
        """`up` after a fault leaves what it leaves without one."""
        self.machine.up()
        report = self.machine.status()
        assert (report["state"], report["problems"]) == ("routed", [])
        found = difference(fresh, essence(self.machine))
        assert found == "", found

    def restored(self, scope: Scope, before: dict[str, Any], fault: Fault) -> None:
        """The machine is off, exactly as it was, and who was routed speaks in clear again."""
        fault.restored(difference(before, self.machine.snapshot()))
        since = time.time()

        def seen() -> bool:
            return scope.routed <= {s.sender for s in sent(self.wire.packets(since))}

        until("everybody speaks in clear again", seen)
        fault.saw(self.tails())

    def assert_silent(self, names: frozenset[str], since: float, before: float) -> None:
        """Nothing of these senders has left in clear in a span of time."""
        leaks = self.leaks(names, since, before)
        shown = "\n".join(f"{s.packet.time:.6f} {s.sender}: {s.packet.words}" for s in leaks[:20])
        assert not leaks, f"{len(leaks)} packets in clear since {since:.6f}:\n{shown}"

    def assert_no_tails(self, said: str = "") -> None:
        """Nothing has left in clear of a connection that had not begun in clear."""
        late = self.tails()
        shown = "\n".join(f"{s.packet.time:.6f} {s.sender}: {s.packet.words}" for s in late[:20])
        assert not late, f"{len(late)} packets of connections through Tor:\n{shown}\n{said}"


@contextmanager
def furnished_gateway(lab: Lab) -> Iterator[Machine]:
    """The gateway with a service that acts for others, and tor's account."""
    with open_machine(lab, "gateway") as machine:
        machine.output("mkdir", "/run/nscd")
        machine.output("python3", "-c", _LISTEN, "/run/nscd/socket")
        try:
            if machine.run("id", "onionward-tor").returncode:
                machine.up()
                machine.down()
            yield machine
        finally:
            machine.output("rm", "-r", "/run/nscd")


# nobody listens there, which is no matter to what closes it
_LISTEN = """
import os, socket, sys
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
"""


@contextmanager
def forwarding(machine: Machine, *, masquerade: bool = False) -> Iterator[None]:
    """Somebody else has made the machine a router."""
    switches = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
    machine.output("sysctl", "-q", "-w", *(f"{name}=1" for name in switches))
    if masquerade:
        chain = "{ type nat hook postrouting priority srcnat; }"
        machine.output("nft", "add", "table", "inet", "theirs")
        machine.output("nft", "add", "chain", "inet", "theirs", "out", chain)
        rule = ("oifname", "eth0", "meta", "mark", "!=", "1", "masquerade")
        machine.output("nft", "add", "rule", "inet", "theirs", "out", *rule)
    try:
        yield
    finally:
        if masquerade:
            machine.output("nft", "delete", "table", "inet", "theirs")
        machine.output("sysctl", "-q", "-w", *(f"{name}=0" for name in switches))


@contextmanager
def stage(lab: Lab, names: Sequence[str] = tuple(SENDERS)) -> Iterator[Stage]:
    """Everybody sends in clear, and the witness sees it."""
    with furnished_gateway(lab) as machine, forwarding(machine), Wire(machine) as wire:
        senders = Senders(machine, names)
        since = time.time()

        def seen() -> bool:
            return {s.sender for s in sent(wire.packets(since))} == set(names)

        until("the witness sees everybody", seen)
        try:
            yield Stage(machine, wire, senders)
        finally:
            senders.close()


# what is there with a content of its own each time
_VOLATILE = re.compile(
    r"/run/onionward/(lock|lock\.json|rules\.nft|guard\.json|(?:limits|relays)\.json|.*log|.*pid|control/.*|tor/.*)"
    r"|.*/journal.json"
)
_FLOWS = re.compile(
    r"(set (?:(?:kept|user_flows|client_flows|client_closing|asked_tor|asked_others)\d"
    r"|\w+_(?:by|from\d)) \{[^}]*?)"
    r"\s*elements = \{[^}]*\}"
)
# chains of iptables' own stay until its table goes
_BARE = re.compile(r"\tchain [A-Z]+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n")
# as iptables-save and as nft prints it
_KEPT = re.compile(r"open before, kept|daddr \S+ .*tcp sport \d+ tcp dport \d+ ")


def without_senders(rules: str) -> str:
    """Rules as nft lists them, without what the kernel has put into their sets meanwhile."""
    return _FLOWS.sub(r"\1", rules)


def essence(machine: Machine) -> dict[str, Any]:
    """What an activation leaves behind on a machine, without what each has of its own.

    Those are the stamp, the control group, process ids, inodes and times of files, and the
    connections that happened to be open.
    """
    snapshot, journal = machine.snapshot(), machine.journal()
    instance, stamp = journal["instance"], journal["stamp"]

    def general(text: str) -> str:
        # nft prints a mark with eight digits, iptables without zeros before
        text = text.replace(instance, "INSTANCE").replace(f"0x{stamp:08x}", "STAMP")
        text = text.replace(f"0x{stamp:x}", "STAMP")
        return without_senders(text)

    def sorted_tables(text: str) -> str:
        if BACKEND:
            # chains are listed in the order in which they were made; kept connections are rules
            lines = (line for line in _BARE.sub("", text).splitlines() if not _KEPT.search(line))
            return "\n".join(sorted(filter(None, lines)))
        # the guard's are loaded again at other moments than the others
        return "".join(sorted(re.split(r"^(?=table )", text, flags=re.MULTILINE)))

    files = {}
    for path, known in snapshot["file"].items():
        if path == str(PATHS.attempts):  # there as soon as somebody was stopped
            continue
        if _VOLATILE.fullmatch(path):
            files[path] = known[:3]
        else:  # without inode and time
            files[path] = [*known[:4], *known[5:7], *known[8:]]
    processes = sorted(general(words) for words in snapshot["process"].values())
    undo: dict[str, Any] = json.loads(general(json.dumps(journal["undo"])))
    for entry in undo.get("masks", {"saved": {"lists": []}})["saved"]["lists"]:
        # of those that are open again, what was before is known still
        entry["before"] = {u: b for u, b in entry["before"].items() if int(u) in entry["closed"]}
    return {
        "command": {
            name: sorted_tables(general(text)) for name, text in snapshot["command"].items()
        },
        "sysctl": snapshot["sysctl"],
        "environment": snapshot["environment"],
        "file": files,
        "process": dict(enumerate(processes)),
        "undo": undo,
        "journal": {key: journal[key] for key in ("state", "torrc", "scopes", "config")},
    }

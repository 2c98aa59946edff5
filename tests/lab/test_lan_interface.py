"""The LAN's interface goes away and comes back while its clients are routed.

    client1 (sends without a pause) ── switch0 ── lan0 ── eth1 gateway eth0 ── witness

The gateway forwards. Whatever becomes of eth1, nothing of the client's leaves in clear; when it is
back under its name, the client gets through Tor again without another `up`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from onionward.lab import Lab, topology
from onionward.policy import RELAY4, RELAY6
from onionward.render.nftables.marks import MARK_CLIENT
from tests.lab.lifecycle_effects import BLOCKED, ROUTED
from tests.lab.lifecycle_machine import CONFIG, HERE, Machine, run_in, until
from tests.lab.lifecycle_scopes import LAN, Stage, furnished_gateway, sent, stage
from tests.lab.lifecycle_wire import Wire

CLIENT = "client1"
HOTPLUG = f"{LAN}hotplug = true\n"
DEVICE, PORT, LINK = topology.LAN_DEVICE, topology.LAN_PORT, topology.LAN
SECONDS = 1.0  # the client says some twenty things meanwhile


class Cable:
    """What connects the gateway with the switch of the LAN."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._internet = machine.lab.hosts["internet"]
        # clients go on looking for their router where it was
        self.hardware = machine.output("cat", f"/sys/class/net/{DEVICE}/address").strip()

    def _ip(self, words: str) -> None:
        self._machine.output("ip", *words.split())

    def _far(self, words: str) -> None:
        done = run_in(self._internet, ["ip", *words.split()])
        assert done.returncode == 0, done.stderr

    def down(self) -> None:
        self._ip(f"link set {DEVICE} down")

    def up(self) -> None:
        """As who configures the network does; the kernel forgets IPv6 addresses on the way."""
        self._ip(f"link set {DEVICE} up")
        self._ip(f"address replace {LINK.router4}/24 dev {DEVICE}")
        self._ip(f"address replace {LINK.router6}/64 dev {DEVICE} nodad")

    def delete(self) -> None:
        self._ip(f"link delete {DEVICE}")

    def create(self) -> None:
        near = f"name {DEVICE} address {self.hardware} netns {self._machine.host.pid}"
        self._far(f"link add {PORT} type veth peer {near}")
        self._far(f"link set {PORT} master {LINK.bridge}")
        self._far(f"link set {PORT} up")
        self.up()


@pytest.fixture
def connected(lab: Lab) -> Iterator[tuple[Stage, Cable]]:
    with stage(lab, (CLIENT,)) as everything:
        cable = Cable(everything.machine)
        try:
            yield everything, cable
        finally:
            if not everything.machine.path(f"/sys/class/net/{DEVICE}").exists():
                cable.create()


def is_seen(everything: Stage) -> bool:
    since = time.time()
    time.sleep(SECONDS)
    return bool(sent(everything.wire.packets(since)))


def behind(everything: Stage) -> str:
    return str(everything.machine.status()["forwarded"][DEVICE])


Change = Callable[[Cable], None]


@pytest.mark.parametrize(
    ("go", "come", "meanwhile"),
    [(Cable.down, Cable.up, "routed"), (Cable.delete, Cable.create, "absent")],
    ids=["down and up", "deleted and created"],
)
def test_an_interface_goes_and_comes_back(
    connected: tuple[Stage, Cable], go: Change, come: Change, meanwhile: str
) -> None:
    everything, cable = connected
    machine = everything.machine
    # with protection off the client is seen again as soon as its gateway is back
    go(cable)
    assert not is_seen(everything)
    come(cable)
    assert is_seen(everything)

    machine.configure(LAN)
    machine.up()
    since = time.time()
    everything.senders.wait_until_all_hear()
    go(cable)
    time.sleep(SECONDS)
    assert behind(everything) == meanwhile
    come(cable)
    everything.senders.wait_until_all_hear()
    assert behind(everything) == "routed"
    # tor is gone now, and the interface once more
    machine.kill_tor()
    go(cable)
    come(cable)
    time.sleep(SECONDS)
    assert behind(everything) == "blocked"
    machine.up()
    everything.senders.wait_until_all_hear()
    everything.assert_silent(frozenset({CLIENT}), since, time.time())
    machine.down()
    everything.assert_no_tails()
    assert is_seen(everything)


def test_an_interface_that_appears_later(connected: tuple[Stage, Cable]) -> None:
    everything, cable = connected
    machine = everything.machine
    cable.delete()
    machine.configure(LAN)
    done = machine.onionward("up")
    assert done.returncode == 2
    assert "hotplug = true" in done.stderr
    machine.configure(HOTPLUG)
    machine.up()
    since = time.time()
    assert behind(everything) == "absent"
    cable.create()
    everything.senders.wait_until_all_hear()
    assert behind(everything) == "routed"
    # what `up` does for interfaces that are there is done by the next one
    machine.up()
    everything.senders.wait_until_all_hear()
    everything.assert_silent(frozenset({CLIENT}), since, time.time())
    machine.down()
    everything.assert_no_tails()
    assert is_seen(everything)


def test_another_name_is_no_way_around(connected: tuple[Stage, Cable]) -> None:
    everything, _ = connected
    machine = everything.machine

    def rename(old: str, new: str) -> None:
        machine.output("ip", "link", "set", old, "name", new)

    rename(DEVICE, "lan9")
    try:
        # with protection off the name is no matter
        assert is_seen(everything)
        rename("lan9", DEVICE)
        machine.configure(LAN)
        machine.up()
        everything.senders.wait_until_all_hear()
        since = time.time()
        rename(DEVICE, "lan9")
        time.sleep(SECONDS)
        assert behind(everything) == "absent"
        everything.assert_silent(frozenset({CLIENT}), since, time.time())
    finally:
        if machine.path("/sys/class/net/lan9").exists():
            rename("lan9", DEVICE)
    everything.senders.wait_until_all_hear()
    everything.assert_silent(frozenset({CLIENT}), since, time.time())
    machine.down()


BRIDGE = "br9"


def bridge(everything: Stage, cable: Cable) -> None:
    """Somebody makes eth1 a port of a bridge, which takes its addresses."""
    ip = everything.machine.output
    ip(
        "ip",
        "link",
        "add",
        BRIDGE,
        "address",
        cable.hardware,
        "type",
        "bridge",
        "forward_delay",
        "0",
    )
    ip("ip", "link", "set", DEVICE, "master", BRIDGE)
    ip("ip", "address", "flush", "dev", DEVICE)
    ip("ip", "link", "set", BRIDGE, "up")
    ip("ip", "address", "replace", f"{LINK.router4}/24", "dev", BRIDGE)
    ip("ip", "address", "replace", f"{LINK.router6}/64", "dev", BRIDGE, "nodad")


def unbridge(everything: Stage, cable: Cable) -> None:
    everything.machine.output("ip", "link", "delete", BRIDGE)
    # its link-local address comes back with the link
    cable.down()
    cable.up()


def test_a_port_of_a_bridge_is_blocked(connected: tuple[Stage, Cable]) -> None:
    everything, cable = connected
    machine = everything.machine
    machine.configure(LAN)
    bridge(everything, cable)
    try:
        # with protection off the client is seen over the bridge as well
        until("the client is seen over the bridge", lambda: is_seen(everything))
        done = machine.onionward("up")
        assert done.returncode == 2
        assert "eth1 is a port of br9: what its clients send arrives at br9" in done.stderr
        unbridge(everything, cable)
        machine.up()
        everything.senders.wait_until_all_hear()
        since = time.time()

        bridge(everything, cable)
        time.sleep(SECONDS)
        assert behind(everything) == "blocked: a port of br9"
        assert [words.split(":")[0] for words in machine.status()["problems"]] == [
            "eth1 has become a port of br9"
        ]
        machine.output("ip", "link", "set", DEVICE, "name", "lan9")
        time.sleep(SECONDS)
        machine.output("ip", "link", "set", "lan9", "name", DEVICE)
        # a configuration that cannot be put in force leaves everything as it is
        assert machine.onionward("up").returncode == 2
        time.sleep(SECONDS)
        everything.assert_silent(frozenset({CLIENT}), since, time.time())

        # and it is those rules that hold it
        machine.output("nft", "delete", "table", "bridge", "onionward_ports")
        until("the client is seen without them", lambda: is_seen(everything))
        assert behind(everything) == "NOT COVERED: a port of br9"
        assert any(words.startswith("IN CLEAR: eth1") for words in machine.status()["problems"])
        machine.down()
    finally:
        unbridge(everything, cable)
        assert "bridge" not in machine.tables()


def test_rules_of_bridges_come_back_when_others_remove_them(
    connected: tuple[Stage, Cable],
) -> None:
    everything, _ = connected
    machine = everything.machine
    machine.configure(LAN)
    machine.up()
    for words in ("delete table bridge onionward_ports", "flush ruleset"):
        machine.output("nft", words)
        until("they are back", lambda: "onionward_ports" in machine.tables(), 30)
        until("status is content", lambda: machine.status()["problems"] == [], 30)
    machine.down()
    assert "onionward" not in machine.tables()


def test_a_finished_connection_is_soon_forgotten(connected: tuple[Stage, Cable]) -> None:
    everything, _ = connected
    machine = everything.machine
    machine.configure(LAN)
    machine.up()
    everything.senders.wait_until_all_hear()
    page = ["curl", "-sS", "-m", "20", "--local-port", "31000", f"http://{machine.lab.web4}/"]
    assert run_in(machine.lab.hosts[CLIENT], page).returncode == 0
    shown = machine.output("nft", "list", "set", "inet", "onionward", "client_flows4")
    entries = [entry for entry in shown.split(",") if " . 31000 . " in entry]
    assert len(entries) == 1
    assert "expires 4m" in entries[0]
    # those that are held open are remembered for as long as they may be silent
    assert "expires 1h59m" in shown
    machine.down()


DEAF = (
    "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; "
    "add rule inet deaf in tcp sport 80 drop"
)


@pytest.mark.parametrize(
    ("words", "config", "changed"),
    [
        (ROUTED, LAN, ""),
        # the block of a routed host makes connection tracking forget
        (BLOCKED, f"[host]\n{LAN}", "[tor]\ntrans_port = 942\n"),
    ],
    ids=["one transaction", "block and route"],
)
def test_a_connection_of_the_moment_of_a_reload_is_remembered(
    connected: tuple[Stage, Cable], words: str, config: str, changed: str
) -> None:
    everything, _ = connected
    machine = everything.machine
    machine.configure(config)
    machine.up()
    everything.senders.wait_until_all_hear()

    def is_remembered(port: str) -> bool:
        shown = machine.output("nft", "list", "set", "inet", "onionward", "client_flows4")
        return f" . {port} . {machine.lab.web4} . 80 " in f"{shown} "

    machine.configure(config + changed)
    script = str(HERE / "lifecycle_waiter.py")
    reload = machine.spawn("python", "-P", script, words, "--config", str(CONFIG), "up")
    assert reload.stdin is not None
    assert reload.stdout is not None
    while reload.stdout.readline() != "waiting\n":
        assert reload.poll() is None
    # what the rules know has been read, and they are not replaced yet
    held = machine.script("lifecycle_client.py", "hold", machine.lab.web4, "80", on=CLIENT)
    assert held.stdout is not None
    port = held.stdout.readline().split()[1]
    assert is_remembered(port)
    # a client that is away cannot be told that its connection has ended
    machine.output("nft", DEAF, on=CLIENT)
    try:
        reload.stdin.write("\n")
        reload.stdin.close()
        for line in reload.stdout:
            assert line
        assert reload.wait(30) == 0
        assert is_remembered(port)
    finally:
        machine.output("nft", "delete table inet deaf", on=CLIENT)
    done = machine.down()
    assert held.stdin is not None
    held.stdin.write("tail\n")
    assert held.stdout.readline().strip() in ("ECONNRESET", "EPIPE")
    everything.assert_no_tails(done.stdout + done.stderr)


def left_by_tor(machine: Machine, client: str, server: str, port: int) -> None:
    """A connection that connection tracking, iptables' only memory, has longer than tor had it."""
    relay = RELAY6 if ":" in client else RELAY4
    words = f"-I -p tcp -s {client} -d {server} --sport {port} --dport 80 -r {relay} -q {client}"
    state = f"--reply-port-src 940 --reply-port-dst {port} --state ESTABLISHED -t 600"
    machine.output("conntrack", *words.split(), *state.split(), "-m", str(MARK_CLIENT))


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("gone", ["link set {} down", "address flush dev {}"])
def test_no_client_is_asked_over_another_way(lab: Lab, backend: str, gone: str) -> None:
    """What `down` asks a client names it and its destination: that is nobody's business."""
    clients = (lab.client4(1), lab.client6(1))
    with furnished_gateway(lab) as machine, Wire(machine) as wire:
        cable = Cable(machine)

        def towards_clients(since: float) -> list[str]:
            found = [packet.words for packet in wire.packets(since)]
            return [words for words in found if any(f"> {c}" in words for c in clients)]

        machine.configure(f'{LAN}[firewall]\nbackend = "{backend}"\n')
        machine.up()
        # open when the interface goes: no filter has forgotten these
        for server in (lab.web4, lab.web6):
            held = machine.script("lifecycle_client.py", "hold", server, "80", on=CLIENT)
            assert held.stdout is not None
            assert held.stdout.readline()
        machine.output("ip", *gone.format(DEVICE).split())
        if backend == "iptables":
            for client, server in zip(clients, (lab.web4, lab.web6), strict=True):
                # no entry of a test before has it
                left_by_tor(machine, client, server, 33000 + secrets.randbelow(27000))
        try:
            since = time.time()
            machine.down()
            assert towards_clients(since) == []
            # the control: what is sent to them takes the uplink
            since = time.time()
            for client in clients:
                machine.say(client)
            assert len(towards_clients(since)) == len(clients)
        finally:
            cable.up()

"""Clients and neighbours of the uplink attack a gateway whose clients are routed.

    internet, neighbour ── eth0 gateway eth1 ── client1…3

They ask tor's ports at every address of the gateway, the neighbour routes packets for clients
through it, and clients send in others' names. Each is first shown to succeed with protection off,
where a program answers on the ports that tor will have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from onionward.lab import Lab
from onionward.leaks.wire import Capture, Witness
from onionward.policy import RELAY4, RELAY6
from tests.lab.lifecycle_machine import Machine, end, open_machine
from tests.lab.lifecycle_scopes import LAN, forwarding

TRANS_PORT, DNS_PORT = 940, 941
CLIENT_PORTS = (9001, 9002)  # of services of client1
ASKER = Path(__file__).with_name("lan_asker.py")
SPOOFED_PORTS = range(21000, 21010)
RELAYS = (str(RELAY4), str(RELAY6))
STRANGER4, STRANGER6 = "198.18.99.9", "2001:db8:99::9"

# each argument is a source, a target and a port: a SYN, a name query and a datagram
SPOOF = """
import socket, sys
from onionward.leaks import packets
for words in sys.argv[1:]:
    source, target, port = words.split("=")
    six = ":" in source
    tcp = packets.tcp(source, target, int(port), 80, packets.SYN)
    query = packets.udp(source, target, int(port), 53, packets.dns_query("v4.example.test"))
    letter = packets.udp(source, target, int(port), 4433, b"in another's name")
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for protocol, body in ((6, tcp), (17, query), (17, letter)):
            where = (target, 0, 0, 0) if six else (target, 0)
            raw.sendto(packets.ip(source, target, protocol, body), where)
"""


@dataclass(frozen=True)
class Found:
    """What came of it all in one state.

    Attributes:
        client: what client1 was told, by what it asked.
        neighbour: the same for the neighbour of the uplink.
        spoofed: what left by the uplink meanwhile.
        entries: what connection tracking remembered after it.
        counters: what the rules had stopped after it.

    """

    client: Mapping[str, str]
    neighbour: Mapping[str, str]
    spoofed: Capture
    entries: str
    counters: Mapping[str, int]


def own(lab: Lab) -> dict[str, str]:
    """Addresses of the gateway by name."""
    return {
        "lan4": lab.lan_gateway4,
        "lan6": lab.lan_gateway6,
        "uplink4": lab.gateway4,
        "uplink6": lab.gateway6,
        "relay4": RELAYS[0],
        "relay6": RELAYS[1],
    }


def ports(address: str) -> list[str]:
    return [f"tcp={address}={TRANS_PORT}", f"udp={address}={DNS_PORT}"]


def services(lab: Lab) -> list[str]:
    """What client1 serves."""
    addresses = (lab.client4(1), lab.client6(1))
    kinds = zip(("tcp", "udp"), CLIENT_PORTS, strict=True)
    return [f"{kind}={address}={port}" for kind, port in kinds for address in addresses]


def ordinary(lab: Lab) -> list[str]:
    """What clients get in every state."""
    return [f"tcp={lab.web4}=80", f"tcp={lab.web6}=80", f"udp={lab.dns4}=53"]


def sources(lab: Lab) -> dict[str, str]:
    """In whose name client1 sends."""
    return {
        "gateway-lan4": lab.lan_gateway4,
        "gateway-lan6": lab.lan_gateway6,
        "gateway-uplink4": lab.gateway4,
        "gateway-uplink6": lab.gateway6,
        "neighbour4": lab.neighbour4,
        "neighbour6": lab.neighbour6,
        "outside4": STRANGER4,
        "outside6": STRANGER6,
        "client4": lab.client4(2),
        "client6": lab.client6(2),
    }


NAMES = (
    *("gateway-lan4", "gateway-lan6", "gateway-uplink4", "gateway-uplink6"),
    *("neighbour4", "neighbour6", "outside4", "outside6", "client4", "client6"),
)
# the kernel believes no packet from outside in its own name
BELIEVED = [name for name in NAMES if not name.startswith("gateway")]
PLACES = ("lan4", "lan6", "uplink4", "uplink6", "relay4", "relay6")


def port_of(name: str) -> int:
    """The source port of what is sent in somebody's name."""
    return SPOOFED_PORTS[NAMES.index(name)]


def ask(machine: Machine, who: str, wanted: list[str]) -> dict[str, str]:
    done = machine.output("python", "-I", str(ASKER), *wanted, on=who)
    told: dict[str, str] = json.loads(done)
    return told


def spoof(machine: Machine) -> None:
    lab = machine.lab
    words = [
        f"{source}={lab.web6 if ':' in source else lab.web4}={port_of(name)}"
        for name, source in sources(lab).items()
    ]
    machine.output("python", "-c", SPOOF, *words, on="client1")
    time.sleep(0.5)


def attack(machine: Machine, witness: Witness, label: str) -> Found:
    lab = machine.lab
    addresses = [own(lab)[place] for place in PLACES]
    at_ports = [words for address in addresses for words in ports(address)]
    client = ask(machine, "client1", at_ports + ordinary(lab))
    neighbour = ask(machine, "neighbour", at_ports + services(lab))
    # what was cut is not taken for what comes now
    machine.run("conntrack", "-F")
    machine.run("conntrack", "-F", "-f", "ipv6")
    with witness.watch(label) as capture:
        spoof(machine)
    listings = [machine.run("conntrack", "-L", "-f", f).stdout for f in ("ipv4", "ipv6")]
    return Found(client, neighbour, capture, "".join(listings), machine.status()["counters"])


@contextmanager
def answering(machine: Machine, *words: str, on: str = "") -> Iterator[None]:
    process = machine.script("lan_answerer.py", *words, on=on)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        end(process)


@contextmanager
def added(machine: Machine, *lines: str, on: str = "") -> Iterator[None]:
    """Addresses and routes."""
    for line in lines:
        machine.output("ip", *line.split(), on=on)
    try:
        yield
    finally:
        for line in lines:
            machine.output("ip", *line.replace(" add ", " delete ", 1).split(), on=on)


def assert_only_on_loopback(machine: Machine) -> None:
    """Tor listens nowhere else; its control port is a Unix socket."""
    lines = [line for line in machine.output("ss", "-Hltunp").splitlines() if '"tor"' in line]
    listening = {line.split()[4] for line in lines}
    expected = {f"{RELAYS[0]}:{port}" for port in (TRANS_PORT, DNS_PORT)}
    expected |= {f"[{RELAYS[1]}]:{port}" for port in (TRANS_PORT, DNS_PORT)}
    assert expected <= listening
    assert {where for where in listening - expected if not where.startswith("127.")} <= {
        f"[::1]:{port}" for port in (TRANS_PORT, DNS_PORT)
    }


@pytest.fixture(scope="module")
def found(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Found]]:
    ways = [
        *(f"-4 route add {net} via {lab.gateway4}" for net in (lab.lan_network4, RELAYS[0])),
        *(f"-6 route add {net} via {lab.gateway6}" for net in (lab.lan_network6, RELAYS[1])),
    ]
    served = (*map(str, CLIENT_PORTS), lab.client4(1), lab.client6(1))
    namespace = lab.hosts["internet"].pid
    with ExitStack() as stack:
        machine = stack.enter_context(open_machine(lab, "gateway"))
        stack.enter_context(forwarding(machine))
        stack.enter_context(added(machine, *ways, on="neighbour"))
        stack.enter_context(answering(machine, *served, on="client1"))
        directory = tmp_path_factory.mktemp("attacks")
        witness = Witness(lab.gateway_link, directory, namespace=namespace)
        results = {}
        local = [f"address add {address} dev lo" for address in RELAYS]
        with added(machine, *local):
            at = (str(TRANS_PORT), str(DNS_PORT), *own(lab).values())
            with answering(machine, *at):
                results["off"] = attack(machine, witness, "off")
        machine.configure(LAN)
        machine.up()
        results["routed"] = attack(machine, witness, "routed")
        assert_only_on_loopback(machine)
        machine.kill_tor()
        results["without tor"] = attack(machine, witness, "without-tor")
        yield results


ROUTED = ("routed", "without tor")


@pytest.mark.parametrize("place", PLACES)
def test_ports_are_reached_with_protection_off(
    lab: Lab, found: dict[str, Found], place: str
) -> None:
    for words in ports(own(lab)[place]):
        assert found["off"].client[words] == "answer"
        assert found["off"].neighbour[words] == "answer"


@pytest.mark.parametrize("state", ROUTED)
@pytest.mark.parametrize("place", PLACES)
def test_no_client_reaches_tor_s_ports(
    lab: Lab, found: dict[str, Found], place: str, state: str
) -> None:
    # the LAN's own address refuses at once; others are not there
    expected = "refused" if place.startswith("lan") else "silence"
    told = [found[state].client[words] for words in ports(own(lab)[place])]
    assert told == [expected, expected]


@pytest.mark.parametrize("state", ROUTED)
@pytest.mark.parametrize("place", PLACES)
def test_no_neighbour_reaches_tor_s_ports(
    lab: Lab, found: dict[str, Found], place: str, state: str
) -> None:
    told = [found[state].neighbour[words] for words in ports(own(lab)[place])]
    assert "answer" not in told
    if place.startswith("relay"):
        assert told == ["silence", "silence"]


def test_clients_get_through_meanwhile(lab: Lab, found: dict[str, Found]) -> None:
    for state in ("off", "routed"):
        assert [found[state].client[words] for words in ordinary(lab)] == ["answer"] * 3
    without = [found["without tor"].client[words] for words in ordinary(lab)]
    assert without == ["refused"] * 3


def test_a_neighbour_routes_packets_for_clients_through_the_gateway(
    lab: Lab, found: dict[str, Found]
) -> None:
    assert [found["off"].neighbour[words] for words in services(lab)] == ["answer"] * 4
    for state in ROUTED:
        assert [found[state].neighbour[words] for words in services(lab)] == ["silence"] * 4


@pytest.mark.parametrize("name", BELIEVED)
def test_the_witness_sees_others_names_with_protection_off(
    found: dict[str, Found], name: str
) -> None:
    assert found["off"].spoofed.count(f"src port {port_of(name)}") >= 3


@pytest.mark.parametrize("state", ROUTED)
def test_nothing_leaves_in_others_names(found: dict[str, Found], state: str) -> None:
    first, last = SPOOFED_PORTS[0], SPOOFED_PORTS[-1]
    assert found[state].spoofed.packets(f"portrange {first}-{last}") == ()


@pytest.mark.parametrize("name", NAMES)
def test_only_another_client_s_name_gets_a_circuit(found: dict[str, Found], name: str) -> None:
    remembered = f"sport={port_of(name)} " in found["routed"].entries
    assert remembered == name.startswith("client")


def test_they_are_counted_as_spoofed(found: dict[str, Found]) -> None:
    foreign = [name for name in BELIEVED if not name.startswith("client")]
    assert found["routed"].counters["spoofed"] >= 3 * len(foreign)

"""What applications reach with `onionward run`, on which circuits, and what the wire sees of it.

internet ── gateway0 (witness) ── eth0 gateway owr… ── tor0 run
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from onionward.app.root.places import INTERFACE, RUNS4, TOR4, TOR6, address6
from onionward.lab import Lab, topology
from onionward.lab.demo.circuits import Circuits, listening
from onionward.leaks.wire import HOUSEKEEPING, Exempt, Witness
from onionward.networks import contains
from onionward.paths import OF_RUNS, PATHS
from tests.lab.app_bench import KEEPER, processes
from tests.lab.lifecycle_machine import HERE, Machine, empty_tables, open_machine, until
from tests.report import Faults
from tests.support import addr, net

PATIENCE = 240.0
RUNS = 50
NAME = "www.example.test"


@dataclass(frozen=True)
class Wire:
    """The far end of the machine's uplink."""

    witness: Witness
    exempt: Exempt


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab, "gateway") as opened:
        yield opened
        opened.close()
        until("no run is left", lambda: not devices(opened), patience=PATIENCE)


@pytest.fixture(scope="module")
def wire(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Wire:
    port = next(m.port for m in topology.MACHINES if m.name == "gateway")
    directory = tmp_path_factory.mktemp("wire")
    exempt = Exempt(relays=lab.relays, networks6=("2001:db8::/64",), others=HOUSEKEEPING)
    return Wire(Witness(port, directory, namespace=lab.hosts["internet"].pid), exempt)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that calls the kernel itself, where every account may execute it."""
    built = tmp_path_factory.mktemp("program") / "app_raw"
    argv = ["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", str(built), str(HERE / "app_raw.c")]
    subprocess.run(argv, check=True)
    return built


def run(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    return machine.run("onionward", "run", *argv, timeout=PATIENCE)


def devices(machine: Machine) -> list[str]:
    shown = json.loads(machine.output("ip", "-j", "link", "show"))
    return [link["ifname"] for link in shown if link["ifname"].startswith(INTERFACE)]


def page(machine: Machine, *words: str) -> str:
    """Whom the server saw."""
    for _ in range(6):
        # a rendezvous that fails is the network's misfortune, and another one is tried
        done = run(machine, "curl", "-sS", "-m", "30", *words)
        if done.returncode == 0:
            return client(done.stdout)
    raise AssertionError(done.stderr)


def client(text: str) -> str:
    found: str = json.loads(text.splitlines()[0])["client"]
    return found


# says its version and who has asked, and no more
_SHELL_SERVER = """
import socket
with socket.create_server(("198.18.80.1", 8098)) as server:
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-of_the_lab\\r\\n")
            connection.recv(100)
        print(peer[0], flush=True)
"""


def test_programs_reach_the_network_through_tor_alone(
    machine: Machine, lab: Lab, wire: Wire, program: Path, faults: Faults
) -> None:
    python = f"import urllib.request as u; print(u.urlopen('http://{lab.web4}/').read().decode())"
    shell = machine.spawn("python", "-I", "-c", _SHELL_SERVER, on="internet")
    assert shell.stdout is not None
    assert shell.stdout.readline() == "ready\n"
    with wire.witness.watch("programs") as capture:
        for address in (lab.web4, f"[{lab.web6}]", NAME, lab.onion):
            assert page(machine, f"http://{address}/") in (*lab.exits, "127.0.0.1"), address
        # addresses of names under .onion are in the upper half of 127.0.0.0/8 as well
        assert page(machine, "-4", f"http://{lab.onion}/") == "127.0.0.1"
        for words in ([NAME], [NAME, f"@{lab.dns4}"], [NAME, f"@{lab.dns6}"]):
            done = run(machine, "dig", "+short", "+time=15", *words)
            assert done.stdout == f"{lab.web4}\n", done.stdout
        # over TCP another server answers, by way of an exit
        done = run(machine, "dig", "+short", "+tcp", "+time=30", NAME, f"@{lab.dns4}")
        assert done.stdout == f"{lab.web4}\n"
        assert client(run(machine, "/usr/bin/python3", "-I", "-c", python).stdout) in lab.exits
        done = run(machine, str(program), lab.web4, "80")
        assert client(done.stdout) in lab.exits, done
        assert done.stdout.splitlines()[-1] == "Permission denied"
        # git does not understand the server, and says that it has reached it
        done = run(machine, "git", "ls-remote", f"http://{lab.web4}/nothing.git")
        assert "not found" in done.stderr or "not valid" in done.stderr, done.stderr
        ssh = ("ssh", "-v", "-p", "8098", "-oBatchMode=yes", "-oConnectTimeout=60", lab.web4)
        done = run(machine, *ssh)
        assert "remote software version of_the_lab" in done.stderr, done.stderr
        assert shell.stdout.readline().strip() in lab.exits
    escaped = capture.packets(wire.exempt.escaped())
    faults.record("programs in a run", tried=14, clear=len(escaped))
    assert escaped == ()
    assert capture.count(wire.exempt.filter())


def test_the_witness_sees_the_same_programs_without_it(
    machine: Machine, lab: Lab, wire: Wire, program: Path
) -> None:
    with wire.witness.watch("clear") as capture:
        machine.output("curl", "-sS", "-m", "60", f"http://{NAME}/")
        assert machine.output(str(program), lab.web4, "80").splitlines()[-1] == "sent"
    assert capture.count(f"udp dst port 53 and not ({wire.exempt.filter()})")
    assert capture.count(f"tcp dst port 80 and not ({wire.exempt.filter()})")
    assert capture.count("udp dst port 80")


def test_what_tor_cannot_carry_is_refused_at_once(machine: Machine, lab: Lab) -> None:
    begun = time.monotonic()
    for url in (
        "http://10.1.2.3/",
        "http://192.168.1.1/",
        "http://[fd00::1]/",
        "http://127.9.9.9/",
    ):
        assert run(machine, "curl", "-sS", "-m", "30", url).returncode == 7, url
    assert time.monotonic() - begun < 30
    done = run(machine, "dig", "+time=2", "+tries=1", "-p", "5353", NAME, f"@{lab.dns4}")
    assert done.returncode == 9


_SERVER = """
import socket
with socket.create_server(("::", 8099), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        connection.close()
        print(peer[0].removeprefix("::ffff:"), flush=True)
"""
_VISITOR = """
import socket, sys
for place in sys.argv[1:]:
    try:
        socket.create_connection((place, 8099), timeout=20).close()
    except OSError as error:
        print(place, error)
"""


def test_the_machine_itself_is_not_reached(machine: Machine, lab: Lab) -> None:
    server = machine.spawn("python", "-I", "-c", _SERVER)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    shown = json.loads(machine.output("ip", "-j", "address", "show"))
    found = [a["local"] for link in shown for a in link["addr_info"] if a["scope"] != "link"]
    visit = ("/usr/bin/python3", "-I", "-c", _VISITOR)
    assert machine.output(*visit, *found) == ""
    assert [server.stdout.readline().strip() for _ in found] == found
    # an exit may get there, as anybody outside may
    run(machine, *visit, *found)
    machine.output(*visit, "127.0.0.1")
    while (peer := server.stdout.readline().strip()) != "127.0.0.1":
        assert peer in lab.exits
    machine.close()


def holding(machine: Machine, lab: Lab, *options: str) -> subprocess.Popen[str]:
    """A run that fetches a page and then lives on."""
    fetch = f"curl -sS -m 100 --retry 3 --retry-all-errors http://{lab.web4}/; echo; read x"
    return machine.spawn("onionward", "run", *options, "--", "sh", "-c", fetch)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return client(process.stdout.readline())


def test_runs_at_once_have_circuits_of_their_own(machine: Machine, lab: Lab) -> None:
    run(machine, "true")
    with listening(machine.host, OF_RUNS) as observer:
        processes = [holding(machine, lab) for _ in range(RUNS)]
        assert {answer(process) for process in processes} <= set(lab.exits)
        assert len(devices(machine)) == RUNS
        found = observer.used()
    machine.close()
    assert len(found) == RUNS
    assert all(contains([net(RUNS4)], addr(source)) for source in found)
    circuits = [circuit for used in found.values() for circuit in used]
    assert len(circuits) == len(set(circuits)) >= RUNS


def test_a_name_shares_circuits_until_it_gets_new_ones(machine: Machine, lab: Lab) -> None:
    run(machine, "true")
    with listening(machine.host, OF_RUNS) as observer:

        def circuits(*options: str) -> Circuits:
            process = holding(machine, lab, *options)
            assert answer(process) in lab.exits
            return observer.used()

        first, again = circuits("--name", "one"), circuits("--name", "one")
        other, of_bob = circuits("--name", "two"), circuits("--name", "one", "--as", "bob")
        renewed = circuits("--name", "one", "--new-circuits")
        after = circuits("--name", "one")
    machine.close()
    assert first == again
    assert renewed == after
    for one, another in ((first, other), (first, of_bob), (first, renewed), (other, renewed)):
        assert not one.keys() & another.keys()
        assert not set().union(*one.values()) & set().union(*another.values())


def test_nobody_asks_tor_in_the_name_of_a_run(machine: Machine, lab: Lab) -> None:
    process = holding(machine, lab)
    assert answer(process) in lab.exits
    (device,) = devices(machine)
    of_run = address6(int(device.removeprefix(INTERFACE)))
    # by an account without any right, who may send from any address of IPv6
    asker = machine.spawn("/usr/bin/python3", "-I", str(HERE / "circuits_asker.py"), user="bob")
    assert asker.stdin is not None
    assert asker.stdout is not None
    with listening(machine.host, OF_RUNS) as observer:
        for source in (of_run, TOR6):
            asked = {"kind": "name", "to": [TOR6, 941], "port": 0, "bind": source, "name": NAME}
            asker.stdin.write(f"{json.dumps(asked)}\n")
            asker.stdin.flush()
            assert asker.stdout.readline()
        heard: set[str] = set()

        def asked_itself() -> bool:
            heard.update(observer.used())
            return TOR6 in heard

        until("what it asks itself is heard", asked_itself, patience=60)
    machine.close()
    assert of_run not in heard


SCOPES = (
    "[host]\n",
    '[host]\n[[lan]]\ninterface = "eth1"\n[[user]]\nname = "alice"\n',
    'onion = true\n[[user]]\nname = "alice"\n',
    '[[lan]]\ninterface = "eth1"\n',
    '[firewall]\nbackend = "iptables-nft"\n[host]\n[[lan]]\ninterface = "eth1"\n',
    'onion = true\n[firewall]\nbackend = "iptables-legacy"\n[[user]]\nname = "alice"\n',
)


def test_a_run_lives_through_up_reload_and_down_and_is_never_open(
    machine: Machine, lab: Lab, wire: Wire, program: Path, faults: Faults, tmp_path: Path
) -> None:
    # asks and sends all the time, and says what it has got
    script = (
        f"while read x; do curl -sS -m 30 http://{lab.web4}/ || echo failed; echo; "
        f"{program} {lab.web4} 81 >/dev/null; dig +short +time=5 +tries=1 {NAME} >/dev/null; done"
    )
    process = machine.spawn("onionward", "run", "--", "sh", "-c", script)
    assert process.stdin is not None

    def reaches() -> bool:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line.startswith("{"):
            process.stdout.readline()
            return client(line) in lab.exits
        assert line == "failed\n", line
        return process.stdout.readline() == ""

    until("it reaches", reaches, patience=PATIENCE)
    with wire.witness.watch("changes") as capture:
        for text in SCOPES:
            machine.configure(text)
            machine.up()
            until(f"it reaches, with {text!r}", reaches, patience=PATIENCE)
            # the same again is a change of rules only, which breaks nothing
            machine.up()
            assert reaches()
            assert machine.status()["problems"] == []
        # the guard has another tor
        machine.kill_tor(guarded=True)
        until("it reaches, with another tor", reaches, patience=PATIENCE)
        machine.down()
        until("it reaches, with a tor for runs", reaches, patience=PATIENCE)
    machine.close()
    empty_tables(machine.host, "nft", "legacy")
    escaped = capture.packets(wire.exempt.escaped())
    faults.record("a run while the machine changes", tried=len(SCOPES) * 2 + 2, clear=len(escaped))
    assert escaped == ()
    assert not machine.path(PATHS.journal).exists()


UFW = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
COMMIT
"""


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_firewall_that_cuts_runs_off_is_named(machine: Machine, lab: Lab, variant: str) -> None:
    fetch = ("curl", "-sS", "-m", "60", f"http://{lab.web4}/")
    assert run(machine, "true").returncode == 0
    machine.path("/run/onionward-lab/theirs").write_text(UFW)
    machine.output("sh", "-c", f"iptables-{variant}-restore < /run/onionward-lab/theirs")
    try:
        if variant == "legacy":
            # the kernel tells nobody of these: a keeper that is there has looked already
            machine.down()
        time.sleep(5)  # it looks that often
        # a keeper that has just looked looks again after a while
        until("it is seen", lambda: run(machine, "true").returncode == 125, patience=PATIENCE)
        done = run(machine, *fetch)
        assert done.returncode == 125
        words = " ".join(done.stderr.split())
        place = f"table ip filter, chain INPUT (iptables-{variant}), its policy: drop"
        assert f"what runs send to tor is stopped by another program's firewall: {place}" in words
        assert f"ufw allow in on {INTERFACE}+ to {TOR4}" in words
        assert devices(machine) == []
        # what it says is enough
        allow = ("-A", "ufw-user-input", "-i", f"{INTERFACE}+", "-d", TOR4, "-j", "ACCEPT")
        machine.output(f"iptables-{variant}", *allow)
        done = run(machine, *fetch)
        assert json.loads(done.stdout)["client"] in lab.exits, done.stderr
        assert done.stderr == ""
    finally:
        empty_tables(machine.host, variant)


def test_down_opens_nothing_for_a_run_that_has_lost_its_keeper(
    machine: Machine, lab: Lab, wire: Wire
) -> None:
    ask = f"curl -s -m 1 http://{lab.web4}/ >/dev/null"
    script = f"while :; do {ask}; sleep 0.1; done & read x"
    machine.output("sysctl", "-qw", "net.ipv4.ip_forward=1")
    try:
        machine.spawn("onionward", "run", "--", "sh", "-c", script)
        until("it runs", lambda: len(devices(machine)) == 1, patience=PATIENCE)

        def signalled(number: str, word: bytes) -> None:
            pids = [str(pid) for pid in processes(machine.path("/"), word)]
            machine.output("kill", number, *pids)

        # what has started it cannot call another keeper, and the application goes on
        signalled("-STOP", b"run")
        signalled("-KILL", KEEPER)
        # whoever connects before it has ended hears it hang up
        until("it is gone", lambda: not processes(machine.path("/"), KEEPER), patience=PATIENCE)
        with wire.witness.watch("kept") as capture:
            assert "go on" in machine.output("onionward", "down", timeout=PATIENCE)
            assert "onionward_run_lock" in machine.tables()
            # what the next keeper has begins before there is a tor
            machine.output("nft", "flush", "ruleset")
            time.sleep(3)
        assert not capture.count(f"src net {RUNS4}")
        signalled("-KILL", KEEPER)
        with wire.witness.watch("open") as capture:
            until("it is seen", lambda: bool(capture.count(f"src net {RUNS4}")), patience=PATIENCE)
    finally:
        machine.output("sysctl", "-qw", "net.ipv4.ip_forward=0")
        signalled("-CONT", b"run")
    # it calls another keeper before it is ended
    until("a keeper", lambda: bool(processes(machine.path("/"), KEEPER)), patience=PATIENCE)
    machine.close()
    until("no run is left", lambda: not devices(machine), patience=PATIENCE)
    machine.down()
    assert "onionward_run" not in machine.tables()

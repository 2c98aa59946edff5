"""The lab itself: a Tor network that works, hosts that are separate, nothing left behind.

client (tor in `host`) ── guard ── middle ── exit ── web server, which says who asked
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onionward.errors import CommandError, LabError, RefusedError
from onionward.lab import Host, Lab, TorNetwork, answering, build, destroy, find
from onionward.lab.control import Control
from onionward.lab.host import processes, start
from onionward.lab.services import checksum
from onionward.system import System

SYSTEM = System()
CLIENT = "run/test-client"
ONE_BUILD_MORE = 150  # seconds before a test that builds a lab itself is given up


def run(host: Host, *argv: str, timeout: float = 30) -> str:
    return SYSTEM.query(host.command(argv), timeout=timeout)


def fetch(host: Host, url: str, *, through_tor: bool = False) -> dict[str, Any]:
    socks = ["--socks5-hostname", "127.0.0.1:9050"] if through_tor else []
    # "*": no proxy settings of this machine
    text = run(host, "curl", "-sS", "--fail", "--noproxy", "*" if not socks else "", *socks, url)
    page: dict[str, Any] = json.loads(text)
    return page


@pytest.fixture(scope="module")
def client(lab: Lab) -> Iterator[Control]:
    """A tor in `host` with a SOCKS port, and its control connection."""
    host = lab.hosts["host"]
    directory = host.root / CLIENT
    directory.mkdir(mode=0o700)
    (directory / "torrc").write_text(
        f"DataDirectory /{CLIENT}\nControlSocket /{CLIENT}/control\nSocksPort 127.0.0.1:9050\n"
        f"RunAsDaemon 1\nLog notice file /{CLIENT}/log\nPidFile /{CLIENT}/pid\n"
        + lab.network_torrc.read_text()
    )
    started = time.monotonic()
    run(host, "tor", "--defaults-torrc", f"/{CLIENT}/torrc", "-f", f"/{CLIENT}/torrc", "--hush")
    with Control(directory / "control") as control:
        while 'SUMMARY="Done"' not in control.ask("GETINFO status/bootstrap-phase"):
            assert time.monotonic() < started + 20, (directory / "log").read_text()
            time.sleep(0.05)
        yield control
    run(host, "kill", (directory / "pid").read_text().strip())


def test_consensus_has_every_relay(lab: Lab, client: Control) -> None:
    lines = [line.split() for line in client.ask("GETINFO ns/all").splitlines()]
    entries = [words for words in lines if words[0] == "r"]
    flags = [set(words[1:]) for words in lines if words[0] == "s"]
    found = {entry[1]: has for entry, has in zip(entries, flags, strict=True)}
    assert set(found) == {relay.nickname for relay in TorNetwork().relays()}
    assert {name for name in found if "Exit" in found[name]} == {"exit1", "exit2"}
    assert all({"Guard", "HSDir", "Running", "Valid"} <= has for has in found.values()), found
    # the slowest eighth of relays may be slow (dir-spec, "Fast")
    assert sum("Fast" not in has for has in found.values()) <= 1, found
    assert {(entry[6], int(entry[7])) for entry in entries} <= set(lab.relays)


@pytest.mark.parametrize("name", ["www", "v4", "v6"])
def test_web_through_tor_sees_an_exit(lab: Lab, client: Control, name: str) -> None:
    page = fetch(lab.hosts["host"], f"http://{name}.example.test/", through_tor=True)
    assert page["client"] in lab.exits
    assert (
        page["server"] in {"www": (lab.web4, lab.web6), "v4": (lab.web4,), "v6": (lab.web6,)}[name]
    )


@pytest.mark.parametrize("address", ["web4", "web6"])
def test_addresses_through_tor(lab: Lab, client: Control, address: str) -> None:
    wanted = getattr(lab, address)
    literal = f"[{wanted}]" if ":" in wanted else wanted
    page = fetch(lab.hosts["host"], f"http://{literal}/", through_tor=True)
    assert page["server"] == wanted
    assert page["client"] in lab.exits


def test_onion_service(lab: Lab, client: Control) -> None:
    def visit() -> dict[str, Any] | None:
        try:
            return fetch(lab.hosts["host"], f"http://{lab.onion}/page", through_tor=True)
        except CommandError:
            # on a busy machine a relay may not answer for a while
            return None

    page = next(filter(None, (visit() for _ in range(5))))
    assert (page["host"], page["path"]) == (lab.onion, "/page")


def test_circuits_have_three_different_relays(lab: Lab, client: Control) -> None:
    fetch(lab.hosts["host"], "http://www.example.test/", through_tor=True)
    circuits = client.ask("GETINFO circuit-status").splitlines()
    paths = [
        circuit.split()[2].split(",")
        for circuit in circuits
        if " BUILT " in circuit and "PURPOSE=GENERAL" in circuit and "IS_INTERNAL" not in circuit
    ]
    assert paths
    for path in paths:
        assert len(set(path)) == len(path) == 3
        assert "~exit" in path[-1]


def test_download_through_tor_is_intact(lab: Lab, client: Control) -> None:
    url = "http://v4.example.test/bytes/5000000"
    argv = ["curl", "-sS", "--fail", "--socks5-hostname", "127.0.0.1:9050", url]
    done = subprocess.run(lab.hosts["host"].command(argv), capture_output=True, check=True)
    assert hashlib.sha256(done.stdout).hexdigest() == checksum(5000000)


@pytest.mark.parametrize("server", ["dns4", "dns6"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dns(lab: Lab, server: str, transport: str) -> None:
    def ask(name: str, kind: str) -> list[str]:
        argv = ["dig", "+short", transport, f"@{getattr(lab, server)}", name, kind]
        return run(lab.hosts["host"], *argv).split()

    assert ask("www.example.test", "A") == [lab.web4]
    assert ask("www.example.test", "AAAA") == [lab.web6]
    assert ask("v4.example.test", "AAAA") == []
    assert ask("v6.example.test", "AAAA") == [lab.web6]
    assert ask("no.such.name", "A") == []


def test_hosts_reach_each_other_and_the_internet_in_clear(lab: Lab) -> None:
    for name, address4, address6 in (
        ("host", lab.host4, lab.host6),
        ("neighbour", lab.neighbour4, lab.neighbour6),
    ):
        assert fetch(lab.hosts[name], "http://v4.example.test/")["client"] == address4
        assert fetch(lab.hosts[name], "http://v6.example.test/")["client"] == address6


TWO_HUNDRED = """
import socket, sys
held = [socket.create_connection((sys.argv[1], 80)) for _ in range(200)]
for one in held:
    one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(sum(b"200 OK" in one.recv(64) for one in held))
"""
ECHO = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[2] == "udp" else socket.SOCK_STREAM
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, kind) as one:
    one.settimeout(5)
    one.connect((sys.argv[1], int(sys.argv[3])))
    one.send(b"hello")
    print(one.recv(64).decode())
"""


def test_web_server_holds_200_connections(lab: Lab) -> None:
    assert run(lab.hosts["host"], "python3", "-c", TWO_HUNDRED, lab.web4).strip() == "200"


@pytest.mark.parametrize(("kind", "port"), [("tcp", 7), ("tcp", 443), ("udp", 7), ("udp", 443)])
@pytest.mark.parametrize("address", ["web4", "web6"])
def test_echo(lab: Lab, address: str, kind: str, port: int) -> None:
    argv = ["python3", "-c", ECHO, getattr(lab, address), kind, str(port)]
    assert run(lab.hosts["host"], *argv).strip() == "hello"


def test_witness_sees_what_leaves_the_host(lab: Lab) -> None:
    argv = ["tcpdump", "-l", "-n", "-p", "-c", "1", "-i", lab.host_link, "udp port 9999"]
    with subprocess.Popen(
        lab.hosts["internet"].network_command(argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as witness:
        assert witness.stderr is not None
        assert any("listening on" in line for line in witness.stderr)
        code = "import socket; socket.socket(type=2).sendto(b'x', ('198.18.66.6', 9999))"
        run(lab.hosts["host"], "python3", "-c", code)
        out, _ = witness.communicate(timeout=10)
    assert f"{lab.host4}." in out
    assert f"{lab.stranger4}.9999" in out


def test_what_happens_in_host_stays_there(lab: Lab) -> None:
    host = lab.hosts["host"]
    before = Path("/etc/resolv.conf").read_bytes()
    for path in ("/etc/resolv.conf", "/var/lib/onionward-test", "/run/onionward-test"):
        run(host, "cp", "/etc/hostname", f"{path}.new")
        assert (host.root / f"{path}.new".removeprefix("/")).exists()
        assert not Path(f"{path}.new").exists()
        run(host, "rm", f"{path}.new")
    assert Path("/etc/resolv.conf").read_bytes() == before
    assert run(host, "cat", "/etc/resolv.conf") == f"nameserver {lab.dns4}\n"
    assert run(host, "hostname").strip() == "host"
    assert set(run(host, "ls", "/sys/class/net").split()) == {"eth0", "lo"}
    cgroups = Path("/sys/fs/cgroup/unified/cgroup.procs")
    visible = cgroups if cgroups.exists() else Path("/sys/fs/cgroup/cgroup.procs")
    run(host, "test", "-w", str(visible))


def test_command_as_another_user(lab: Lab) -> None:
    host = lab.hosts["host"]
    run(host, "useradd", "--create-home", "--home-dir", "/var/lib/visitor", "visitor")
    try:
        user = SYSTEM.query(host.command(["id", "-un"], user="visitor"))
        path = SYSTEM.query(host.command(["printenv", "PATH"], user="visitor"))
    finally:
        run(host, "userdel", "visitor")
    assert user == "visitor\n"
    assert path.split(":")[0] == str(Path(sys.executable).parent)


def test_command_ends_with_nsenter(lab: Lab) -> None:
    host = lab.hosts["neighbour"]
    with subprocess.Popen(host.command(["sleep", "4242"])) as nsenter:
        deadline = time.monotonic() + 5
        while "sleep 4242" not in run(host, "ps", "-eo", "args"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        nsenter.kill()
    while "sleep 4242" in run(host, "ps", "-eo", "args"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_find(lab: Lab) -> None:
    assert find(lab.name) == lab


@pytest.mark.parametrize("name", ["", "-x", "../etc", "a b", "x" * 33])
def test_names_that_are_none(name: str) -> None:
    for refusing in (lambda: find(name), lambda: destroy(SYSTEM, name)):
        with pytest.raises(RefusedError, match="not a name"):
            refusing()


def test_find_without_lab() -> None:
    with pytest.raises(LabError, match="no lab named 'nothing-here'"):
        find("nothing-here")


def test_name_is_taken(lab: Lab) -> None:
    with pytest.raises(LabError, match="already"):
        build(SYSTEM, name=lab.name)
    assert find(lab.name) == lab


def machine() -> dict[str, object]:
    """What a lab must leave as it was, of the machine's own namespaces."""
    return {
        "links": run_here("ip", "-o", "link"),
        "addresses": run_here("ip", "-o", "address"),
        "routes": run_here("ip", "route", "show", "table", "all"),
        "rules": run_here("ip", "rule"),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "resolver": Path("/etc/resolv.conf").read_bytes(),
        "accounts": [Path(f"/etc/{name}").read_bytes() for name in ("passwd", "group", "shadow")],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "name": run_here("hostname"),
    }


def run_here(*argv: str) -> str:
    return SYSTEM.query(argv)


def network_namespaces() -> set[str]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                found.add(str((process / "ns" / "net").readlink()))
            except OSError:
                continue
    return found


def test_a_relay_that_answers_nobody_is_found(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_PATIENCE", 1.5)
    internet = lab.hosts["internet"]
    relays = list(TorNetwork().relays())
    names = [relay.nickname for relay in relays]

    def connect(name: str) -> Control:
        return Control(internet.root / "run/onionward-lab" / name / "control")

    answering.check(names, connect)
    victim = next(relay for relay in relays if relay.nickname == "middle2")
    hook = "type filter hook input priority 0;"
    rules = f"table ip silence {{\nchain c {{\n{hook}\nip daddr {victim.address4} drop\n}}\n}}\n"
    SYSTEM.change(internet.command(["nft", "-f", "-"]), stdin=rules)
    try:
        with pytest.raises(answering.SilentRelayError, match="middle2"):
            answering.check(names, connect)
    finally:
        SYSTEM.change(internet.command(["nft", "delete", "table", "ip", "silence"]))


def assert_gone(name: str, namespaces: set[str]) -> None:
    directory = Path("/run/onionward-lab") / name
    assert not directory.exists()
    assert processes(directory) == []
    assert not namespaces & network_namespaces()
    destroy(SYSTEM, name)


def namespaces_of(directory: Path) -> set[str]:
    return {str(Path(f"/proc/{pid}/ns/net").readlink()) for pid in processes(directory)} - {
        str(Path("/proc/self/ns/net").readlink())
    }


@pytest.mark.timeout(ONE_BUILD_MORE)
def test_second_lab_beside_the_first_and_its_end(lab: Lab, client: Control) -> None:
    before = machine()
    name = f"{lab.name}-b"
    second = build(SYSTEM, name=name, network=TorNetwork(middles=1, onion_services=0))
    namespaces = namespaces_of(second.directory)
    running: list[subprocess.Popen[bytes]] = []
    try:
        assert len(namespaces) == len(second.hosts) == 8
        assert machine() == before
        assert second.onion == ""
        assert fetch(second.hosts["host"], "http://v6.example.test/")["client"] == lab.host6
        assert fetch(lab.hosts["host"], "http://v4.example.test/", through_tor=True)["client"]
        run(second.hosts["gateway"], "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        for inside in ("gateway", "client3", "container"):
            command = second.hosts[inside].command(["sleep", "4242"])
            running.append(subprocess.Popen(command))
    finally:
        destroy(SYSTEM, name)
    assert [nsenter.wait(10) != 0 for nsenter in running] == [True] * 3
    assert_gone(name, namespaces)
    assert machine() == before
    assert find(lab.name) == lab


BUILD = """
import sys
from onionward.lab import build
from onionward.system import System
build(System(), name=sys.argv[1], progress=lambda words: print(words, flush=True))
"""


def build_until(name: str, reached: str) -> subprocess.Popen[str]:
    building = subprocess.Popen(
        [sys.executable, "-c", BUILD, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert building.stdout is not None
    for line in building.stdout:
        if line.strip() == reached:
            return building
    raise AssertionError(f"the build ended before: {reached}")


@pytest.mark.parametrize(
    ("reached", "hosts"), [("internet", 1), ("relays started", 1), ("services and hosts", 8)]
)
def test_killed_build_is_cleaned_by_destroy(reached: str, hosts: int) -> None:
    name = f"test-{os.getpid()}-killed"
    directory = Path("/run/onionward-lab") / name
    with build_until(name, reached) as building:
        building.kill()
    namespaces = namespaces_of(directory)
    assert len(namespaces) == hosts
    with pytest.raises(LabError, match="not complete"):
        find(name)
    destroy(SYSTEM, name)
    assert_gone(name, namespaces)


def test_interrupted_build_cleans_up_itself() -> None:
    name = f"test-{os.getpid()}-interrupted"
    with build_until(name, "relays started") as building:
        namespaces = namespaces_of(Path("/run/onionward-lab") / name)
        building.send_signal(signal.SIGINT)
    assert building.returncode != 0
    assert_gone(name, namespaces)


def test_hosts_that_died_are_noticed(tmp_path: Path, lab: Lab) -> None:
    name = f"test-{os.getpid()}-dead"
    directory = Path("/run/onionward-lab") / name
    directory.mkdir()
    try:
        dying = start(directory, "internet")
        fields = json.loads(lab.to_json()) | {"name": name, "directory": str(directory)}
        fields["hosts"] = {"internet": {"name": "internet", "pid": dying.pid}}
        (directory / "lab.json").write_text(json.dumps(fields))
        assert find(name).hosts["internet"] == dying
        os.kill(dying.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while processes(directory):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(LabError, match="internet"):
            find(name)
    finally:
        destroy(SYSTEM, name)
    assert not directory.exists()


def test_control_groups_go_with_the_hosts() -> None:
    name = f"test-{os.getpid()}-groups"
    directory = Path("/run/onionward-lab") / name
    directory.mkdir()
    unified = Path("/sys/fs/cgroup/unified")
    group = (unified if unified.exists() else unified.parent) / name
    try:
        host = start(directory, "host")
        group.mkdir()
        with subprocess.Popen(host.command(["sleep", "4242"])) as nsenter:
            children = Path(f"/proc/{nsenter.pid}/task/{nsenter.pid}/children")
            deadline = time.monotonic() + 5
            while not (inside := children.read_text().split()):
                assert time.monotonic() < deadline
            (group / "cgroup.procs").write_text(inside[0])
            destroy(SYSTEM, name)
        assert not group.exists()
    finally:
        destroy(SYSTEM, name)


def test_failed_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"test-{os.getpid()}-failed"

    def fail(*_: object, **__: object) -> None:
        raise LabError("no such luck")

    monkeypatch.setattr("onionward.lab.builder.start_relays", fail)
    with pytest.raises(LabError, match="no such luck"):
        build(SYSTEM, name=name)
    assert_gone(name, set())

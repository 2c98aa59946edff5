"""The lab's gateway: what is behind it is reached through it, and only when it forwards.

    internet ── gateway0 (witness) ── eth0 gateway eth1 ── lan0 (witness), switch ── client1…3
                                           gateway br0  ── container

That all of it goes with its lab is tested with the rest of the lab, in test_lab.py.
"""

from __future__ import annotations

import json
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from onionward.lab import Host, Lab
from onionward.system import System
from tests.lab.lifecycle_machine import until

SYSTEM = System()
BEHIND = ("client1", "client2", "client3", "container")
NO_ANSWER = (6, 7, 28)  # curl: name not resolved, not connected, timeout
SWITCHES = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")

# a machine without a service refuses at once
REACH = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 9), 3)
    except ConnectionRefusedError:
        print(address)
"""


def run(host: Host, *argv: str, user: str | None = None) -> str:
    return SYSTEM.query(host.command(argv, user=user))


def fetch(host: Host, target: str, *, seconds: int = 10) -> str:
    """The address that the web server sees, or "" when there is no answer."""
    options = ("-sS", "--fail", "--noproxy", "*", "--max-time", str(seconds))
    argv = host.command(["curl", *options, f"http://{target}/"])
    answer = SYSTEM.query(argv, accept=(0, *NO_ANSWER))
    return str(json.loads(answer)["client"]) if answer else ""


@contextmanager
def forwarding(lab: Lab) -> Iterator[None]:
    """The gateway forwards, as a router without protection."""
    gateway = lab.hosts["gateway"]
    run(gateway, "sysctl", "-q", "-w", *(f"{name}=1" for name in SWITCHES))
    try:
        yield
    finally:
        run(gateway, "sysctl", "-q", "-w", *(f"{name}=0" for name in SWITCHES))


@contextmanager
def resolver_at_the_gateway(lab: Lab) -> Iterator[None]:
    """What client1 asks: a server at the gateway that asks the internet's."""
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += ["--bind-interfaces", f"--listen-address={lab.lan_gateway4}", f"--server={lab.dns4}"]
    # another group would clear what ends it with its parent (PR_SET_PDEATHSIG(2const))
    argv += ["--user=root", "--group=root", "--pid-file="]
    asking = ["dig", "+short", "+tries=1", "+time=1", f"@{lab.lan_gateway4}", "v4.example.test"]

    def answers() -> bool:
        asked = lab.hosts["gateway"].command(asking)
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    with subprocess.Popen(lab.hosts["gateway"].command(argv)) as server:
        try:
            until("the gateway's server answers", answers, 60)
            yield
        finally:
            server.terminate()


def addresses(lab: Lab, name: str) -> tuple[str, str]:
    if name == "container":
        return lab.container4, lab.container6
    number = int(name.removeprefix("client"))
    return lab.client4(number), lab.client6(number)


@pytest.mark.parametrize("name", BEHIND)
def test_the_internet_is_reached_while_the_gateway_forwards(lab: Lab, name: str) -> None:
    host, own = lab.hosts[name], addresses(lab, name)
    targets = (lab.web4, f"[{lab.web6}]")
    assert [fetch(host, target, seconds=1) for target in targets] == ["", ""]
    with forwarding(lab):
        assert tuple(fetch(host, target) for target in targets) == own
    assert [fetch(host, target, seconds=1) for target in targets] == ["", ""]


@pytest.mark.parametrize("name", BEHIND)
def test_names_are_resolved_while_the_gateway_forwards(lab: Lab, name: str) -> None:
    host, (own4, own6) = lab.hosts[name], addresses(lab, name)
    assert fetch(host, "v4.example.test", seconds=1) == ""
    with forwarding(lab), ExitStack() as stack:
        if name == "client1":
            stack.enter_context(resolver_at_the_gateway(lab))
        assert fetch(host, "v4.example.test") == own4
        assert fetch(host, "v6.example.test") == own6


@pytest.mark.parametrize(
    ("name", "resolver"), [("client1", "lan_gateway4"), ("client2", "dns4"), ("client3", "dns6")]
)
def test_every_client_has_a_resolver_of_its_own(lab: Lab, name: str, resolver: str) -> None:
    text = run(lab.hosts[name], "cat", "/etc/resolv.conf")
    assert text == f"nameserver {getattr(lab, resolver)}\n"


def test_the_gateway_does_not_forward_by_itself(lab: Lab) -> None:
    for name in ("gateway", *BEHIND):
        assert run(lab.hosts[name], "sysctl", "-n", *SWITCHES).split() == ["0", "0"]


def test_the_gateway_itself_reaches_every_side(lab: Lab) -> None:
    gateway = lab.hosts["gateway"]
    assert fetch(gateway, "v4.example.test") == lab.gateway4
    assert fetch(gateway, "v6.example.test") == lab.gateway6
    others = [lab.neighbour4, lab.neighbour6, lab.router4, lab.router6]
    for name in BEHIND:
        others += addresses(lab, name)
    assert run(gateway, "python3", "-c", REACH, *others).split() == others


def test_witnesses_see_both_sides_of_the_gateway(lab: Lab) -> None:
    question = f"tcp[tcpflags] == tcp-syn and src host {lab.client4(2)} and dst host {lab.web4}"
    with ExitStack() as stack:
        seeing = []
        for link in (lab.lan_link, lab.gateway_link):
            argv = ["tcpdump", "-l", "-n", "-p", "-c", "1", "-i", link, question]
            command = lab.hosts["internet"].network_command(argv)
            witness = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(witness.kill)
            assert witness.stderr is not None
            assert any("listening on" in line for line in witness.stderr)
            seeing.append(witness)
        with forwarding(lab):
            assert fetch(lab.hosts["client2"], lab.web4) == lab.client4(2)
        for witness in seeing:
            assert f"IP {lab.client4(2)}." in witness.communicate(timeout=10)[0]


def test_the_switch_connects_clients_but_is_no_way_out(lab: Lab) -> None:
    client = lab.hosts["client1"]
    others = [lab.client4(2), lab.client6(3)]
    assert run(client, "python3", "-c", REACH, *others).split() == others
    ways = [("-4", f"{lab.web4}/32", lab.web4), ("-6", f"{lab.web6}/128", f"[{lab.web6}]")]
    for family, destination, target in ways:
        route = (destination, "dev", "eth0")
        run(client, "ip", family, "route", "add", *route)
        try:
            assert fetch(client, target, seconds=2) == ""
        finally:
            run(client, "ip", family, "route", "del", *route)


@pytest.mark.parametrize("name", ["host", "gateway"])
def test_accounts_exist_inside_and_not_outside(lab: Lab, name: str) -> None:
    host = lab.hosts[name]
    for number, account in enumerate(("alice", "bob", "carol"), start=61001):
        home = f"/run/onionward-lab/home/{account}"
        entry = run(host, "getent", "passwd", account).strip().split(":")
        assert (entry[0], entry[2:4], entry[5]) == (account, [str(number)] * 2, home)
        run(host, "touch", f"{home}/own", user=account)
        run(host, "rm", f"{home}/own", user=account)
        assert run(host, "id", "-u", user=account) == f"{number}\n"
        with pytest.raises(KeyError):
            pwd.getpwuid(number)
    assert not Path("/run/onionward-lab/home").exists()
    for file in ("/etc/subuid", "/etc/subgid"):
        assert "bob:900000:65536" in run(host, "cat", file).splitlines()


def test_accounts_are_only_where_they_are_said_to_be(lab: Lab) -> None:
    for name in sorted(set(lab.hosts) - {"host", "gateway"}):
        argv = lab.hosts[name].command(["getent", "passwd", "61002"])
        assert SYSTEM.query(argv, accept=(2,)) == ""


def test_the_gateway_is_furnished_as_the_host_is(lab: Lab) -> None:
    host, gateway = lab.hosts["host"], lab.hosts["gateway"]
    for path in ("/etc/onionward/onionward.toml", "/run/onionward-lab/network.torrc"):
        assert run(gateway, "cat", path) == run(host, "cat", path)
    for path in ("/etc/onionward-test", "/var/lib/onionward-test", "/run/onionward-test"):
        run(gateway, "touch", path)
        assert not Path(path).exists()
        run(gateway, "rm", path)
    assert run(gateway, "hostname").strip() == "gateway"
    assert set(run(gateway, "ls", "/sys/class/net").split()) == {
        *("lo", "eth0", lab.lan_device, lab.bridge_device, "container0"),
    }

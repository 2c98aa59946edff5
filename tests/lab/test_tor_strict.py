"""tor's account reaches relays of the consensus and where tor begins, and nobody else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from onionward.paths import PATHS
from tests.lab.lifecycle_machine import Done, Machine, exactly_back, open_machine, until
from tests.lab.lifecycle_wire import Wire

STRICT = "[tor]\nstrict = true\n"
OR_PORT = 9001
LIST = PATHS.tor_data / "cached-microdesc-consensus"
CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
"""


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened


def as_tor(machine: Machine, address: str, port: int) -> Done:
    """Somebody who has taken tor over connects: its account, in its control group."""
    (tor,) = machine.tor_pids()
    uid = machine.path(f"/proc/{tor}/status").read_text().split("Uid:")[1].split()[0]
    group = machine.journal()["undo"]["tor"]["cgroup"]
    enter = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    account = ("setpriv", f"--reuid={uid}", "--clear-groups")
    python = ("/usr/bin/python3", "-I", "-c", CONNECT, address, str(port))
    return machine.run("sh", "-ec", enter, "sh", *account, *python)


def reached(machine: Machine) -> set[str]:
    """The places in the rules, of both families."""
    found: set[str] = set()
    for version in (4, 6):
        listed = machine.output("nft", "list", "set", "inet", "onionward", f"relays{version}")
        found |= set(re.findall(r"([0-9a-f.:]+ \. \d+)", listed.partition("elements")[2]))
    return found


def client(machine: Machine) -> str:
    url = f"http://{machine.lab.web4}/"
    again = ("--retry", "5", "--retry-all-errors", "--noproxy", "*", "-m", "30")
    found: str = json.loads(machine.output("curl", "-sS", "--fail", *again, url))["client"]
    return found


@pytest.mark.parametrize("scope", ["", '[[user]]\nname = "alice"\n'], ids=["host", "user"])
def test_no_stranger_is_reached_and_tor_works(machine: Machine, scope: str) -> None:
    stranger = machine.lab.web4
    machine.configure(scope)
    machine.up()
    with Wire(machine) as wire:
        as_tor(machine, stranger, 81)
        until("the witness sees it without", lambda: f"{stranger}.81" in str(wire.packets()))
    machine.down()

    machine.output("rm", "-rf", str(PATHS.tor_data))  # from nothing: it knows nobody
    machine.configure(scope + STRICT)
    # a host that is not routed looks for routers itself
    with exactly_back(machine), Wire(machine, "icmp6" if scope else "") as wire:
        machine.up()
        assert "timed out" in as_tor(machine, stranger, 81).stderr
        assert as_tor(machine, "198.18.1.1", OR_PORT).returncode == 0
        user = "alice" if scope else None
        url = f"http://{stranger}/"
        asked = ("curl", "-sS", "--fail", "--retry", "5", "--retry-all-errors", "-m", "30", url)
        done = machine.run(*asked, user=user)
        assert json.loads(done.stdout)["client"] in machine.lab.exits, done.stderr
        report = machine.status()
        # the lab's authorities have no IPv6, so no such address is in the consensus
        relays = {a for a, port in machine.lab.relays if port == OR_PORT and ":" not in a}
        assert relays <= {place.partition(" ")[0] for place in reached(machine)}
        assert report["tor_places"] == len(reached(machine))
        assert report["consensus_valid_until"]
        assert report["problems"] == []
        told = machine.onionward("explain", "--tor", "tcp", stranger, "81")
        assert told.stdout.startswith("dropped"), told
        machine.down()
        assert wire.packets() == []


def test_another_list_is_taken_over(machine: Machine) -> None:
    machine.configure(STRICT)
    machine.up()
    whole = machine.path(LIST).read_text()
    before = reached(machine)
    gone = next(a for a, p in machine.lab.relays if p == OR_PORT and a not in _authorities(machine))
    assert f"{gone} . {OR_PORT}" in before
    assert as_tor(machine, gone, OR_PORT).returncode == 0

    replace_list(machine, re.sub(rf"(?m)^r .* {re.escape(gone)} .*\n(?:a .*\n)*", "", whole))
    until("it is out of the rules", lambda: f"{gone} . {OR_PORT}" not in reached(machine), 30)
    assert "timed out" in as_tor(machine, gone, OR_PORT).stderr
    assert reached(machine) < before

    # one that says nothing opens nothing
    replace_list(machine, "garbage\n")
    until("only authorities are left", lambda: _addresses(machine) == _authorities(machine), 30)
    assert as_tor(machine, "198.18.1.1", OR_PORT).returncode == 0
    until("status knows", lambda: machine.status()["consensus_valid_until"] == "", 30)

    with Wire(machine) as wire:
        since = time.time()
        replace_list(machine, whole)
        until("all of them are back", lambda: reached(machine) == before, 30)
        assert client(machine) in machine.lab.exits
        assert wire.packets(since) == []
    assert machine.status()["state"] == "routed"


def _authorities(machine: Machine) -> set[str]:
    text = machine.path("/run/onionward-lab/network.torrc").read_text()
    found = re.findall(r"^DirAuthority .* ([\d.]+):\d+ |\[([0-9a-f:]+)\]", text, re.MULTILINE)
    return {one or other for one, other in found}


def _addresses(machine: Machine) -> set[str]:
    return {place.partition(" ")[0] for place in reached(machine)}


def replace_list(machine: Machine, text: str) -> None:
    """As tor does it: another file in its place."""
    made = machine.path(f"{LIST}.new")
    made.write_text(text)
    made.rename(machine.path(LIST))

"""Other people's rules beside ours: theirs stay theirs, ours hold, and what starves tor is named.

Each program's rules are tried in one order, all on one routed machine; ONIONWARD_SWEEP=1 tries each
in every order, and kills `up` while it asks the kernel what starves tor.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from tests.lab import foreign_firewalls
from tests.lab.foreign_firewalls import ALL, dump, start, stop
from tests.lab.lifecycle_effects import killing, logged
from tests.lab.lifecycle_machine import Machine, difference, open_machine, until
from tests.lab.lifecycle_wire import Wire, now

ORDERS = ("before", "while on", "reloaded", "stopped")
SWEEP = "ONIONWARD_SWEEP" in os.environ
TOGETHER = tuple(zip(ALL, ORDERS, strict=True))
EACH = [((name, order),) for name in ALL for order in ORDERS]
SAVED = "/etc/nftables.conf"


@pytest.fixture
def machine(lab: Lab) -> Iterator[Machine]:
    with open_machine(lab) as opened:
        yield opened
        for text in (*ALL.values(), STARVING, ONLY_TOR):
            stop(opened, text)
        opened.path(SAVED).unlink(missing_ok=True)


def talk(machine: Machine) -> None:
    """A machine full of programs, until `close`."""
    lab = machine.lab
    machine.script("lifecycle_chatter.py", lab.web4, lab.web6, lab.dns4)


def page(machine: Machine) -> str:
    """The address from which the web server sees the machine."""
    url = f"http://{machine.lab.web4}/"
    answer = machine.output("curl", "-sS", "--fail", "--noproxy", "*", "-m", "20", url)
    return answer.partition('"client": "')[2].partition('"')[0]


@pytest.mark.parametrize(
    "theirs",
    [TOGETHER, *(EACH if SWEEP else ())],
    ids=lambda theirs: ", ".join(map(" ".join, theirs)),
)
def test_rules_of_others_stay_theirs(machine: Machine, theirs: tuple[tuple[str, str], ...]) -> None:
    lab = machine.lab
    with Wire(machine) as wire:
        talk(machine)
        for name, order in theirs:
            if order != "while on":
                start(machine, ALL[name])
        before = dump(machine)
        until("the control has seen it", lambda: len(wire.packets()) > 20)
        machine.up()
        since = now()
        assert dump(machine) == before
        assert page(machine) in lab.exits
        for name, order in theirs:
            match order:
                case "while on":
                    start(machine, ALL[name])
                case "stopped":
                    stop(machine, ALL[name])
                case "reloaded":
                    for _ in range(10):
                        start(machine, ALL[name])
        expected = dump(machine)
        assert (expected == []) == all(order == "stopped" for _, order in theirs)
        assert page(machine) in lab.exits
        assert machine.status()["problems"] == []
        machine.up()
        wire.assert_silent(since, where=str(theirs))
        machine.down()
    assert dump(machine) == expected
    assert "onionward" not in machine.tables()


STARVING = """
table inet theirs {
	chain output { type filter hook output priority filter; policy accept;
		oifname "lo" accept
		jump outward
	}
	chain outward {
		ct state established,related accept
		udp dport 53 accept
		meta l4proto tcp counter drop comment "nobody connects"
	}
}
"""
ONLY_TOR = """
table inet theirs {
	chain output { type filter hook output priority filter; policy drop;
		oifname "lo" accept
		meta skuid "onionward-tor" accept
	}
}
"""
NAMED = (
    "table inet theirs, chain outward, its rule: "
    'meta l4proto tcp counter drop comment "nobody connects"'
)


def test_what_starves_tor_is_named(machine: Machine) -> None:
    # what only the first run does is done
    machine.up()
    machine.down()
    before = machine.snapshot()
    machine.configure("[tor]\nbootstrap_timeout = 5\n")
    start(machine, STARVING)
    there = dump(machine)
    checked = machine.onionward("check")
    assert checked.returncode == 0
    assert f"limit: what tor sends is stopped by another program's firewall: {NAMED}" in (
        checked.stdout
    )
    with Wire(machine) as wire:
        done = machine.run(*killing(0, "up"))
        assert done.returncode == 1
        # by reading the rules, and then by the kernel's own word
        assert "what tor sends is stopped" in done.stdout + done.stderr
        words = " ".join(done.stderr.split())
        assert f"its packets are stopped by another program's firewall: {NAMED}" in words
        assert "Everything was put back" in words
        traces = [(n, e.words) for n, e in enumerate(logged(machine), 1) if "trace" in e.words]
        assert [words for _, words in traces] == [
            "nft --file -  # trace",
            "nft --file -  # end of trace",
        ]
        for number, words in traces if SWEEP else ():
            assert machine.run(*killing(number, "up")).returncode == -9
            assert logged(machine)[-1].words == words
            assert ("onionward_trace" in machine.tables()) == ("end" in words)
            machine.down()
            assert "onionward" not in machine.tables()
        wire.assert_silent()
    assert dump(machine) == there
    stop(machine, STARVING)
    assert difference(before, machine.snapshot()) == ""


def test_who_lets_tor_out_but_not_those_who_are_led_to_it(machine: Machine) -> None:
    machine.up()
    machine.down()
    start(machine, ONLY_TOR)
    said = machine.onionward("check").stdout
    assert "what tor sends" not in said
    assert "what programs send and our rules turn to tor is stopped" in said
    assert "table inet theirs, chain output, its policy: drop" in said
    machine.up()
    done = machine.run("curl", "-sS", "--noproxy", "*", "-m", "2", f"http://{machine.lab.web4}/")
    assert done.returncode != 0
    start(
        machine,
        ONLY_TOR.replace(
            'oifname "lo" accept',
            'oifname "lo" accept\n\t\tip daddr 127.0.0.1 tcp dport 940 accept\n'
            "\t\tip6 daddr ::1 tcp dport 940 accept",
        ),
    )
    assert page(machine) in machine.lab.exits
    assert "another program" not in machine.onionward("check").stdout


def test_a_saved_ruleset_does_not_bring_ours_back(machine: Machine) -> None:
    start(machine, foreign_firewalls.BY_HAND)
    path = machine.path(SAVED)
    theirs = machine.output("nft", "list", "ruleset")
    machine.up()
    path.write_text(
        "#!/usr/sbin/nft -f\nflush ruleset\n" + machine.output("nft", "list", "ruleset")
    )
    path.chmod(0o755)
    assert "table inet onionward {" in path.read_text()
    assert "table netdev onionward_l2 {" in path.read_text()
    (problem,) = machine.status()["problems"]
    assert SAVED in problem
    assert machine.onionward("doctor").returncode == 1
    done = machine.onionward("doctor", "--repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.status()["problems"] == []
    assert machine.status()["state"] == "routed"
    kept = path.read_text()
    assert kept.startswith("#!/usr/sbin/nft -f\nflush ruleset\n")

    path.write_text(
        "#!/usr/sbin/nft -f\nflush ruleset\n" + machine.output("nft", "list", "ruleset")
    )
    done = machine.down()
    words = " ".join(done.stdout.split() + done.stderr.split())
    assert f"{SAVED} had tables of onionward saved in it: taken out" in words
    text = path.read_text().removeprefix("#!/usr/sbin/nft -f\nflush ruleset\n")
    assert without_counts(text) == without_counts(theirs)
    assert path.stat().st_mode & 0o777 == 0o755
    machine.output("nft", "-f", SAVED)
    assert without_counts(machine.output("nft", "list", "ruleset")) == without_counts(theirs)
    # somebody brings it back
    path.write_text("table inet onionward {\n\tchain x {\n\t}\n}\n" + theirs)
    assert SAVED in machine.status()["problems"][0]
    assert "taken out" in " ".join(machine.down().stdout.split())
    assert path.read_text() == theirs
    machine.output("nft", "flush", "ruleset")


def without_counts(text: str) -> str:
    return re.sub(r"packets \d+ bytes \d+", "", text)

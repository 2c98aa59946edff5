"""`up`, `down`, `check` and `status` against the stand-in: no instant in clear, nothing left."""

from __future__ import annotations

import itertools

import pytest

from onionward.bsd import lifecycle
from onionward.bsd.status import status
from onionward.config import parse
from onionward.errors import ConfigError, RefusedError, StepError, VerifyError
from tests.pf.bsd import Bsd, DeathError
from tests.pf.conftest import PF_CONF, Make

LAN = "[host]\nroute = 'tor'\n[[lan]]\ninterface = 'em1'\n"
SYSTEMS = ("openbsd", "freebsd")


class Silent:
    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, words: str) -> None:
        self.said.append(words)

    def warn(self, words: str) -> None:
        self.said.append(words)

    def bootstrap(self, percent: int, words: str) -> None:
        self.said.append(f"{percent} {words}")


def up(machine: Bsd, text: str = LAN) -> Silent:
    report = Silent()
    lifecycle.up(machine, parse(text, "t.toml"), machine.kind, machine.paths, report)
    return report


def down(machine: Bsd, *, force: bool = False) -> bool:
    return lifecycle.down(machine, machine.kind, machine.paths, Silent(), force=force)


def everything(machine: Bsd) -> dict[str, object]:
    """All that `down` has to put back: files with their modes, and pf."""
    etc = machine.kind.etc
    files = {
        str(p.relative_to(etc)): (p.read_bytes(), p.stat().st_mode)
        for p in sorted(etc.rglob("*"))
        if p.is_file()
    }
    machine_state = {
        name: getattr(machine, name)
        for name in ("enabled", "module", "main", "anchors", "lo1", "tor")
    }
    return {**files, **{k: dict(v) if isinstance(v, dict) else v for k, v in machine_state.items()}}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("pf_conf", ["default", None])
def test_up_blocks_then_routes_and_down_leaves_nothing(
    make: Make, system: str, pf_conf: str | None
) -> None:
    machine = make(system, LAN, pf_conf)
    before = everything(machine)
    report = up(machine)
    assert machine.fate() == "trans-port"
    first = next(n for n, fate in enumerate(machine.fates) if fate != "direct")
    assert set(machine.fates[first:]) == {"refused", "trans-port"}
    assert any(words.startswith("blocked") for words in report.said)
    assert machine.states_cleared == 1
    # the connection that a peer of the link has opened lives on, the outward one does not
    assert machine.dropped == ["198.18.0.2 40001 203.0.113.9 443"]
    assert "nameserver 127.0.0.1\n" in machine.paths.resolv_conf.read_text()
    assert status(machine, machine.paths).state == "routed"
    assert status(machine, machine.paths).problems == ()
    machine.fates.clear()
    assert down(machine)
    last = len(machine.fates) - 1 - machine.fates[::-1].index("trans-port")
    assert set(machine.fates[: last + 1]) == {"trans-port"}, "opened last"
    now = everything(machine)
    assert now == before
    assert not machine.paths.journal.exists()
    assert not down(machine), "twice"


@pytest.mark.parametrize("system", SYSTEMS)
def test_killed_anywhere_down_puts_everything_back(make: Make, system: str) -> None:
    before = everything(make(system, LAN))
    for survives in itertools.count():
        machine = make(system, LAN)
        machine.survives = survives
        try:
            up(machine)
        except DeathError:
            first = next((n for n, fate in enumerate(machine.fates) if fate != "direct"), None)
            if first is not None:
                assert "direct" not in machine.fates[first:], survives
            machine.survives = None
            down(machine)
            assert everything(machine) == before, (survives, machine.effects[survives - 1])
        else:
            break
    assert survives > 20


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_down_that_is_killed_goes_on(make: Make, system: str) -> None:
    before = everything(make(system, LAN))
    for survives in itertools.count():
        machine = make(system, LAN)
        up(machine)
        machine.survives = len(machine.effects) + survives
        try:
            down(machine)
        except DeathError:
            machine.survives = None
            down(machine)
            assert everything(machine) == before, survives
        else:
            break
    assert survives > 10


@pytest.mark.parametrize("system", SYSTEMS)
def test_up_twice_never_opens(make: Make, system: str) -> None:
    machine = make(system, LAN)
    before = everything(machine)
    up(machine)
    machine.fates.clear()
    up(machine, LAN + "[bypass]\nnetworks = ['203.0.113.0/24']\n")
    assert "direct" not in machine.fates
    assert "203.0.113.0/24" in machine.anchors["onionward"]
    down(machine)
    assert everything(machine) == before


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_that_fails_puts_everything_back(make: Make, system: str) -> None:
    for refused in ("pfctl -f", "pfctl -o none -a onionward -f", "ifconfig lo1 inet "):
        machine = make(system, LAN)
        before = everything(machine)
        machine.refuses = refused
        with pytest.raises(StepError) as caught:
            up(machine)
        machine.refuses = ""
        if refused == "pfctl -f" and system == "openbsd":
            # the main ruleset cannot be loaded on the way back either, and that is said
            assert "not everything could be put back" in str(caught.value)
            down(machine)
        assert everything(machine) == before, refused


def test_the_machines_own_rules_stay_behind_the_anchor(make: Make) -> None:
    machine = make("openbsd", LAN)
    up(machine)
    lines = machine.main.splitlines()
    assert "#onionward# set skip on lo" in lines
    first = next(n for n, line in enumerate(lines) if line.startswith("anchor"))
    assert first < lines.index("block return\t# block stateless traffic")
    theirs = [line for line in PF_CONF["openbsd"].splitlines() if "skip" not in line]
    assert [line for line in lines if line in theirs] == theirs


def test_pf_conf_that_others_changed_meanwhile_keeps_their_lines(make: Make) -> None:
    machine = make("openbsd", LAN)
    up(machine)
    path = machine.kind.pf_conf
    path.write_text(path.read_text() + "pass in proto tcp to port 8080\n")
    down(machine)
    assert path.read_text() == PF_CONF["openbsd"] + "pass in proto tcp to port 8080\n"
    assert machine.anchors == {}


@pytest.mark.parametrize("system", SYSTEMS)
def test_status_sees_what_no_longer_holds(make: Make, system: str) -> None:
    machine = make(system, LAN)
    up(machine)
    routed = machine.anchors["onionward"]
    for change, words in (
        ({"enabled": False}, "pf is off"),
        ({"anchors": {}}, "the anchor is empty"),
        ({"main": PF_CONF[system]}, "does not begin with anchor"),
    ):
        kept = {name: getattr(machine, name) for name in change}
        for name, value in change.items():
            setattr(machine, name, value)
        found = status(machine, machine.paths)
        assert found.state == "open"
        assert words in found.problems[0]
        for name, value in kept.items():
            setattr(machine, name, value)
    machine.anchors["onionward"] = routed.replace(
        "block return out quick from any to any", "pass out quick from any to any"
    )
    assert "other rules" in status(machine, machine.paths).problems[0]
    machine.anchors["onionward"] = routed
    machine.tor = None
    assert status(machine, machine.paths).state == "blocked"
    down(machine)
    assert status(machine, machine.paths).state == "off"


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_loaded_otherwise_is_found_by_reading_back(make: Make, system: str) -> None:
    from onionward.backend import pf as backend
    from onionward.render import pf

    machine = make(system, LAN)
    up(machine)
    assert machine.policy is not None
    policy = machine.policy
    block, route = pf.block(policy, machine.kind.dialect), pf.route(policy, machine.kind.dialect)
    backend.apply(machine, route)
    backend.verify(machine, route)
    with pytest.raises(VerifyError, match="other rules than were loaded"):
        backend.verify(machine, block)
    machine.main = f"pass quick on em0\n{machine.main}"
    with pytest.raises(VerifyError, match="does not begin with anchor"):
        backend.verify(machine, route)


def test_rules_that_down_could_not_put_back_are_refused(make: Make) -> None:
    machine = make("openbsd", LAN)
    machine.main += "pass in on em0 proto tcp to port 99\n"
    with pytest.raises(ConfigError, match=r"rules in force are not those of .*port = 99.*pfctl -f"):
        up(machine)
    assert machine.effects == [f"mkdir {machine.paths.runtime}", f"rm -r {machine.paths.runtime}"]


def test_without_a_journal_the_anchor_and_its_lines_are_removed(make: Make) -> None:
    machine = make("openbsd", LAN)
    up(machine)
    machine.paths.journal.write_text("{")
    with pytest.raises(Exception, match="damaged"):
        down(machine)
    assert machine.fate() == "trans-port"
    assert down(machine, force=True)
    assert machine.kind.pf_conf.read_text() == PF_CONF["openbsd"]
    assert machine.anchors == {}


def test_connections_that_are_not_cut_keep_the_machine_closed(make: Make) -> None:
    machine = make("openbsd", LAN)
    before = everything(machine)
    up(machine)
    machine.connections.append("tcp 0 0 198.18.0.2.40002 203.0.113.9.443 ESTABLISHED")
    machine.stubborn = True
    with pytest.raises(StepError, match=r"(?s)cannot be cut, to 203.0.113.9.*still protected"):
        down(machine)
    # tor is gone, the rules are not
    assert machine.tor is None
    assert machine.fate() == "trans-port"
    machine.stubborn = False
    down(machine)
    assert everything(machine) == before
    # who came in is not cut
    assert not any("198.18.0.77" in words for words in machine.dropped)


def test_a_machine_that_is_not_routed_keeps_its_connections(make: Make) -> None:
    machine = make("openbsd", "[[lan]]\ninterface = 'em1'\n")
    before = everything(machine)
    up(machine, "[[lan]]\ninterface = 'em1'\n")
    assert machine.states_cleared == 0
    assert machine.dropped == []
    assert machine.ended == ["-k 198.18.8.0/24", "-k 0.0.0.0/0 -k 198.18.8.0/24"]
    assert "set skip on lo\n" in machine.main
    assert not machine.lo1
    down(machine)
    assert everything(machine) == before


HAZARDS = {
    "set skip on em1\n": r"pf.conf:1: `set skip on em1` takes em1 out",
    "set skip on { lo egress }\n": r"pf.conf:1: `set skip on egress` takes em0 out",
    "set state-policy if-bound\n": r"pf.conf:1: with states bound to interfaces",
    'pass in quick on em0\nanchor "onionward"\n': r"pf.conf:1: `pass in quick on em0` is asked "
    r'before anchor "onionward" \(.*pf.conf:2\)',
    'anchor "other/*"\nanchor "onionward"\n': r"pf.conf:1: `anchor",
}


@pytest.mark.parametrize("text", HAZARDS)
def test_foreign_rules_that_would_defeat_ours_are_named(make: Make, text: str) -> None:
    machine = make("openbsd", LAN, text)
    with pytest.raises(ConfigError, match=HAZARDS[text]):
        lifecycle.check(machine, parse(LAN, "t.toml"), machine.kind, machine.paths)
    assert machine.effects == []


def test_what_pf_cannot_express_names_scope_filter_and_way_out(make: Make) -> None:
    machine = make("openbsd")
    for text, words in {
        "onion = true\n": r"t.toml:1: onion: the scope onion is not possible with pf.*nftables",
        "[tor]\nvirtual_networks = ['127.192.0.0/10']\n": r"t.toml:2: .*take 10.192.0.0/10",
        "[[lan]]\ninterface = 'em1'\ndhcp = true\n": r"t.toml:3: lan\[0\].dhcp: the scope lan",
        "[host]\nresolver = 'resolved'\n": r"t.toml:2: host.resolver: resolved manages no",
        "[[user]]\nname = 'alice'\ncontrol = true\n": r"t.toml:3: .*the scope user \(alice\)",
    }.items():
        with pytest.raises(ConfigError, match=words):
            lifecycle.check(machine, parse(text, "t.toml"), machine.kind, machine.paths)
    for text, words in {
        "[[lan]]\ninterface = 'em0'\n": "em0 is the uplink",
        "[[lan]]\ninterface = 'em7'\n": "there is no interface em7",
        "[[user]]\nname = 'nobody7'\n": "there is no account nobody7",
        "[tor]\nvirtual_networks = ['198.18.0.0/15', 'fd12::/32']\n": "198.18.0.0/15",
    }.items():
        with pytest.raises(RefusedError, match=words):
            lifecycle.check(machine, parse(text, "t.toml"), machine.kind, machine.paths)
    assert machine.effects == []

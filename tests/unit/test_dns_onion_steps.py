"""Survey, apply, restore: with a resolver of the machine, with a forwarder, with systemd-resolved.

Commands are answered by a table; a dnsmasq "runs" when it was started and not killed since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from onionward.dns import onion
from onionward.dns.onion import dnsmasq, resolved
from onionward.dns.onion.facts import Environment
from onionward.errors import CommandError, ResolverError
from onionward.paths import Paths
from tests.support import DyingSystem, ScriptedSystem
from tests.unit.test_dns_onion_plan import DNSMASQ, STUB, STUB_FILE, UNBOUND

ORIGINAL = "# by hand\nsearch example.test\nnameserver 192.0.2.1\n"
STATUS = """\
Link 4 (onionward)
Current Scopes: DNS
     Protocols: -DefaultRoute -LLMNR -mDNS -DNSOverTLS DNSSEC=no/unsupported
   DNS Servers: 127.0.0.1:941
    DNS Domain: ~onion
"""


def tor_answers(server: str, port: int) -> str:
    return "127.192.0.1"


class Box:
    """A machine in a directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = Paths(
            state=directory / "state",
            runtime=directory / "run",
            resolv_conf=directory / "resolv.conf",
        )
        self.drop_ins = directory / "drop-ins"
        self.drop_ins.mkdir()
        self.links = directory / "links"
        self.links.mkdir()
        self.runs = False
        monkeypatch.setattr(dnsmasq, "running", lambda _: (99,) if self.runs else ())
        monkeypatch.setattr(dnsmasq, "is_suspended", lambda _: False)
        monkeypatch.setattr(dnsmasq, "_has_ended", lambda _: not self.runs)
        monkeypatch.setattr(resolved, "_LINKS", self.links)
        monkeypatch.setattr(resolved, "_UNMANAGED", directory / "networkd/00-onionward.network")
        monkeypatch.setattr(onion, "is_running", lambda _: True)

    def answers(self) -> Mapping[str, str | CommandError | Callable[[str], str]]:
        return {
            "dnsmasq --conf-file": self._start,
            "ip link add": self._add_link,
            "ip link delete": self._delete_link,
            "ip": "",
            "resolvectl status": STATUS,
            "resolvectl": "",
            "networkctl": "",
            "systemctl": "",
            "/usr/sbin/dnsmasq": "",
            "unbound-checkconf": "",
        }

    def _start(self, _: str) -> str:
        assert not self.runs
        self.runs = True
        return ""

    def _add_link(self, _: str) -> str:
        (self.links / "onionward").mkdir()
        return ""

    def _delete_link(self, _: str) -> str:
        (self.links / "onionward").rmdir()
        return ""

    def kill(self) -> None:
        self.runs = False

    def machine(self, kind: str) -> Environment:
        """A machine of a kind, with the files that it has."""
        here = (str(self.drop_ins),)
        if kind == "forwarder":
            self.paths.resolv_conf.write_text(ORIGINAL)
            return Environment(ORIGINAL)
        if kind == "resolved":
            return Environment(STUB_FILE, servers=(STUB,), resolved=True, networkd=True)
        if kind == "both":
            self.paths.resolv_conf.write_text(ORIGINAL)
            return Environment(ORIGINAL, servers=(STUB,), resolved=True)
        server = UNBOUND if kind == "unbound" else DNSMASQ
        return Environment("nameserver 127.0.0.1\n", servers=(replace(server, directories=here),))

    def everything(self) -> dict[str, object]:
        """All files and links, and whether the forwarder runs."""
        top = self.drop_ins.parent
        files = {
            str(path.relative_to(top)): path.read_text() if path.is_file() else ""
            for path in sorted(top.rglob("*"))
            if path != self.paths.runtime
        }
        return {**files, "runs": self.runs}


class BoxSystem(ScriptedSystem):
    """Kills what it is told to in the box."""

    def __init__(self, box: Box, **answers: str | CommandError) -> None:
        super().__init__({**box.answers(), **answers})
        self._box = box

    def kill(self, pid: int, number: object) -> None:
        self.effect(f"kill {number} {pid}")
        self._box.kill()


class DyingBoxSystem(BoxSystem):
    """Dies immediately before one of its effects."""

    def __init__(self, box: Box, survives: int) -> None:
        super().__init__(box)
        self._survives = survives

    def effect(self, words: str) -> None:
        if len(self.effects) == self._survives:
            raise DyingSystem.DeathError(words)
        super().effect(words)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


KINDS = ("forwarder", "dnsmasq", "unbound", "resolved", "both")


@pytest.mark.parametrize("kind", KINDS)
def test_everything_comes_back(box: Box, kind: str) -> None:
    machine = box.machine(kind)
    before = box.everything()
    system = BoxSystem(box)
    saved: onion.Saved = json.loads(json.dumps(onion.survey(system, machine, 941, box.paths)))
    assert box.everything() == before
    assert system.effects == []
    onion.apply(system, saved, box.paths, ask=tor_answers)
    once = box.everything()
    assert once != before
    assert onion.problems(system, saved, box.paths) == ()
    onion.apply(system, saved, box.paths, ask=tor_answers)
    assert box.everything() == once
    assert onion.restore(system, saved, box.paths) == ""
    assert box.everything() == before
    assert onion.problems(system, saved, box.paths) != ()
    assert onion.restore(system, saved, box.paths) == ""
    assert box.everything() == before


@pytest.mark.parametrize("kind", KINDS)
def test_death_at_every_point_of_apply(box: Box, kind: str) -> None:
    machine = box.machine(kind)
    before = box.everything()
    saved = onion.survey(BoxSystem(box), machine, 941, box.paths)
    for survives in range(100):
        dying = DyingBoxSystem(box, survives)
        try:
            onion.apply(dying, saved, box.paths, ask=tor_answers)
        except DyingSystem.DeathError:
            onion.restore(BoxSystem(box), saved, box.paths)
            assert box.everything() == before, dying.effects
        else:
            assert survives > 1
            return
    raise AssertionError("apply does not end")


@pytest.mark.parametrize("kind", KINDS)
def test_death_at_every_point_of_restore(box: Box, kind: str) -> None:
    machine = box.machine(kind)
    before = box.everything()
    saved = onion.survey(BoxSystem(box), machine, 941, box.paths)
    for survives in range(100):
        onion.apply(BoxSystem(box), saved, box.paths, ask=tor_answers)
        dying = DyingBoxSystem(box, survives)
        try:
            onion.restore(dying, saved, box.paths)
        except DyingSystem.DeathError:
            system = BoxSystem(box)
            onion.restore(system, saved, box.paths)
            assert box.everything() == before, dying.effects
            if saved["drop_in"] is not None:
                assert " ".join(saved["drop_in"]["reload"]) in system.asked
        else:
            assert survives > 1
            return
    raise AssertionError("restore does not end")


def test_a_drop_in_that_somebody_changed_is_left_alone(box: Box) -> None:
    system = BoxSystem(box)
    saved = onion.survey(system, box.machine("dnsmasq"), 941, box.paths)
    onion.apply(system, saved, box.paths, ask=tor_answers)
    drop_in = box.drop_ins / "onionward.conf"
    drop_in.write_text("server=/onion/192.0.2.1\n")
    (problem,) = onion.problems(system, saved, box.paths)
    assert str(drop_in) in problem
    assert "left as it is" in onion.restore(system, saved, box.paths)
    assert drop_in.read_text() == "server=/onion/192.0.2.1\n"


@pytest.mark.parametrize("fails", ["/usr/sbin/dnsmasq", "systemctl try-restart"])
def test_a_resolver_that_does_not_take_it_keeps_running(box: Box, fails: str) -> None:
    machine = box.machine("dnsmasq")
    before = box.everything()
    system = BoxSystem(box, **{fails: CommandError(fails.split(), 1, "bad option at line 3")})
    saved = onion.survey(system, machine, 941, box.paths)
    with pytest.raises(ResolverError, match="bad option at line 3"):
        onion.apply(system, saved, box.paths, ask=tor_answers)
    assert box.everything() == before
    assert ("systemctl restart dnsmasq.service" in system.asked) == fails.startswith("systemctl")


def test_a_resolver_that_still_does_not_ask_tor_is_named(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onion, "_PATIENCE", 0.0)
    saved = onion.survey(BoxSystem(box), box.machine("dnsmasq"), 941, box.paths)
    for tor, theirs, words in (
        ("127.192.0.1", "", "127.0.0.1 has no answer"),
        ("127.192.0.1", "192.0.2.9", "gives 192.0.2.9"),
        ("", "192.0.2.9", "tor does not answer for .onion at port 941"),
    ):
        answers = {("127.0.0.1", 941): tor, ("127.0.0.1", 53): theirs}
        with pytest.raises(ResolverError, match=words):
            onion.apply(BoxSystem(box), saved, box.paths, ask=_from(answers))


def _from(answers: Mapping[tuple[str, int], str]) -> onion.Ask:
    return lambda server, port: answers[server, port]


def test_what_is_there_already_is_no_original(box: Box) -> None:
    machine = box.machine("forwarder")
    system = BoxSystem(box)
    saved = onion.survey(system, machine, 941, box.paths)
    onion.apply(system, saved, box.paths, ask=tor_answers)
    now = replace(machine, resolv_conf=box.paths.resolv_conf.read_text())
    with pytest.raises(ResolverError, match="onionward down"):
        onion.survey(system, now, 941, box.paths)


def test_a_machine_that_cannot_is_refused(box: Box) -> None:
    machine = replace(box.machine("forwarder"), missing=("dnsmasq",))
    assert onion.unusable(machine) != ()
    with pytest.raises(ResolverError, match="apt install dnsmasq-base"):
        onion.survey(BoxSystem(box), machine, 941, box.paths)


@pytest.mark.parametrize("kind", KINDS)
def test_recognised_without_a_journal(box: Box, kind: str) -> None:
    machine = box.machine(kind)
    before = box.everything()
    system = BoxSystem(box)
    assert onion.recognise(system, machine, box.paths) is None
    onion.apply(system, onion.survey(system, machine, 941, box.paths), box.paths, ask=tor_answers)
    if box.paths.resolv_conf.exists():
        machine = replace(machine, resolv_conf=box.paths.resolv_conf.read_text())
    found = onion.recognise(system, machine, box.paths)
    assert found is not None
    assert onion.restore(system, found, box.paths) == ""
    now = box.everything()
    # whether it was there before, nobody remembers
    now.pop("networkd", None)
    assert now == before


def test_a_resolv_conf_of_others_is_not_taken_for_ours(box: Box) -> None:
    machine = box.machine("forwarder")
    system = BoxSystem(box)
    onion.apply(system, onion.survey(system, machine, 941, box.paths), box.paths, ask=tor_answers)
    theirs = "nameserver 192.0.2.77\n"
    box.paths.resolv_conf.write_text(theirs)
    found = onion.recognise(system, replace(machine, resolv_conf=theirs), box.paths)
    assert found is not None
    assert "left as it is" in onion.restore(system, found, box.paths)
    assert box.paths.resolv_conf.read_text() == theirs
    assert not box.runs


class TestResolved:
    def test_other_names_never_go_to_the_link(self, box: Box) -> None:
        system = BoxSystem(box)
        resolved.apply(system, 941, networkd=False)
        settings = [words.split()[1:] for words in system.asked if words.startswith("resolvectl")]
        assert ["default-route", "onionward", "no"] in settings
        assert ["domain", "onionward", "~onion"] in settings
        # there is nobody to ask before all else is set
        assert settings.index(["dns", "onionward", "127.0.0.1:941"]) == len(settings) - 2
        assert settings[-1] == ["status", "onionward"]

    def test_a_link_that_is_not_used_is_an_error(
        self, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resolved, "_PATIENCE", 0.0)
        unused = STATUS.replace("Scopes: DNS", "Scopes: none")
        system = BoxSystem(box, **{"resolvectl status": unused})
        with pytest.raises(ResolverError, match="does not use the link onionward"):
            resolved.apply(system, 941, networkd=False)

    def test_a_setting_that_is_refused_is_an_error(
        self, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resolved, "_PATIENCE", 0.0)
        refused = CommandError(["resolvectl"], 1, "Link onionward is managed.")
        system = BoxSystem(box, **{"resolvectl default-route": refused})
        with pytest.raises(ResolverError, match="Link onionward is managed"):
            resolved.apply(system, 941, networkd=False)

    @pytest.mark.parametrize(
        ("status", "runs", "words"),
        [
            (STATUS, True, ""),
            (STATUS, False, "has ended"),
            (STATUS.replace("~onion", ""), True, "has lost"),
            (STATUS.replace(":941", ":942"), True, "has lost"),
            (STATUS.replace("Scopes: DNS", "Scopes: none"), True, "has lost"),
        ],
    )
    def test_problems(self, box: Box, status: str, runs: bool, words: str) -> None:
        system = BoxSystem(box, **{"resolvectl status": status})
        assert "is gone" in resolved.problem(system, 941, runs=runs)
        resolved.apply(BoxSystem(box), 941, networkd=False)
        found = resolved.problem(system, 941, runs=runs)
        assert words in found if words else found == ""

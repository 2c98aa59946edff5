"""Survey, apply, restore on a routed host, with every manager told; killed anywhere in between.

Commands are answered by a systemd-resolved and a NetworkManager that read their files when told to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onionward.dns import file, host
from onionward.dns.host import networkmanager, resolved, writers
from onionward.dns.host.detect import Environment, NetworkManager
from onionward.dns.onion import facts
from onionward.errors import CommandError
from onionward.paths import Paths
from onionward.render.resolver import resolv_conf
from tests.support import ScriptedSystem

ORIGINAL = "search example.test\nnameserver 192.0.2.1\n"
CONFIGURATION = "name_servers=192.0.2.9\n"
ALL = Environment(
    ORIGINAL,
    programs=frozenset({"systemd-resolve", "NetworkManager"}),
    resolvconf="openresolv",
    network_manager=NetworkManager(),
    dhclient=True,
)
PLAIN = Environment(ORIGINAL)


class Box:
    """A machine in a directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = directory
        self.paths = Paths(directory, directory / "run", directory / "etc/resolv.conf")
        self.environment = ALL
        self.running = {"systemd-resolve", "NetworkManager", "nscd"}
        # what resolved has in force, and what links have been told
        self.obeys = False
        self.domains: dict[int, list[str]] = {2: ["example.test", "~corp.test"], 3: ["lan"]}
        self.networkd_says = ["lan"]
        self.mode = "default"
        self.written = 0
        for name in ("etc", "hooks"):
            (directory / name).mkdir()
        self.paths.resolv_conf.write_text(ORIGINAL)
        (directory / "etc/resolvconf.conf").write_text(CONFIGURATION)
        monkeypatch.setattr(host, "_environment", lambda *_: self.environment)
        monkeypatch.setattr(host, "find_tool", lambda name: name)
        monkeypatch.setattr(facts, "is_running", self.running.__contains__)
        monkeypatch.setattr(facts, "programs", self.running.intersection)
        monkeypatch.setattr(facts, "process_ids", lambda name: (9,) if name in self.running else ())
        monkeypatch.setattr(resolved, "PATH", directory / "resolved.conf.d/zz-onionward.conf")
        monkeypatch.setattr(resolved, "_interfaces", lambda: {1: "lo", 2: "eth0", 3: "eth1"})
        monkeypatch.setattr(resolved, "_is_networkds", lambda index: index == 3)
        monkeypatch.setattr(resolved, "_PATIENCE", 0)
        places = {"run": directory / "nm/zz-onionward.conf", "etc": directory / "etc/nm.conf"}
        monkeypatch.setattr(networkmanager, "PLACES", places)
        monkeypatch.setattr(networkmanager, "find_tool", lambda name: name)
        monkeypatch.setattr(writers, "find_tool", lambda name: name)
        monkeypatch.setattr(writers, "OPENRESOLV", directory / "etc/resolvconf.conf")
        monkeypatch.setattr(writers, "HOOK", directory / "hooks/zz-onionward")

    def everything(self) -> dict[str, object]:
        """All that must be as it was."""
        files = {
            str(path.relative_to(self.top)): path.read_text() if path.is_file() else ""
            for path in sorted(self.top.rglob("*"))
        }
        return {**files, "domains": dict(self.domains), "obeys": self.obeys, "mode": self.mode}

    def run(self, words: Sequence[str]) -> str:
        """What a command does."""
        match words:
            case ["busctl", "--json=short", "get-property", service, *_]:
                return self._properties(service)
            case ["resolvectl", "domain", name, *domains]:
                index = {"eth0": 2, "eth1": 3}[name]
                self.domains.pop(index)  # it has some
                if domains != [""]:
                    self.domains[index] = list(domains)
            case ["resolvectl", "revert", "eth1"]:
                self.domains[3] = self.networkd_says
            case ["systemctl", "try-restart", "systemd-resolved.service"]:
                self.obeys = resolved.PATH.exists()
            case ["nmcli", "general", "reload"]:
                self.mode = "none" if networkmanager.PLACES["run"].exists() else "default"
            case ["resolvconf", "-u"]:
                assert writers.OPENRESOLV.read_text() == CONFIGURATION
                self.written += 1
            case ["nscd", "--invalidate=hosts"] | ["resolvectl", "flush-caches"]:
                pass
            case _:
                raise AssertionError(words)
        return ""

    def _properties(self, service: str) -> str:
        if "NetworkManager" in service:
            return json.dumps({"type": "s", "data": self.mode})
        rows: list[object] = [[0, ".", True]] if self.obeys else []
        for index, domains in self.domains.items():
            rows += [[index, domain.lstrip("~"), domain.startswith("~")] for domain in domains]
        value = "no" if self.obeys else "yes"
        return "\n".join(json.dumps({"data": data}) for data in (rows, *[value] * 4))


class BoxSystem(ScriptedSystem):
    """Does in the box what commands would do; dies before one of its effects, if told to."""

    def __init__(self, box: Box, survives: int | None = None) -> None:
        super().__init__()
        self._box = box
        self._survives = survives

    class DeathError(BaseException):
        """No program can catch a kill."""

    def effect(self, words: str) -> None:
        if len(self.effects) == self._survives:
            raise self.DeathError(words)
        super().effect(words)

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        del stdin, timeout, accept
        words = [*argv[4:]] if argv[0] == "setpriv" else [*argv]
        if words[:2] == ["resolvectl", "domain"] and words[3:] != [""]:
            # it was empty
            self._box.domains.setdefault({"eth0": 2, "eth1": 3}[words[2]], [])
        return self._box.run(words)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def surveyed(box: Box, system: BoxSystem, before: host.Saved | None = None) -> host.Saved:
    """A survey as it comes out of the journal."""
    found = host.survey(system, "auto", before, box.paths)
    saved: host.Saved = json.loads(json.dumps(found))
    assert saved == found
    return saved


def test_everybody_is_told_and_all_comes_back(box: Box) -> None:
    before = box.everything()
    system = BoxSystem(box)
    saved = surveyed(box, system)
    assert box.everything() == before
    assert host.problems(system, saved, box.paths)
    assert host.apply(system, saved, box.paths)
    assert host.problems(system, saved, box.paths) == ()
    assert box.paths.resolv_conf.read_text() == resolv_conf()
    assert (box.obeys, box.domains, box.mode) == (True, {}, "none")
    assert host.restore(system, saved, box.paths) == ""
    assert box.everything() == before
    assert box.written == 1
    assert host.restore(system, saved, box.paths) == ""
    assert box.everything() == before


def test_applied_again_it_changes_nothing(box: Box) -> None:
    saved = surveyed(box, BoxSystem(box))
    host.apply(BoxSystem(box), saved, box.paths)
    again = BoxSystem(box)
    assert surveyed(box, again, saved) == saved
    assert not host.apply(again, saved, box.paths)
    assert again.effects == ["nscd --invalidate=hosts", "resolvectl flush-caches"]


@pytest.mark.parametrize("environment", [ALL, PLAIN, ALL._replace(fixed="it is a mount")])
def test_killed_before_any_effect(box: Box, environment: Environment) -> None:
    box.environment = environment
    before = box.everything()
    saved = surveyed(box, BoxSystem(box))
    counted = BoxSystem(box)
    host.apply(counted, saved, box.paths)
    ahead = len(counted.effects)
    counted = BoxSystem(box)
    host.restore(counted, saved, box.paths)
    back = len(counted.effects)
    assert ahead
    for survives in range(ahead):
        with pytest.raises(BoxSystem.DeathError):
            host.apply(BoxSystem(box, survives), saved, box.paths)
        assert host.restore(BoxSystem(box), saved, box.paths) == ""
        assert box.everything() == before, survives
    for survives in range(ahead):
        with pytest.raises(BoxSystem.DeathError):
            host.apply(BoxSystem(box, survives), saved, box.paths)
        # `up` goes on
        system = BoxSystem(box)
        saved = surveyed(box, system, saved)
        host.apply(system, saved, box.paths)
        assert host.problems(system, saved, box.paths) == ()
        host.restore(system, saved, box.paths)
        assert box.everything() == before, survives
    for survives in range(back):
        host.apply(BoxSystem(box), saved, box.paths)
        with pytest.raises(BoxSystem.DeathError):
            host.restore(BoxSystem(box, survives), saved, box.paths)
        assert host.restore(BoxSystem(box), saved, box.paths) == ""
        assert box.everything() == before, survives


DEVIATIONS = {
    "resolv.conf": "was changed by another program",
    "resolvconf.conf": "openresolv may write resolv.conf",
    "hooks": "zz-onionward was changed or removed",
    "nm": "zz-onionward.conf was changed or removed",
    "mode": "NetworkManager manages names again (dns=default)",
    "resolved.conf.d": "zz-onionward.conf was changed or removed",
    "obeys": "systemd-resolved does not ask tor for all names",
    "domains": "systemd-resolved has domains of its own for eth0 again: ~new.test",
}


@pytest.mark.parametrize("what", DEVIATIONS)
def test_each_deviation_is_named_and_mended(box: Box, what: str) -> None:
    system = BoxSystem(box)
    saved = surveyed(box, system)
    host.apply(system, saved, box.paths)
    deviate(box, what)
    assert any(DEVIATIONS[what] in words for words in host.problems(system, saved, box.paths))
    assert not host.is_stale(system, saved, "auto", box.paths)
    saved = surveyed(box, system, saved)
    host.apply(system, saved, box.paths)
    assert host.problems(system, saved, box.paths) == ()
    assert host.restore(system, saved, box.paths) == ""
    if what == "domains":
        # what the link has got meanwhile is what returns
        assert box.domains == {2: ["~new.test"], 3: ["lan"]}
    if what == "resolv.conf":
        assert box.paths.resolv_conf.read_text() == "nameserver 203.0.113.1\n"


def deviate(box: Box, what: str) -> None:
    match what:
        case "resolv.conf":
            box.paths.resolv_conf.write_text("nameserver 203.0.113.1\n")
        case "resolvconf.conf":
            writers.OPENRESOLV.write_text(CONFIGURATION)
        case "hooks":
            writers.HOOK.unlink()
        case "nm":
            networkmanager.PLACES["run"].unlink()
        case "mode":
            box.mode = "default"
        case "resolved.conf.d":
            resolved.PATH.unlink()
        case "obeys":
            box.obeys = False
        case "domains":
            box.domains[2] = ["~new.test"]


def test_networkds_domains_are_what_it_says_by_then(box: Box) -> None:
    system = BoxSystem(box)
    saved = surveyed(box, system)
    host.apply(system, saved, box.paths)
    box.networkd_says = ["of-a-later-lease"]
    host.restore(system, saved, box.paths)
    assert box.domains == {2: ["example.test", "~corp.test"], 3: ["of-a-later-lease"]}


def test_a_resolved_that_has_ended_is_not_started(box: Box) -> None:
    system = BoxSystem(box)
    saved = surveyed(box, system)
    host.apply(system, saved, box.paths)
    box.running.discard("systemd-resolve")
    last = BoxSystem(box)
    assert host.problems(last, saved, box.paths) == ()
    assert "domains of eth0, eth1 are not put back" in host.restore(last, saved, box.paths)
    assert not [words for words in last.effects if "resolve" in words.split()[0]]


def test_another_manager_makes_it_stale(box: Box) -> None:
    system = BoxSystem(box)
    saved = surveyed(box, system)
    host.apply(system, saved, box.paths)
    assert host.is_stale(system, saved, "file", box.paths)
    box.environment = ALL._replace(programs=frozenset({"systemd-resolve"}))
    assert host.is_stale(system, saved, "auto", box.paths)


def test_what_has_become_read_only_stays_ours(box: Box) -> None:
    """The original cannot be put back there, and `up` would fail in trying."""
    system = BoxSystem(box)
    saved = surveyed(box, system)
    host.apply(system, saved, box.paths)
    box.environment = ALL._replace(fixed="its file system is read-only")
    assert not host.is_stale(system, saved, "auto", box.paths)
    later = surveyed(box, system, saved)
    assert later["resolv_conf"] == saved["resolv_conf"]


def test_without_a_journal_what_is_left_is_recognised(box: Box) -> None:
    before = box.everything()
    assert host.recognise(box.paths) is None
    system = BoxSystem(box)
    host.apply(system, surveyed(box, system), box.paths)
    found = host.recognise(box.paths)
    assert found is not None
    assert {path.name for path in host.traces(found, box.paths)} == {
        *("resolv.conf", "resolvconf.conf", "zz-onionward", "zz-onionward.conf")
    }
    assert host.restore(system, found, box.paths) == ""
    after = box.everything()
    # the one thing that nobody knows any more, and the directories, empty now
    assert after.pop("domains") == {}
    assert before.pop("domains")
    assert {**before, "nm": "", "resolved.conf.d": ""} == after
    assert host.recognise(box.paths) is None


@pytest.mark.parametrize("name", ["resolved", "networkmanager", "openresolv", "dhclient"])
def test_each_trace_alone_is_recognised(box: Box, name: str) -> None:
    system = BoxSystem(box)
    saved: Any = surveyed(box, system)
    host.apply(system, saved, box.paths)
    kept: Any = {**saved, name: None}
    host.restore(system, kept, box.paths)
    found: Any = host.recognise(box.paths)
    parts = ("resolv_conf", "resolved", "networkmanager", "openresolv", "dhclient")
    assert [part for part in parts if found[part]] == [name]


def test_what_is_watched(box: Box) -> None:
    system = BoxSystem(box)
    saved = surveyed(box, system)
    found = host.watched(saved, box.paths)
    assert set(found) == {
        box.paths.resolv_conf,
        resolved.PATH,
        networkmanager.PLACES["run"],
        writers.OPENRESOLV,
        writers.HOOK,
        *resolved.DIRECTORIES,
    }
    box.environment = PLAIN
    assert host.watched(surveyed(box, system), box.paths) == (box.paths.resolv_conf,)


def test_what_stays_as_it_is(box: Box) -> None:
    box.environment = PLAIN._replace(fixed="/etc: its file system is read-only")
    system = BoxSystem(box)
    saved = surveyed(box, system)
    assert not host.apply(system, saved, box.paths)
    assert box.paths.resolv_conf.read_text() == ORIGINAL
    assert host.is_in_force(saved, box.paths)
    assert host.problems(system, saved, box.paths) == ()
    assert "stays as it is, and queries go to Tor: /etc" in host.words(saved, box.paths)
    assert host.restore(system, saved, box.paths) == ""


def test_what_dhclient_wrote_meanwhile_returns_where_nothing_was(box: Box) -> None:
    box.paths.resolv_conf.unlink()
    system = BoxSystem(box)
    saved = surveyed(box, system)
    host.apply(system, saved, box.paths)
    file.waiting_name(box.paths.resolv_conf).write_text("nameserver 192.0.2.7\n")
    assert host.restore(system, saved, box.paths) == ""
    assert box.paths.resolv_conf.read_text() == "nameserver 192.0.2.7\n"


def test_a_manager_that_refuses_is_said(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    system = BoxSystem(box)
    saved = surveyed(box, system)

    def refuse(words: Sequence[str]) -> str:
        raise CommandError(words, 1, "refused")

    monkeypatch.setattr(box, "run", refuse)
    with pytest.raises(CommandError):
        host.apply(system, saved, box.paths)
    found = host.problems(system, saved, box.paths)
    assert any("systemd-resolved does not answer" in words for words in found)


def test_the_texts_that_would_be_used(box: Box) -> None:
    found = host.text(BoxSystem(box), "auto", box.paths)
    assert "is managed by networkmanager: NetworkManager runs and writes it" in found
    for text in (resolv_conf(), resolved.TEXT, networkmanager.TEXT, "libc=NO", "make_resolv_conf"):
        assert text in found

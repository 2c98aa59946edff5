"""Kernel settings of LAN interfaces: what is written, and that exactly what was there returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from onionward.errors import CommandError
from onionward.lan import sysctls
from tests.support import DyingSystem, LocalSystem

OURS = {
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv6/conf/eth1/accept_ra": "0",
    "net/ipv6/conf/eth1/forwarding": "1",
    "net/ipv4/conf/eth1/send_redirects": "0",
    "net/ipv4/conf/eth1/route_localnet": "0",
    "net/ipv4/conf/eth1/arp_ignore": "1",
}


class Kernel(LocalSystem):
    """Settings as files, written by `sysctl` and read from /proc/sys; routers of given interfaces.

    A kernel that forgets the routes of routers as Linux does when an interface becomes one.

    Args:
        proc_sys: where the settings are.
        dies_after: how many settings `sysctl` writes before it is killed with us.

    """

    def __init__(self, proc_sys: Path, dies_after: int | None = None) -> None:
        super().__init__()
        self.proc_sys = proc_sys
        self.learned: set[str] = set()
        self.refuses = ""
        self._left = dies_after

    def read(self, name: str) -> str:
        return (self.proc_sys / name).read_text().strip()

    def add(self, interface: str, *, forwarding: str = "0", accept_ra: str = "1") -> None:
        values = {
            "net/ipv6/conf/{}/accept_ra": accept_ra,
            "net/ipv6/conf/{}/forwarding": forwarding,
            "net/ipv4/conf/{}/send_redirects": "1",
            "net/ipv4/conf/{}/route_localnet": "0",
            "net/ipv4/conf/{}/arp_ignore": "0",
        }
        for pattern, value in values.items():
            self.put(pattern.format(interface), value)

    def put(self, name: str, value: str) -> None:
        path = self.proc_sys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")

    def remove(self, interface: str) -> None:
        for family in ("ipv4", "ipv6"):
            for path in (self.proc_sys / "net" / family / "conf" / interface).iterdir():
                path.unlink()

    def all_values(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.proc_sys)): path.read_text()
            for path in self.proc_sys.rglob("*")
            if path.is_file()
        }

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        del stdin, timeout, accept
        words = list(argv)
        if "ip" in words:
            return json.dumps([{"dst": "default", "dev": dev} for dev in sorted(self.learned)])
        assignments = words[words.index("-w") + 1 :]
        assert words[-len(assignments) - 3 : -len(assignments)] == ["sysctl", "-q", "-w"]
        failed = ""
        for assignment in assignments:
            name, _, value = assignment.partition("=")
            if self._left is not None:
                if self._left == 0:
                    raise DyingSystem.DeathError(assignment)
                self._left -= 1
            if not (self.proc_sys / name).exists() or name == self.refuses:
                failed = name
                continue
            self.put(name, value)
            if name.endswith("/forwarding") and value == "1":
                self._forget_routers()
        if failed:
            raise CommandError(argv, 1, f"cannot stat {failed}")
        return ""

    def _forget_routers(self) -> None:
        for dev in tuple(self.learned):
            if self.read(f"net/ipv6/conf/{dev}/accept_ra") != "2":
                self.learned.discard(dev)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Kernel(tmp_path)
    for name in ("all", "eth0", "eth1", "eth1.5"):
        made.add(name)
    return made


def survey(kernel: Kernel, *interfaces: str, earlier: sysctls.Saved | None = None) -> sysctls.Saved:
    saved = sysctls.survey(kernel, interfaces, earlier, proc_sys=kernel.proc_sys)
    # what the journal gives back
    read: sysctls.Saved = json.loads(json.dumps(saved))
    return read


def apply(kernel: Kernel, saved: sysctls.Saved) -> None:
    sysctls.apply(kernel, saved, proc_sys=kernel.proc_sys)


def restore(kernel: Kernel, saved: sysctls.Saved) -> str:
    return sysctls.restore(kernel, saved, proc_sys=kernel.proc_sys)


def test_what_is_written(kernel: Kernel) -> None:
    before = kernel.all_values()
    apply(kernel, survey(kernel, "eth1"))
    after = kernel.all_values()
    assert {name: value.strip() for name, value in after.items() if value != before[name]} == {
        name: value for name, value in OURS.items() if not name.endswith("route_localnet")
    }
    assert kernel.read("net/ipv6/conf/all/forwarding") == "0"


def test_everything_returns(kernel: Kernel) -> None:
    before = kernel.all_values()
    saved = survey(kernel, "eth1", "eth1.5")
    apply(kernel, saved)
    apply(kernel, saved)
    assert kernel.read("net/ipv4/conf/eth1.5/arp_ignore") == "1"
    assert restore(kernel, saved) == ""
    assert kernel.all_values() == before
    assert restore(kernel, saved) == ""
    assert kernel.all_values() == before


def test_nothing_is_written_twice(kernel: Kernel) -> None:
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    kernel.effects.clear()
    apply(kernel, saved)
    assert kernel.effects == []


def test_without_a_lan_nothing_is_written(kernel: Kernel) -> None:
    apply(kernel, survey(kernel))
    assert kernel.effects == []


def test_the_uplink_keeps_its_router(kernel: Kernel) -> None:
    kernel.learned = {"eth0"}
    before = kernel.all_values()
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    assert kernel.learned == {"eth0"}
    assert kernel.read("net/ipv6/conf/eth0/accept_ra") == "1"
    restore(kernel, saved)
    assert kernel.all_values() == before


def test_a_router_on_the_lan_itself_is_still_heard(kernel: Kernel) -> None:
    kernel.learned = {"eth1"}
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    assert kernel.learned == {"eth1"}
    assert kernel.read("net/ipv6/conf/eth1/accept_ra") == "2"
    restore(kernel, saved)
    assert kernel.read("net/ipv6/conf/eth1/accept_ra") == "1"


@pytest.mark.parametrize("written", range(7))
def test_killed_in_the_middle(kernel: Kernel, written: int) -> None:
    kernel.learned = {"eth0"}
    before = kernel.all_values()
    saved = survey(kernel, "eth1")
    dying = Kernel(kernel.proc_sys, dies_after=written)
    dying.learned = kernel.learned
    with pytest.raises(DyingSystem.DeathError):
        apply(dying, saved)
    if written:
        assert kernel.all_values() != before
    assert restore(kernel, saved) == ""
    assert kernel.all_values() == before


@pytest.mark.parametrize("written", range(7))
def test_repeated_after_a_kill(kernel: Kernel, written: int) -> None:
    kernel.learned = {"eth0"}
    before = kernel.all_values()
    saved = survey(kernel, "eth1")
    dying = Kernel(kernel.proc_sys, dies_after=written)
    dying.learned = kernel.learned
    with pytest.raises(DyingSystem.DeathError):
        apply(dying, saved)
    again = survey(kernel, "eth1", earlier=saved)
    apply(kernel, again)
    assert kernel.learned == {"eth0"}
    assert kernel.read("net/ipv6/conf/eth0/accept_ra") == "1"
    assert {name: kernel.read(name) for name in OURS} == OURS
    assert restore(kernel, again) == ""
    assert kernel.all_values() == before


@pytest.mark.parametrize("written", range(5))
def test_killed_in_the_middle_of_the_way_back(kernel: Kernel, written: int) -> None:
    before = kernel.all_values()
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    with pytest.raises(DyingSystem.DeathError):
        restore(Kernel(kernel.proc_sys, dies_after=written), saved)
    assert kernel.all_values() != before
    assert restore(kernel, saved) == ""
    assert kernel.all_values() == before


def test_what_others_changed_is_left_alone(kernel: Kernel) -> None:
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    kernel.put("net/ipv4/conf/eth1/arp_ignore", "2")
    assert restore(kernel, saved) == (
        "net/ipv4/conf/eth1/arp_ignore was changed by somebody else meanwhile and left so"
    )
    assert kernel.read("net/ipv4/conf/eth1/arp_ignore") == "2"
    assert kernel.read("net/ipv6/conf/eth1/forwarding") == "0"


def test_forwarding_that_others_switched_on_stays_on(kernel: Kernel) -> None:
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    # the kernel writes the value of every interface with it
    for name in ("all", "eth0", "eth1"):
        kernel.put(f"net/ipv6/conf/{name}/forwarding", "1")
    assert "net/ipv6/conf/eth1/forwarding was changed" in restore(kernel, saved)
    assert kernel.read("net/ipv6/conf/eth1/forwarding") == "1"


def test_accept_ra_that_others_set_is_left_alone(kernel: Kernel) -> None:
    kernel.learned = {"eth0"}
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    kernel.put("net/ipv6/conf/eth0/accept_ra", "2")
    restore(kernel, saved)
    assert kernel.read("net/ipv6/conf/eth0/accept_ra") == "2"


def test_an_interface_that_is_gone(kernel: Kernel) -> None:
    saved = survey(kernel, "eth1", "eth1.5")
    apply(kernel, saved)
    kernel.remove("eth1")
    assert restore(kernel, saved) == ""
    assert kernel.read("net/ipv4/conf/eth1.5/arp_ignore") == "0"


def test_an_interface_that_goes_while_it_is_written(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = survey(kernel, "eth1", "eth1.5")
    # gone after apply has looked and before sysctl writes
    monkeypatch.setattr(kernel, "effect", lambda _: kernel.remove("eth1"))
    apply(kernel, saved)
    assert kernel.read("net/ipv4/conf/eth1.5/arp_ignore") == "1"


def test_an_interface_that_appears_later(kernel: Kernel) -> None:
    kernel.remove("eth1")
    first = survey(kernel, "eth1", "eth1.5")
    apply(kernel, first)
    kernel.add("eth1", accept_ra="0")
    second = survey(kernel, "eth1", "eth1.5", earlier=first)
    apply(kernel, second)
    assert kernel.read("net/ipv6/conf/eth1/forwarding") == "1"
    assert restore(kernel, second) == ""
    assert kernel.read("net/ipv6/conf/eth1/forwarding") == "0"
    assert kernel.read("net/ipv6/conf/eth1/accept_ra") == "0"
    assert kernel.read("net/ipv4/conf/eth1.5/arp_ignore") == "0"
    assert kernel.read("net/ipv4/conf/all/send_redirects") == "1"


def test_a_refused_value_is_an_error(kernel: Kernel) -> None:
    saved = survey(kernel, "eth1")
    kernel.refuses = "net/ipv6/conf/eth1/forwarding"
    with pytest.raises(CommandError, match="forwarding"):
        apply(kernel, saved)
    assert restore(kernel, saved) == ""


def test_a_kernel_without_ipv6(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    for interface in ("all", "eth1"):
        kernel.put(f"net/ipv4/conf/{interface}/send_redirects", "1")
        kernel.put(f"net/ipv4/conf/{interface}/arp_ignore", "0")
    before = kernel.all_values()
    saved = survey(kernel, "eth1")
    apply(kernel, saved)
    assert kernel.read("net/ipv4/conf/eth1/arp_ignore") == "1"
    assert restore(kernel, saved) == ""
    assert kernel.all_values() == before

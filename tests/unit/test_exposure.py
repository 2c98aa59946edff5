"""What is found that acts for an account, and what of it cannot be closed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onionward import acl, deputies, exposure
from onionward.exposure import Bus, Found, Place
from tests.unit.exposed_machine import BOB, BOXED, CAROL, NSCD, RESOLVED, furnish, write

RUN = acl.Permissions(0, 0, 0o40755, acl.minimal(0o755))
SOCKET = acl.Permissions(0, 0, 0o140666, acl.minimal(0o666))
GROUP_SOCKET = acl.Permissions(0, 50, 0o140660, acl.minimal(0o660))


def _place(path: str, own: acl.Permissions = SOCKET, obstacle: str = "") -> Found:
    return Found({Path(path): Place(Path(path), (RUN, own), False, obstacle)})


def test_a_machine_is_read(tmp_path: Path) -> None:
    furnish(tmp_path)
    found = exposure.look(tmp_path)
    assert {str(path) for path in found.places} == {
        "/run/systemd/resolve",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/systemd/resolve/io.systemd.Resolve.Monitor",
        "/run/nscd",
        "/run/nscd/socket",
        "/run/docker.sock",
    }
    nscd = found.places[Path("/run/nscd/socket")]
    assert nscd.path == tmp_path / NSCD / "socket"
    assert not nscd.has_list
    assert nscd.obstacle == ""
    assert found.bus is not None
    assert found.bus.names == {"org.freedesktop.Avahi"}
    assert found.bus.is_running
    assert found.bus.has_directory
    assert found.bus.policy is None
    assert found.bus.file == tmp_path / "etc/dbus-1/system.d/onionward.conf"
    assert found.newuidmap is None
    assert found.upcalls is None
    (resolved,) = [d for d in deputies.DEPUTIES if d.name == "resolved"]
    assert found.of(resolved)[0].path == tmp_path / RESOLVED


def test_an_empty_machine(tmp_path: Path) -> None:
    found = exposure.look(tmp_path)
    assert found.places == {}
    assert found.bus is None
    assert exposure.ways_around(found, BOXED) == ()


def test_what_else_looks_up_names(tmp_path: Path) -> None:
    write(tmp_path, "sbin/key.dns_resolver", "")
    write(tmp_path, "proc/self/mounts", "-hosts /net autofs rw 0 0\n/etc/auto.x /x autofs rw 0 0\n")
    write(tmp_path, "usr/bin/newuidmap", "")
    found = exposure.look(tmp_path)
    assert found.automounts == ("/net",)
    assert found.upcalls is not None
    assert found.newuidmap is not None
    ways = exposure.ways_around(found, BOB)
    assert [way.name for way in ways] == ["autofs", "request-key"]
    assert "/net" in ways[0].reason
    assert "/sbin/key.dns_resolver" in ways[1].reason


def test_everything_can_be_closed_on_an_ordinary_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure, "find_tool", lambda name: f"/usr/bin/{name}")
    furnish(tmp_path)
    assert exposure.ways_around(exposure.look(tmp_path), BOB) == ()


@pytest.mark.parametrize("obstacle", ["its file system has no access control lists", "read-only"])
def test_a_place_that_cannot_be_closed(obstacle: str) -> None:
    (way,) = exposure.ways_around(_place("/run/nscd/socket", obstacle=obstacle), BOB)
    assert way.name == "nscd"
    assert f"/run/nscd/socket cannot be closed: {obstacle}" in way.reason


def test_a_place_that_is_closed_to_the_account_anyway() -> None:
    found = _place("/run/docker.sock", GROUP_SOCKET, "read-only")
    assert exposure.ways_around(found, BOB) == ()
    assert [way.name for way in exposure.ways_around(found, CAROL)] == ["containers"]


def test_a_bus_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    furnish(tmp_path)
    monkeypatch.setattr(exposure, "find_tool", lambda _name: None)
    (way,) = exposure.ways_around(exposure.look(tmp_path), BOB)
    assert way.name == "avahi"
    assert "neither busctl nor dbus-send" in way.reason
    # a bus that does not run reads everything when it starts
    (tmp_path / "run/dbus/system_bus_socket").unlink()
    assert exposure.ways_around(exposure.look(tmp_path), BOB) == ()


def test_a_bus_that_knows_none_of_the_services() -> None:
    found = Found(bus=Bus(frozenset(), obstacle="cannot be written"))
    assert exposure.ways_around(found, BOB) == ()


def test_services_that_the_account_needs_are_told_of() -> None:
    (way,) = exposure.ways_around(_place("/var/lib/sss/pipes/nss"), BOB)
    assert way.name == "sssd"
    assert "own entry" in way.reason


def test_subordinate_ids_are_told_of_where_they_can_be_had() -> None:
    found = _place("/run/nscd/socket")
    program = acl.Permissions(0, 0, 0o104755, acl.minimal(0o755))
    assert exposure.ways_around(found, BOXED) == ()
    assert exposure.ways_around(replace(found, newuidmap=program), BOB) == ()
    (way,) = exposure.ways_around(replace(found, newuidmap=program), BOXED)
    assert way.name == "subordinate"
    assert "100000-165535" in way.reason
    assert "nscd" in way.reason
    closed = acl.Permissions(0, 0, 0o104750, acl.minimal(0o750))
    assert exposure.ways_around(replace(found, newuidmap=closed), BOXED) == ()


def test_names_of_services_are_told_apart() -> None:
    names = [d.name for d in (*deputies.DEPUTIES, *deputies.DIRECTORIES_OF_ACCOUNTS)]
    assert len(names) == len(set(names))
    for deputy in deputies.DEPUTIES:
        assert deputy.bus_names or deputy.sockets or deputy.directories or deputy.ports
        for path in (*deputy.directories, *deputy.sockets):
            assert path.is_absolute()
            assert path.parts[1] in ("run", "var")


def test_ports_of_services_that_connect_for_others() -> None:
    assert deputies.ports_closed_to([]) == (25, 465, 587, 631, 1080, 3128, 8118, 8123)
    assert deputies.ports_closed_to(["mail", "proxy", "nscd"]) == (631,)

"""What `onionward run` is asked, what it hides and passes on; nothing here touches the machine."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from onionward.app import allow, mounts, seccomp
from onionward.app.environment import Identity, variables
from onionward.app.mounts import Cover, Hide, Keep, Own, View
from onionward.app.request import Request, parse
from onionward.app.root import netlink, places, rules
from onionward.errors import RefusedError

ALICE = Identity(1000, 1000, (1000, 27), "alice", "/home/alice", "/bin/bash")


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("curl -v x", Request(("curl", "-v", "x"))),
        ("-- -odd", Request(("-odd",))),
        ("--name n -- true", Request(("true",), name="n")),
        ("--name=n --new-circuits true", Request(("true",), name="n", new_circuits=True)),
        ("--config /a/b true", Request(("true",), config="/a/b")),
        ("--as bob true --name x", Request(("true", "--name", "x"), account="bob")),
        (
            "--allow audio --allow no-display true",
            Request(("true",), allowed=frozenset({"audio"})),
        ),
    ],
)
def test_a_request_is_read(words: str, request_: Request) -> None:
    assert parse(words.split()) == request_


@pytest.mark.parametrize(
    "words", ["", "--", "--name", "--as", "--allow", "--what true", "--allow x true", "-n x true"]
)
def test_what_is_no_request_is_refused(words: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse(words.split())
    assert refused.value.exit_status == 2


@pytest.mark.parametrize("word", ["fd:2", "fd:x", "fd:", "socket:x", "no-audio", "tty", "audio:1"])
def test_what_cannot_be_allowed_is_named(word: str) -> None:
    assert word in allow.complaint(word)


def test_descriptors_are_allowed_by_number() -> None:
    assert allow.descriptors(allow.granted(("fd:9", "fd:4", "audio"))) == (4, 9)


def view(allowed: frozenset[str] = allow.BY_DEFAULT, **variables: str) -> View:
    sockets = (
        "/home/alice/agent",
        "/run/dbus/system_bus_socket",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/udev/data/odd",
        "/tmp/.X11-unix/X0",  # noqa: S108
        "/tmp/tmux-1000/default",  # noqa: S108
    )
    return View(
        uid=1000,
        environment=variables,
        allowed=allowed,
        sockets=sockets,
        present=frozenset(mounts.candidates(1000, variables, allowed)),
        targets=("/run/systemd/resolve/stub-resolv.conf", "/etc/nsswitch.conf", "/etc/hosts"),
        nsswitch="passwd: files\nhosts: files resolve dns\n",
        host_name="box",
        name_server="192.0.2.53",
    )


def paths(steps: tuple[mounts.Step, ...], kind: type) -> set[str]:
    return {str(getattr(step, "path")) for step in steps if isinstance(step, kind)}  # noqa: B009


def test_all_of_run_is_hidden_and_sockets_elsewhere_are_covered() -> None:
    steps = mounts.plan(view())
    assert {"/run", "/tmp/.X11-unix", "/dev/infiniband"} <= paths(steps, Hide)  # noqa: S108
    assert paths(steps, Cover) == {
        "/home/alice/agent",
        "/tmp/tmux-1000/default",  # noqa: S108
        # of what is kept of /run, too
        "/run/udev/data/odd",
    }
    assert not {path for path in paths(steps, Keep) if "dbus" in path or "systemd" in path}


def test_what_is_allowed_is_kept() -> None:
    words = frozenset({"system-bus", "ssh-agent", "display", "socket:/run/x"})
    steps = mounts.plan(view(words, SSH_AUTH_SOCK="/home/alice/agent", DISPLAY=":0.0"))
    kept = paths(steps, Keep)
    assert {mounts.SYSTEM_BUS, "/tmp/.X11-unix/X0", "/run/x"} <= kept  # noqa: S108
    assert "/home/alice/agent" not in paths(steps, Cover) | kept
    without = mounts.plan(view(frozenset(), DISPLAY=":0"))
    assert not {path for path in paths(without, Keep) if "X11" in path}


def test_what_is_kept_comes_after_what_hides_it() -> None:
    steps = mounts.plan(view(DISPLAY=":0"))
    hidden = max(n for n, step in enumerate(steps) if isinstance(step, Hide))
    assert all(n > hidden for n, step in enumerate(steps) if isinstance(step, Keep | Own | Cover))


def test_names_are_asked_of_files_and_dns_alone() -> None:
    own = {step.name: step for step in mounts.plan(view()) if isinstance(step, Own)}
    assert own["resolv.conf"].path == "/run/systemd/resolve/stub-resolv.conf"
    assert "nameserver 192.0.2.53\n" in own["resolv.conf"].text
    assert own["nsswitch.conf"].text == "passwd: files\nhosts: files dns\n"
    assert "127.0.1.1 box" in own["hosts"].text


def test_sockets_are_read_from_the_kernels_list() -> None:
    table = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 123 /var/run/nscd/socket\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 124 @abstract\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 125\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 126 /tmp/with space\n"
    )
    assert mounts.sockets_of(table) == ("/tmp/with space", "/var/run/nscd/socket")  # noqa: S108


def test_variables_of_others_are_no_ones_business() -> None:
    inherited = {
        "OWN": "x",
        "SUDO_UID": "1000",
        "HOME": "/root",
        "SSH_AUTH_SOCK": "/x",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x",
        "DISPLAY": ":0",
        "NOTIFY_SOCKET": "/x",
    }
    found = variables(ALICE, Request(("x",)), inherited, is_other=True, has_runtime=True)
    assert found == {
        "OWN": "x",
        "DISPLAY": ":0",
        "HOME": "/home/alice",
        "SHELL": "/bin/bash",
        "USER": "alice",
        "LOGNAME": "alice",
        "XDG_RUNTIME_DIR": "/run/user/1000",
    }
    allowed = Request(("x",), allowed=frozenset({"ssh-agent"}))
    found = variables(ALICE, allowed, inherited, is_other=False, has_runtime=False)
    assert found["SSH_AUTH_SOCK"] == "/x"
    assert "DISPLAY" not in found
    assert found["HOME"] == "/root"


@dataclass(frozen=True)
class Call:
    """What the kernel tells a filter."""

    architecture: int
    number: int
    first: int = 0
    second: int = 0


def judged(code: bytes, call: Call) -> int:
    """What a filter answers: the part of a BPF machine that it uses."""
    data = struct.pack("<IIQQQ", call.number, call.architecture, 0, call.first, call.second)
    place = value = 0
    while True:
        kind, if_true, if_false, operand = struct.unpack_from("=HBBI", code, place * 8)
        place += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        elif kind == 0x15:
            place += if_true if value == operand else if_false
        else:
            assert kind == 0x06
            return int(operand)


X86, I386, ARM = 0xC000003E, 0x40000003, 0xC00000B7


@pytest.mark.parametrize(
    ("machine", "call", "answer"),
    [
        ("x86_64", Call(X86, 16, 0, 0x5412), 0x50001),
        ("x86_64", Call(X86, 16, 0, 0x541C), 0x50001),
        ("x86_64", Call(X86, 16, 0, 0x5413), 0x7FFF0000),
        # the kernel looks at 32 bits of it, and so must the filter
        ("x86_64", Call(X86, 16, 0, 0xFF00005412), 0x50001),
        ("x86_64", Call(X86, 0x40000000 | 514, 0, 0x5412), 0x50001),
        # before Linux 5.14 those of x86-64 were taken with the bit of x32 as well
        ("x86_64", Call(X86, 0x40000000 | 16, 0, 0x5412), 0x50001),
        ("x86_64", Call(X86, 41, 40), 0x50061),
        ("x86_64", Call(X86, 41, 2), 0x7FFF0000),
        ("x86_64", Call(X86, 0, 40, 0x5412), 0x7FFF0000),
        ("x86_64", Call(I386, 54, 0, 0x5412), 0x50001),
        ("x86_64", Call(I386, 359, 40), 0x50061),
        ("x86_64", Call(I386, 41, 40), 0x7FFF0000),
        ("aarch64", Call(ARM, 29, 0, 0x5412), 0x50001),
        ("aarch64", Call(ARM, 198, 40), 0x50061),
        ("aarch64", Call(ARM, 63), 0x7FFF0000),
    ],
)
def test_the_filter_of_system_calls(machine: str, call: Call, answer: int) -> None:
    # the second argument is 24 bytes behind the number, the first 16
    shifted = seccomp.program(machine)
    assert judged(shifted, call) == answer


@pytest.mark.parametrize(
    ("other", "machine"), [("i686", "x86_64"), ("i386", "x86_64"), ("armv8l", "aarch64")]
)
def test_another_personality_is_no_way_around_the_filter(other: str, machine: str) -> None:
    assert seccomp.program(other) == seccomp.program(machine) != b""


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert seccomp.program("vax") == b""


def test_addresses_of_runs_are_in_their_networks_and_differ() -> None:
    from onionward.networks import contains
    from tests.support import addr, net

    fours = {places.address4(number) for number in range(1, places.MOST + 1)}
    sixes = {places.address6(number) for number in range(1, places.MOST + 1)}
    assert len(fours) == len(sixes) == places.MOST
    assert all(contains([net(places.RUNS4)], addr(one)) for one in fours)
    assert all(contains([net(places.RUNS6)], addr(one)) for one in sixes)
    # the last one is no broadcast address
    assert places.address4(places.MOST) == "169.254.127.254"


def test_both_tables_of_rules_are_the_same() -> None:
    kept, owned = rules.render(940, 941), rules.owned(940, 941)
    assert kept.split("{", 1)[1] == owned.split("{", 1)[1].replace("\n\tflags owner", "", 1)
    assert "owner" not in kept


def test_messages_to_the_kernel_are_padded() -> None:
    for _, _, body in (
        netlink.veth("a", "bcd", 5, b"\2\0\0\0\0\1"),
        netlink.route("192.0.2.0/24", 0),
        netlink.rule(2, 10, 17, 53),
    ):
        assert len(body) % 4 == 0

"""`onionward run` as root: what an application is and sees.

The machine is off all the time but where a test says otherwise.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from onionward.app.root.places import TOR4
from onionward.lab import Lab
from tests.lab.app_bench import KEEPER, processes
from tests.lab.app_machine import PATIENCE, assert_gone, machine_with_runs, run
from tests.lab.lifecycle_machine import CONFIG, HERE, Machine, exactly_back

INSIDE = ("/usr/bin/python3", "-I", str(HERE / "app_inside.py"))


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    with machine_with_runs(lab) as opened:
        yield opened


def seen(machine: Machine, *argv: str, paths: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    done = run(machine, *argv, "--", *INSIDE, *paths, **more)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_configuration_is_the_one_that_is_named(machine: Machine) -> None:
    machine.down()  # the tor of earlier runs ends
    wrong = "/run/onionward-lab/wrong.toml"
    machine.path(wrong).write_text("[tor]\nnot_known = 1\n")
    for words in (("run", "--config", wrong), ("--config", wrong, "run")):
        done = machine.run("onionward", *words, "--", "true")
        assert done.returncode == 2, done.stderr
        assert "wrong.toml:2" in done.stderr
    assert processes(machine.path("/"), KEEPER) == []
    assert machine.run("onionward", "--config", str(CONFIG), "run", "--", "true").returncode == 0
    assert run(machine, "--config", str(CONFIG), "--", "true").returncode == 0


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "exit 125"), 125),
        (("no-such-command-here",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("sh", "-c", "kill -SEGV $$"), 128 + signal.SIGSEGV),
    ],
)
def test_the_exit_status_is_the_commands(
    machine: Machine, argv: tuple[str, ...], status: int
) -> None:
    done = run(machine, "--", *argv)
    # a shell in between, or the return code of a process that a signal has ended
    assert done.returncode in (status, 128 - status)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "no command"),
        (("--nonsense", "true"), "no such option: --nonsense"),
        (("--allow", "everything", "true"), "--allow everything is not known"),
        (("--allow", "fd:77", "true"), "fd:77: it is not open"),
        (("--as", "nobody-of-that-name", "true"), "there is no account nobody-of-that-name"),
        (("--name", "", "true"), "a name has"),
    ],
)
def test_wrong_usage_touches_nothing(machine: Machine, argv: tuple[str, ...], words: str) -> None:
    with exactly_back(machine):
        done = run(machine, *argv)
    assert done.returncode == 2
    assert words in done.stderr


def test_it_is_the_invoking_account_with_its_files_and_variables(machine: Machine) -> None:
    alice = {"SUDO_UID": machine.output("id", "-u", "alice").strip(), "SUDO_USER": "alice"}
    told = seen(machine, env={**alice, "OWN_VARIABLE": "kept", "HOME": "/root", "USER": "root"})
    entry = machine.output("getent", "passwd", "alice").strip().split(":")
    groups = sorted(map(int, machine.output("id", "-G", "alice").split()))
    uid, gid = int(entry[2]), int(entry[3])
    assert told["uid"] == [uid] * 3
    assert told["gid"] == [gid] * 3
    assert told["groups"] == groups
    environment = told["environment"]
    assert environment["OWN_VARIABLE"] == "kept"
    assert environment["HOME"] == entry[5]
    assert environment["USER"] == environment["LOGNAME"] == "alice"
    assert "SUDO_UID" not in environment
    assert told["directory"] == "/"


def test_the_working_directory_is_where_it_is_typed(machine: Machine) -> None:
    words = "cd /var/tmp && onionward run -- pwd"
    assert machine.output("sh", "-c", words, timeout=120) == "/var/tmp\n"  # noqa: S108
    done = machine.run("sh", "-c", "cd /run/onionward-lab && onionward run -- pwd", timeout=120)
    assert done.returncode == 125
    assert "the working directory is not seen in a run" in done.stderr


def test_another_account_can_be_named(machine: Machine) -> None:
    uid = int(machine.output("id", "-u", "bob"))
    assert seen(machine, "--as", "bob")["uid"] == [uid] * 3
    assert seen(machine, "--as", str(uid))["uid"] == [uid] * 3


@pytest.mark.parametrize("who", ["nobody", "root"])
def test_nothing_of_the_machine_is_within_reach(machine: Machine, who: str) -> None:
    nothing = "0" * 16
    told = seen(machine, "--as", who)
    assert told["capabilities"] == [nothing] * 5
    assert told["no_new_privileges"] == "1"
    assert told["devices"] == ["lo", "tor0"]
    assert "eth0" not in told["sys_devices"]
    # the first process of the namespace, and itself
    assert told["processes"] == [1, told["pid"]]
    assert told["descriptors"] == [0, 1, 2]
    assert told["vsock"] == "EAFNOSUPPORT"
    assert told["files"]["resolv.conf"].splitlines()[1] == f"nameserver {TOR4}"
    hosts = [line for line in told["files"]["nsswitch.conf"].splitlines() if "hosts:" in line]
    assert hosts == ["hosts: files dns"]
    assert set(told["run"]) <= {"lock", "mount", "onionward-run", "shm", "udev", "user", "utmp"}


def test_a_personality_of_32_bits_is_filtered_as_well(machine: Machine) -> None:
    personality = os.uname().machine.replace("x86_64", "i686").replace("aarch64", "armv8l")
    start = ("setarch", personality, "onionward", "run", "--as", "nobody", "--")
    told = json.loads(machine.output(*start, *INSIDE, timeout=120))
    assert told["vsock"] == "EAFNOSUPPORT"


def test_settings_of_the_kernel_are_read_only_to_root(machine: Machine) -> None:
    done = run(machine, "--as", "root", "sh", "-c", "echo x > /proc/sys/kernel/core_pattern")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


_SERVICE = """
import os, socket, sys
held = []
for path in sys.argv[1:]:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\\0" + path[1:] if path.startswith("@") else path)
    sock.listen()
    held.append(sock)
    if path.endswith(".linked"):
        os.link(path, path.removesuffix(".linked"))
        os.unlink(path)
    if path.endswith(".renamed"):
        os.rename(path, path.removesuffix(".renamed"))
print("listening", flush=True)
sys.stdin.read()
"""


def listen(machine: Machine, *paths: str) -> None:
    """Have a service of the machine at these sockets, until `Machine.close`."""
    listening = machine.spawn("python", "-I", "-c", _SERVICE, *paths)
    assert listening.stdout is not None
    assert listening.stdout.readline() == "listening\n"


def test_the_display_is_there_unless_it_is_taken_away(machine: Machine) -> None:
    x11, abstract = "/tmp/.X11-unix/X7", "@/tmp/.X11-unix/X7"  # noqa: S108
    wayland = "/run/user/0/wayland-7"
    machine.output("mkdir", "-p", "/tmp/.X11-unix", "/run/user/0")  # noqa: S108
    paths = (x11, abstract, wayland)
    listen(machine, *paths)
    server = "import socket; s = socket.create_server(('127.0.0.1', 6007)); print(); input()"
    over_tcp = machine.spawn("python", "-I", "-c", server)
    assert over_tcp.stdout is not None
    over_tcp.stdout.readline()
    env = {"DISPLAY": ":7", "WAYLAND_DISPLAY": "wayland-7", "XDG_RUNTIME_DIR": "/run/user/0"}
    visit = "import socket; socket.create_connection(('127.0.0.1', 6007), timeout=9)"
    try:
        assert machine.run("python", "-I", "-c", visit).returncode == 0
        done = run(machine, "--", "/usr/bin/python3", "-I", "-c", visit, env=env)
        assert "refused" in done.stderr
        told = seen(machine, paths=paths, env=env)
        assert told["sockets"] == {x11: "connected", abstract: "ECONNREFUSED", wayland: "connected"}
        told = seen(machine, "--allow", "no-display", paths=paths, env=env)
        assert told["sockets"] == {x11: "ENOENT", abstract: "ECONNREFUSED", wayland: "ENOENT"}
        assert not {"DISPLAY", "WAYLAND_DISPLAY"} & told["environment"].keys()
    finally:
        machine.close()
        machine.run("rm", "-rf", "/tmp/.X11-unix", "/run/user")  # noqa: S108


def test_sockets_of_others_are_covered_unless_allowed(machine: Machine) -> None:
    # a service that listens in /run, one elsewhere, one that has no file, and two that are known
    # by other names than they were bound to: linked, as ssh(1) does it, and renamed
    name = f"onionward-test-{os.getpid()}"
    paths = (f"/run/{name}", f"/var/tmp/{name}", f"@{name}")  # noqa: S108
    moved = (f"/var/tmp/{name}-a", f"/var/tmp/{name}-b")  # noqa: S108
    bound = (*paths, f"{moved[0]}.linked", f"{moved[1]}.renamed")
    listen(machine, *bound)
    try:
        open_here = machine.output("python", "-I", *INSIDE[2:], *paths, *moved)
        assert set(json.loads(open_here)["sockets"].values()) == {"connected"}
        told = seen(machine, paths=(*paths, *moved))["sockets"]
        for path in moved:
            assert told[path] in ("ECONNREFUSED", "EACCES")
        assert told[paths[0]] == "ENOENT"
        assert told[paths[1]] in ("ECONNREFUSED", "EACCES")
        assert told[paths[2]] == "ECONNREFUSED"
        allowed = [word for path in paths[:2] for word in ("--allow", f"socket:{path}")]
        told = seen(machine, *allowed, paths=paths)["sockets"]
        assert [told[path] for path in paths] == ["connected", "connected", "ECONNREFUSED"]
    finally:
        machine.close()
        machine.run("rm", "-f", *paths[:2], *moved)


def test_descriptors_are_closed_unless_allowed(machine: Machine) -> None:
    script = "exec 7</dev/null 8</dev/null; exec onionward run --allow fd:8 -- " + " ".join(INSIDE)
    told = json.loads(machine.output("sh", "-c", script, timeout=120))
    assert told["descriptors"] == [0, 1, 2, 8]


def test_a_nested_namespace_gets_nowhere(machine: Machine) -> None:
    tries = (
        # root there owns no network but a new one, and takes no cover away
        "unshare -Ur ip link set tor0 down",
        "unshare -Urm umount /run",
        "unshare -Urm umount /etc/resolv.conf",
        "nsenter --target 1 --net true",
        "nsenter --target 1 --mount true",
        "setpriv --reuid 0 --clear-groups true",
    )
    for words in tries:
        done = run(machine, "--as", "nobody", "--", *words.split())
        assert done.returncode != 0, words
    # and such namespaces themselves are there
    assert run(machine, "--as", "nobody", "--", "unshare", "-Urn", "true").returncode == 0


def test_set_user_id_programs_gain_nothing(machine: Machine) -> None:
    program = "/var/tmp/onionward-test-setuid"  # noqa: S108
    machine.output("cp", "/usr/bin/id", program)
    machine.output("chmod", "4755", program)
    try:
        assert machine.run(program, "-u", user="nobody").stdout == "0\n"
        uid = machine.output("id", "-u", "nobody")
        assert run(machine, "--as", "nobody", program, "-u").stdout == uid
    finally:
        machine.output("rm", program)


class Terminal:
    """A shell on a terminal of the host."""

    def __init__(self, machine: Machine) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            argv = machine.host.command(["bash", "--norc", "--noprofile", "-i"])
            os.execvp(argv[0], argv)  # noqa: S606
        self.text = ""
        self.type("PS1=prompt; unset PROMPT_COMMAND")

    def type(self, words: str, end: str = "\n") -> None:
        os.write(self.descriptor, f"{words}{end}".encode())

    def expect(self, words: str) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.text!r}"
            if select.select([self.descriptor], [], [], 0.2)[0]:
                self.text += os.read(self.descriptor, 4096).decode(errors="replace")
        self.text = self.text.partition(words)[2]

    def close(self) -> None:
        os.close(self.descriptor)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_a_terminal_is_the_commands_and_then_the_shells(machine: Machine) -> None:
    terminal = Terminal(machine)
    try:
        terminal.type("onionward run -- sh -c 'tty; echo beg''un; exec sleep 1357911'")
        terminal.expect("/dev/")
        terminal.expect("begun")
        terminal.type("\x03", end="")
        terminal.type("echo status $?.")
        terminal.expect(f"status {128 + signal.SIGINT}.")
        assert_gone(machine, "1357911")
        # a shell of its own, with job control, that leaves the terminal to the other again
        terminal.type("onionward run -- bash --norc --noprofile -i")
        terminal.type(
            "PS1=; sleep 2468 | cat &\njobs; kill %1; wait; echo in''ner $((6*7)); exit 5"
        )
        terminal.expect("Running")
        terminal.expect("inner 42")
        terminal.type("echo status $?.")
        terminal.expect("status 5.")
        # stopped and continued
        terminal.type("onionward run -- sh -c 'echo beg''un; read x; echo got $x'")
        terminal.expect("begun")
        terminal.type("\x1a", end="")
        terminal.expect("Stopped")
        terminal.type("fg")
        terminal.type("word")
        terminal.expect("got word")
        # nothing can be typed for the shell to execute
        terminal.type(f"onionward run -- {' '.join(INSIDE)}; echo d''one")
        terminal.expect('"typed": "EPERM"')
        terminal.expect("done")
    finally:
        terminal.close()

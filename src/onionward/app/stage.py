"""The processes of a run: the first of its process namespace, the command, and who waits for it.

    onionward ── keeper of the namespace (process 1 in it: owns the mounts, reaps orphans)
              └─ the command (process 2, a child of onionward: its status and signals are exact)

When onionward ends, however it does, the kernel kills process 1, and with it everything that was
started in the namespace (PR_SET_PDEATHSIG, pid_namespaces(7)); with its last process go the
network namespace, its devices, and the mounts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from onionward.app import allow, kernel, mounts, seccomp
from onionward.app.environment import Identity
from onionward.errors import StepError

if TYPE_CHECKING:
    from onionward.app.start import Prepared

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""Exit statuses that are no command's: as env(1), nohup(1) and timeout(1) have them."""

_READY = b"ready"
_PASSED_ON = frozenset(
    {
        *(signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH, signal.SIGTSTP),
    }
)
_OF_KERNEL = 0x80  # SI_KERNEL: the terminal's, which the command has got as well


class Command(NamedTuple):
    """What is executed.

    Attributes:
        argv: program and arguments.
        environment: its variables; the program is looked up in its PATH.
        directory: working directory.
        identity: whom it runs as.
        descriptors: that it keeps, besides 0, 1 and 2.

    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    identity: Identity
    descriptors: tuple[int, ...]


def command_of(prepared: Prepared) -> Command:
    """What is executed for a run."""
    return Command(
        argv=prepared.request.command,
        environment=prepared.variables,
        directory=prepared.directory,
        identity=prepared.identity,
        descriptors=allow.descriptors(prepared.request.allowed),
    )


class Running(NamedTuple):
    """A run that is on its way.

    Attributes:
        first: process 1 of its namespace, as seen from here.
        command: its process, likewise.

    """

    first: int
    command: int


def start(steps: Sequence[mounts.Step], command: Command, become: Callable[[], None]) -> Running:
    """Start a command in process and mount namespaces of its own; it is in our network namespace.

    Args:
        steps: its mounts.
        command: what is executed.
        become: gives up the rights of this process for those of the command's account.

    Raises:
        StepError: a mount failed; nothing of it is left.
        OSError: the kernel refuses the namespaces.

    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD, signal.SIGIO})
    kernel.unshare(kernel.CLONE_NEWPID)
    alive, our_end = os.pipe()
    words, says = os.pipe()
    first = os.fork()
    if first == 0:
        _guarded(lambda: _be_first(steps, command.identity, alive, (our_end, words), says))
    os.close(alive)
    os.close(says)
    try:
        with os.fdopen(words, "rb") as file:
            said = file.read()
        if said != _READY:
            raise StepError(f"the run cannot be set up: {said.decode(errors='replace') or 'died'}")
        pid = os.fork()
        if pid == 0:
            _guarded(lambda: _execute(command, first, become))
    except BaseException:
        _end(first)
        raise
    return Running(first, pid)


def _guarded(action: Callable[[], None]) -> NoReturn:
    """Run what must never return into the code of the process that was forked."""
    status = FAILED
    try:
        action()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else FAILED
    except BaseException as error:  # noqa: BLE001  # it ends here
        os.write(2, f"onionward: {error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _be_first(
    steps: Sequence[mounts.Step],
    identity: Identity,
    alive: int,
    others: tuple[int, ...],
    says: int,
) -> None:
    for descriptor in others:
        os.close(descriptor)
    kernel.die_with_parent()
    # the kernel reaps orphans then; of other signals the first process hears none it has no
    # handler for
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.chdir("/")
    try:
        from onionward.app.mounting import carry_out

        carry_out(steps, (identity.uid, identity.gid))
    except OSError as error:
        os.write(says, str(error).encode(errors="replace"))
        return
    kernel.close_all_but((alive, says))
    os.write(says, _READY)
    os.close(says)
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    # nobody writes here; it ends with who has forked us, even if that was before the kernel knew
    # that we want to end with it
    while os.read(alive, 1):
        pass


def _execute(command: Command, first: int, become: Callable[[], None]) -> NoReturn:
    namespace = os.open(f"/proc/{first}/ns/mnt", os.O_RDONLY)
    kernel.setns(namespace, kernel.CLONE_NEWNS)
    become()
    kernel.forbid_privileges()
    seccomp.forbid_ways_out()
    try:
        # by its name: what is hidden in the run is no place to start from
        os.chdir(command.directory)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        place = f"{command.directory}: {why}; cd to another one, / for example"
        _last_words(f"the working directory is not seen in a run: {place}", FAILED)
    kernel.close_all_but(command.descriptors)
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)):
        # Python ignores these
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        os.execvpe(  # noqa: S606  # what was asked for
            command.argv[0], list(command.argv), dict(command.environment)
        )
    except FileNotFoundError:
        _last_words(f"{command.argv[0]}: command not found", NOT_FOUND)
    except OSError as error:
        _last_words(f"{command.argv[0]}: {os.strerror(error.errno or 0)}", NOT_EXECUTABLE)


def _last_words(words: str, status: int) -> NoReturn:
    os.write(2, f"onionward: {words}\n".encode(errors="replace"))
    os._exit(status)


def become(identity: Identity) -> None:
    """Give up root's rights for those of an account, for good (capabilities(7), setresuid(2))."""
    kernel.drop_bounding_set()
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    # root keeps them over setresuid
    kernel.drop_capabilities()


def wait(
    running: Running,
    noticed: Callable[[], None] = lambda: None,
    *,
    begin: Callable[[], None] = lambda: None,
) -> int:
    """Wait for a command and end what it has left running.

    Signals that somebody sends to this process go to the command; what the terminal sends has
    reached it already. A command that is stopped stops this process, so that the shell that has
    started it goes on.

    Args:
        running: from `start`, which has blocked the signals.
        noticed: called at SIGIO.
        begin: called first.

    Returns:
        As waitpid(2) has it.

    """
    terminal = _foreground()
    try:
        begin()
        while True:
            pid, status = os.waitpid(running.command, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                return status
            if pid:
                os.kill(os.getpid(), signal.SIGSTOP)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running.command, signal.SIGCONT)
                continue
            got = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD, signal.SIGIO})
            if got.si_signo == signal.SIGIO:
                noticed()
            elif got.si_signo in _PASSED_ON and got.si_code != _OF_KERNEL:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running.command, got.si_signo)
    finally:
        _end(running.first)
        _take_back(terminal)


def _end(first: int) -> None:
    """End the first process of a namespace; the kernel ends the others before it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(first, 0)


def _foreground() -> int:
    """The terminal, if we are in its foreground; -1 if not."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                return descriptor
    return -1


def _take_back(terminal: int) -> None:
    """Be in the foreground again: a shell cannot give back what it sees under no number."""
    if terminal < 0:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with contextlib.suppress(OSError):
        os.tcsetpgrp(terminal, os.getpgrp())


def leave(status: int) -> NoReturn:
    """End as the command has ended: with its status, or by its signal."""
    if os.WIFSIGNALED(status):
        import resource

        number = os.WTERMSIG(status)
        # the command has left its own, if any
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.waitstatus_to_exitcode(status))


def have_told(descriptor: int) -> None:
    """Have SIGIO sent to this process when something comes from a socket, or its end."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def is_hung_up(descriptor: int) -> bool:
    """Whether the other end of a socket is gone."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))

"""Starts a run without root.

    onionward ── forwarder (stays outside: this account's rights, the machine's network)
       │
       └ leaves user, network and IPC namespaces, hands its sockets to the forwarder,
         and starts the command as `stage` does

The forwarder ends with onionward, whatever ends that, and the other way round connections end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from onionward import background
from onionward.app import kernel, mounts, stage, start
from onionward.app.rootless import changes, namespace, network, own_tor
from onionward.app.rootless.inside import hand_over, receive
from onionward.errors import OnionwardError, StepError
from onionward.system import System

if TYPE_CHECKING:
    from onionward.app.rootless.own_tor import TorSockets
    from onionward.app.start import Prepared
    from onionward.config import Config

_FINISH_PATIENCE = 20.0  # for what was sent on a connection that tor has not got through yet
_USER = b"onionward"


def run(prepared: Prepared) -> int:
    """Run a command and wait for it; returns its status as waitpid(2) has it.

    Raises:
        StepError: namespaces are forbidden, or a part of the run cannot be set up.
        TorError: there is no tor.

    """
    system = System()
    own = own_tor.home(os.environ, prepared.identity.home, prepared.identity.uid)
    # it is read again where there is no working directory
    config = os.path.abspath(prepared.request.config) if prepared.request.config else ""  # noqa: PTH100
    held = _tor(system, own, config)
    # whichever there is: the machine's comes and goes with `up` and `down`
    sockets = (own_tor.OF_MACHINE, own.sockets)
    token = own_tor.token(system, own, prepared.request.name, new=prepared.request.new_circuits)
    # who controls tor knows the machine's address
    hidden = [mounts.Hide(str(place)) for place in own.places]
    steps = (*hidden, *mounts.plan(start.view(prepared, network.LOOPBACK4)))
    channel, others = socket.socketpair()
    forwarder = os.fork()
    if forwarder == 0:
        channel.close()
        whose = changes.OWN if held else changes.MACHINES
        told = changes.Changes(system, own, partial(_read, config), others, whose)
        _forward(others, sockets, token, told)
    others.close()
    try:
        namespace.enter()
        hand_over(channel, namespace.set_up(system))
        command = stage.command_of(prepared)
        running = stage.start(steps, command, _give_up_rights)
        status = stage.wait(
            running,
            partial(changes.tell, channel),
            begin=partial(stage.have_told, channel.fileno()),
        )
    finally:
        # the forwarder brings to tor what the command has sent, then ends
        channel.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(forwarder, 0)
    if held is not None:
        held.release()
    return status


def _tor(system: System, own: own_tor.Home, path: str) -> own_tor.Hold | None:
    """Hold the account's own tor, which is up then, unless the machine's offers itself."""
    if own_tor.is_offered():
        own_tor.make_directories(system, own)
        return None
    return own_tor.hold(system, own, partial(_prepare_start, path))


def _prepare_start(path: str) -> Config:
    """Before tor is started: whether a run is possible at all, and what tor has to know."""
    _try_namespaces()
    return _read(path)


def _read(path: str) -> Config:
    from onionward import config

    return config.load(Path(path) if path else None)


def _try_namespaces() -> None:
    child = os.fork()
    if child == 0:
        try:
            namespace.enter()
        except BaseException:  # noqa: BLE001  # said by the same call below
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        namespace.enter()
        raise StepError("user namespaces are forbidden to this account, but not always")


def _give_up_rights() -> None:
    kernel.drop_bounding_set()
    kernel.drop_capabilities()


def _forward(
    channel: socket.socket, sockets: Sequence[TorSockets], token: bytes, told: changes.Changes
) -> NoReturn:
    """The forwarder's life, from the fork to its end."""
    status = 1
    try:
        kernel.die_with_parent()
        # a terminal's signals are the command's, and its pipes are nobody else's
        background.leave_terminal()
        kernel.close_all_but((channel.fileno(),))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        _carry(channel, sockets, token, told)
        status = 0
    except (OnionwardError, OSError):
        # nobody reads it; the command sees its connections end
        pass
    finally:
        os._exit(status)


def _carry(
    channel: socket.socket, sockets: Sequence[TorSockets], token: bytes, told: changes.Changes
) -> None:
    import gc

    from onionward.app.rootless import socks
    from onionward.app.rootless.forwarder import Forwarder
    from onionward.app.rootless.names import VirtualNames

    gc.enable()
    names = VirtualNames(int.from_bytes(os.urandom(4), "big"))
    if (inside := receive(channel)) is None:
        return
    forwarder = Forwarder(inside, sockets, socks.credentials(_USER, token), names, told.served)
    over: list[int] = []
    # nothing more is said on the channel; it ends with the run
    forwarder.watch(channel.fileno(), select.EPOLLIN, over.append)
    forwarder.run(lambda: bool(over))
    forwarder.watch(channel.fileno(), None, over.append)
    forwarder.finish(_FINISH_PATIENCE)

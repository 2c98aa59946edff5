"""Starts a run of root."""

from __future__ import annotations

import os
from functools import partial

from onionward.app import mounts, stage, start
from onionward.app.request import Request
from onionward.app.root import network, places
from onionward.app.root.calling import Call
from onionward.app.start import Prepared
from onionward.errors import OnionwardError


def run(prepared: Prepared) -> int:
    """Run a command and wait for it; returns its status as waitpid(2) has it.

    Raises:
        OnionwardError: there is no tor for it, or a part of it cannot be made; nothing is left.

    """
    # the machine's own sockets, as they are listed before this process is in another network
    steps = mounts.plan(start.view(prepared, places.TOR4))
    outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    request, uid = prepared.request, prepared.identity.uid
    call = Call()
    place = call.begin(request, uid, _tell)
    if place.namespace < 0:
        namespace = network.make(place)
        call.made(namespace)
    else:
        namespace = place.namespace
        network.join(place)
    running = stage.start(
        steps, stage.command_of(prepared), partial(stage.become, prepared.identity)
    )
    call.watch()

    def noticed() -> None:
        if stage.is_hung_up(call.fileno()):
            _call_again(call, request, uid, place.number, (namespace, outside, processes))

    return stage.wait(running, noticed)


def _tell(words: str) -> None:
    os.write(2, f"onionward: {words}\n".encode(errors="replace"))


def _call_again(
    call: Call, request: Request, uid: int, number: int, namespaces: tuple[int, int, int]
) -> None:
    """Have another keeper when ours was killed; until then this run has no network."""
    from onionward.app import kernel

    namespace, outside, processes = namespaces
    # what is started is to be in this machine's network, and not among the processes of the run,
    # which it would end with
    kernel.setns(outside, kernel.CLONE_NEWNET)
    kernel.setns(processes, kernel.CLONE_NEWPID)
    try:
        call.again(request, uid, number, namespace)
        call.watch()
    except (OnionwardError, OSError) as error:
        # nobody looks after rules any more
        kernel.setns(namespace, kernel.CLONE_NEWNET)
        network.close()
        _tell(f"this run has no network any more: {error}")
    else:
        kernel.setns(namespace, kernel.CLONE_NEWNET)

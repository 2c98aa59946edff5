"""Starts a run of root."""

from __future__ import annotations

import contextlib
import os
from functools import partial

from onionward.app import mounts, stage, start
from onionward.app.root import network, places
from onionward.app.root.calling import Call
from onionward.app.root.tie import Namespaces, Tie
from onionward.app.start import Prepared


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
        # a keeper that was killed meanwhile is replaced once the command runs
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            call.made(namespace)
    else:
        namespace = place.namespace
        network.join(place)
    running = stage.start(
        steps, stage.command_of(prepared), partial(stage.become, prepared.identity)
    )
    namespaces = Namespaces(namespace, outside, processes)
    tie = Tie(call, request, uid, place.number, namespaces, _tell)
    return stage.wait(running, tie.noticed, begin=tie.watch)


def _tell(words: str) -> None:
    os.write(2, f"onionward: {words}\n".encode(errors="replace"))

"""The child of the guard: does what `up` does with the configuration in force, if that is needed.

A process of its own, because all that `up` needs is large, and the guard is to stay small.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from onionward import applied, doctor, state
from onionward.config.parse import parse_with_network
from onionward.errors import OnionwardError
from onionward.lifecycle.activation import Request, up_under_lock
from onionward.lifecycle.deactivation import at_work
from onionward.paths import Paths
from onionward.system import System

ALWAYS = "--always"
GO_ON = "--go-on"


class _Log:
    """Says to the guard what is done."""

    def step(self, words: str) -> None:
        sys.stdout.write(f"{words}\n")

    def warn(self, words: str) -> None:
        self.step(f"warning: {words}")

    def bootstrap(self, percent: int, words: str) -> None:
        del percent, words


def mend(system: System, paths: Paths, *, always: bool, go_on: bool) -> None:
    """Put right what can be put right without opening anything.

    Args:
        system: the seam.
        paths: where things are.
        always: even if nothing is found wrong, because interfaces or addresses have changed.
        go_on: what an earlier attempt of the guard has left half way, as well.

    Raises:
        OnionwardError: it could not be done; the machine is as closed as it was.

    """
    log = _Log()
    with at_work(system, paths, log, first=False):
        journal = state.load(paths)
        text = applied.load(paths)
        if journal is None or text is None or not (journal.state == "routed" or go_on):
            # not ours to finish
            return
        wrong = [f.words for f in doctor.examine(system, paths) if f.by_up]
        for words in wrong:
            log.step(f"found: {words.partition(';')[0]}")
        if wrong or always:
            config = parse_with_network(text, journal.config)
            up_under_lock(system, Request(config, accept_cut=True), paths, log)


def _say_in_a_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A fault of the program, so that the guard remembers other things besides it."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
    words = " ".join(str(error).split())
    sys.stdout.write(f"failed: {kind.__name__}: {words}{place}; please report it\n")


def main(arguments: Sequence[str]) -> None:
    """Run it and exit.

    Args:
        arguments: directories of state and of runtime files, resolv.conf, options.

    """
    directory, runtime, resolv_conf, *options = arguments
    os.umask(0o022)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = ["onionward", "putting", "right", "what", "has", "changed"]
    paths = Paths(Path(directory), Path(runtime), Path(resolv_conf))
    sys.excepthook = _say_in_a_line
    try:
        mend(System(), paths, always=ALWAYS in options, go_on=GO_ON in options)
    except OnionwardError as error:
        sys.stdout.write(f"failed: {error.message}\n")
        sys.exit(1)

"""The witness on the host's cable, and what it may see while runs are tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from onionward.lab import Lab
from onionward.leaks.wire import HOUSEKEEPING, Capture, Exempt, Witness


@contextlib.contextmanager
def watched(lab: Lab, directory: Path) -> Iterator[Capture]:
    """What leaves the host meanwhile."""
    witness = Witness(lab.host_link, directory, namespace=lab.hosts["internet"].pid)
    with witness.watch("wire") as capture:
        yield capture


def assert_only_tor(lab: Lab, capture: Capture, *, since: float) -> None:
    """Nothing was seen but tor's connections, and what the kernel of an open machine says."""
    exempt = Exempt(relays=lab.relays, networks6=("2001:db8::/64",), others=HOUSEKEEPING)
    assert capture.packets(exempt.filter(), since=since), "the witness does not even see tor"
    assert capture.packets(exempt.escaped(), since=since) == ()

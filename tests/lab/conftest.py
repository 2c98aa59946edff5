"""A private Tor network for the tests of this directory; without root or tools they fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from onionward.lab import Lab, build, destroy
from onionward.system import System


def _report(words: str) -> None:
    sys.stderr.write(f"lab: {words}\n")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of this test run, shared by all tests: leave its hosts as you found them."""
    name = f"test-{os.getpid()}"
    built = build(System(), name=name, progress=_report)
    yield built
    destroy(System(), name)

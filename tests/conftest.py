"""Options, settings and the private Tor network for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from onionward.lab import Lab

pytest_plugins = ("tests.report",)

settings.register_profile(
    "onionward",
    deadline=None,  # a busy machine is no failure
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("onionward")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens",
        action="store_true",
        help="write the texts that are rendered now into tests/golden/cases; review the diff",
    )


def _report(words: str) -> None:
    sys.stderr.write(f"lab: {words}\n")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of this test run, shared by all tests: leave its hosts as you found them.

    Without root or tools the tests that use it fail.
    """
    from onionward.lab import build, destroy
    from onionward.system import System

    name = f"test-{os.getpid()}"
    built = build(System(), name=name, progress=_report)
    yield built
    destroy(System(), name)

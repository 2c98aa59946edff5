"""Options and settings for all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

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

"""Root and the system's tools are needed; without them these tests fail, and are not skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from onionward.config import Config
from onionward.system import find_tool
from tests.kernel.machine import Machine


@pytest.fixture(scope="package")
def machine() -> Iterator[Machine]:
    """One for all tests of this directory: each loads its own rules."""
    missing = [t for t in ("nft", "ip", "conntrack", "nsenter", "sh") if find_tool(t) is None]
    if missing:
        pytest.fail(f"missing: {', '.join(missing)}; see tools/install-dependencies")
    if os.geteuid() != 0:
        pytest.fail("needs root, for network namespaces of its own; the machine's is not touched")
    defaults = Config().tor
    built = Machine(defaults.trans_port, defaults.dns_port)
    try:
        yield built
    finally:
        built.close()

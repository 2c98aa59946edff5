"""Golden texts go through the real nft and tor; without them and root these tests fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onionward.system import System, find_tool
from tests.golden import cases


@pytest.fixture(scope="session")
def real_tools() -> None:
    missing = [t for t in ("nft", "tor", "ip", "unshare", "nsenter") if find_tool(t) is None]
    if missing:
        pytest.fail(f"missing: {', '.join(missing)}; see tools/install-dependencies")
    if os.geteuid() != 0:
        pytest.fail("needs root, for network namespaces of its own; the machine's is not touched")


@pytest.fixture(scope="session", autouse=True)
def own_namespace(real_tools: None) -> Iterator[None]:
    """The machine's own rules are none of these tests' business: they must end as they began."""
    before = System().query(["nft", "list", "tables"])
    yield
    assert System().query(["nft", "list", "tables"]) == before


@pytest.fixture(params=cases.names())
def case(request: pytest.FixtureRequest, tmp_path: Path) -> cases.Case:
    return cases.load(request.param, tmp_path)

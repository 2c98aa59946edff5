"""The firehol.conf of every scope that firehol is given is the one that was reviewed.

`pytest tests/golden --update-goldens` writes what is rendered now; review the difference. The real
firehol reads them in tests/kernel/test_firehol.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from onionward.errors import RefusedError
from onionward.render import firehol
from tests.golden import cases
from tests.golden.reviewed import compare

FOLDER = Path(__file__).parent / "firehol"
# what stands before the refusal's reason, by what the policy has
REFUSED = {
    "bridges": "does not hold tor to its bridges",
    "bridges-user": "single accounts",
    "bypassed-user": "single accounts",
    "everything": "single accounts",
    "everything-host": "single accounts",
    "full-dns": 'dns = "full"',
    "onion": "the scope onion",
    "paused": "paused: alice",
    "paused-user": "single accounts",
    "user-onion": "single accounts",
    "users": "single accounts",
    "users-no-ipv6": "single accounts",
}


def test_rendered_as_reviewed(case: cases.Case, request: pytest.FixtureRequest) -> None:
    name = case.path.name
    if name in REFUSED:
        with pytest.raises(RefusedError, match=REFUSED[name]):
            firehol.render(case.policy)
        return
    compare({FOLDER / f"{name}.conf": firehol.render(case.policy)}, request)


def test_every_file_is_of_a_case() -> None:
    reviewed = {path.stem for path in FOLDER.iterdir()}
    assert reviewed == set(cases.names()) - REFUSED.keys()

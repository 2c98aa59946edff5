"""The report: what tests record is summed up, and anything that is not good ends it with 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.report import Faults

def test_good(faults: Faults) -> None:
    faults.record("good", tried=3, clear=0, restored=3, true=3)

def test_leak(faults: Faults) -> None:
    faults.record("leak", tried=3, clear=2)

def test_not_restored(faults: Faults) -> None:
    with faults.tried("other", "not restored") as fault:
        fault.saw([])
        fault.restored("file x: 1 -> 2")

def test_lie(faults: Faults) -> None:
    with faults.tried("other", "lie") as fault, fault.status():
        assert False, "off instead of routed"

def test_seen(faults: Faults) -> None:
    with faults.tried("other", "seen") as fault:
        fault.saw(["packet 1", "packet 2"])

def test_no_fault(faults: Faults) -> None:
    with faults.tried("other", "none") as fault:
        fault.fault_class = ""
"""


def report(tmp_path: Path, wanted: str) -> tuple[int, str]:
    """Exit status and table of a run of those tests."""
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_others.py").write_text("def test_other() -> None:\n    assert False\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.report", "-p", "no:cacheprovider"]
    argv += ["--report", "out", "-k", wanted, "--rootdir", str(tmp_path), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, (tmp_path / "out/report.md").read_text()


def test_good_is_0(tmp_path: Path) -> None:
    status, text = report(tmp_path, "good or no_fault")
    assert "| good | 3 | 0 | 3 of 3 | 3 of 3 |" in text
    assert "| all | 3 | 0 | 3 of 3 | 3 of 3 |" in text
    assert status == 0
    assert json.loads((tmp_path / "out/report.json").read_text())["good"]


@pytest.mark.parametrize("wanted", ["leak", "not_restored", "lie", "seen"])
def test_anything_else_is_1(tmp_path: Path, wanted: str) -> None:
    status, text = report(tmp_path, f"good or {wanted}")
    assert "| good | 3 | 0 | 3 of 3 | 3 of 3 |" in text
    row = {
        "leak": "| leak | 3 | 2 | - | - |",
        "not_restored": "| other | 1 | 0 | 0 of 1 | - |",
        "lie": "| other | 1 | - | - | 0 of 1 |",
        "seen": "| other | 1 | 2 | - | - |",
    }
    assert row[wanted] in text
    assert status == 1
    document = json.loads((tmp_path / "out/report.json").read_text())
    assert not document["good"]
    assert set(document["versions"]) == {"kernel", "nft", "tor", "python", "onionward"}


def test_a_run_that_tries_nothing_is_not_good(tmp_path: Path) -> None:
    status, text = report(tmp_path, "no_fault")
    assert status == 1
    assert "| all | 0 |" in text

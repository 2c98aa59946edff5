"""Texts that were reviewed, held against what is rendered now."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import pytest


def compare(rendered: Mapping[Path, str], request: pytest.FixtureRequest) -> None:
    """Fail where a text is not what its file holds; with --update-goldens write the file first."""
    differences: list[str] = []
    for golden, text in rendered.items():
        if request.config.getoption("--update-goldens"):
            golden.write_text(text)
        name = "/".join(golden.parts[-2:])
        differences += difflib.unified_diff(
            (golden.read_text() if golden.exists() else "").splitlines(),
            text.splitlines(),
            f"{name} (reviewed)",
            f"{name} (rendered now)",
            lineterm="",
        )
    if differences:
        pytest.fail("\n".join(differences), pytrace=False)

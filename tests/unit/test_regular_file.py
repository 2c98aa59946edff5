"""Files that others may have put something else in the place of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onionward import regular_file


def test_all_of_it_or_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    assert regular_file.read(path) == b"0123456789"
    assert regular_file.read(path, last=3) == b"789"
    assert regular_file.read(path, last=100) == b"0123456789"


@pytest.mark.timeout(10)
def test_nothing_else_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "directory", "link"):
        with pytest.raises(OSError, match=name):
            regular_file.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        regular_file.read(tmp_path / "nothing")

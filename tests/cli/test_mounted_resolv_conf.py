"""A resolv.conf that is a bind mount cannot be renamed, whatever it is a mount of.

Containers mount a file of another file system; `ip netns exec` one of the same (ip-netns(8)).
Each test runs in a mount namespace of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from onionward.dns.file import replace, restore, survey
from onionward.system import System

path = Path(sys.argv[1])
before = path.read_bytes(), path.stat()
saved = survey(System(), path, "nameserver 127.0.0.1\\n")
replace(System(), path, saved)
assert path.read_text() == "nameserver 127.0.0.1\\n"
assert restore(System(), path, saved) == ""
after = path.read_bytes(), path.stat()
assert before[0] == after[0], after
for field in ("st_ino", "st_mode", "st_uid", "st_gid", "st_mtime_ns"):
    assert getattr(before[1], field) == getattr(after[1], field), field
assert [entry.name for entry in path.parent.iterdir()] == ["resolv.conf"]
"""


@pytest.mark.parametrize("file_system", ["the same", "another"])
def test_it_is_replaced_and_comes_back(file_system: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        etc = Path(folder) / "etc"
        etc.mkdir()
        path = etc / "resolv.conf"
        path.touch()
        source = Path(folder) / "source"
        source.mkdir()
        mounts = f"mount -t tmpfs none {source}\n" if file_system == "another" else ""
        script = (
            f"set -e\n{mounts}"
            f"printf 'nameserver 192.0.2.53\\n' > {source}/file\n"
            f"mount --bind {source}/file {path}\n"
            f'exec {sys.executable} -c "$PROGRAM" {path}\n'
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PROGRAM": PROGRAM, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        assert done.returncode == 0, done.stderr

"""What shells complete: scripts that they can read, and that name what there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import completion

_ASK = """\
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(($# - 2))
_onionward_completion "$2"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("completion")
    completion.main(str(place))
    return place


def completed(scripts: Path, *words: str) -> set[str]:
    """What bash offers behind `onionward`."""
    done = subprocess.run(
        ["bash", "-c", _ASK, "bash", str(scripts / "bash/onionward"), "onionward", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    return set(done.stdout.split())


def test_bash_reads_its_script(scripts: Path) -> None:
    done = subprocess.run(
        ["bash", "-n", str(scripts / "bash/onionward")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_each_shell_has_the_file_that_it_looks_for(scripts: Path) -> None:
    files = {str(p.relative_to(scripts)) for p in scripts.rglob("*") if p.is_file()}
    assert files == {"bash/onionward", "zsh/_onionward", "fish/onionward.fish"}
    zsh = (scripts / "zsh/_onionward").read_text()
    assert zsh.startswith("#compdef onionward\n")
    # loaded by zsh itself it completes at once (zshcompsys(1))
    assert "loadautofunc" in zsh


def test_commands_options_and_choices_are_offered(scripts: Path) -> None:
    assert {"status", "up", "lab"} <= completed(scripts, "")
    assert completed(scripts, "en") == {"enable"}
    assert completed(scripts, "lab", "d") == {"demo", "down"}
    assert {"--yes", "--confirm"} <= completed(scripts, "up", "--")
    assert {"--name", "--new-circuits", "--as", "--allow"} <= completed(scripts, "run", "--")
    assert completed(scripts, "show", "nf") == {"nftables"}

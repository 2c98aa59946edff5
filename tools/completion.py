"""Write what shells complete `onionward` with: click's scripts for bash, zsh and fish.

    python3 tools/completion.py DIRECTORY

Each has the name under which its shell looks for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from click.shell_completion import get_completion_class

from onionward.cli import cli

NAMES = {"bash": "onionward", "zsh": "_onionward", "fish": "onionward.fish"}
_ZSH_CALL = "compdef _onionward_completion onionward;"
# click 8.1.3 registers the function and leaves the first completion empty, because zsh has loaded
# the file as the function that completes (zshcompsys(1), autoloaded files)
_ZSH_AUTOLOADED = f"""\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _onionward_completion "$@"
else
    {_ZSH_CALL}
fi"""


def scripts() -> dict[str, str]:
    """Texts by shell."""
    found = {}
    for shell in NAMES:
        kind = get_completion_class(shell)
        if kind is None:
            raise SystemExit(f"click knows no completion for {shell}")
        text = kind(cli, {}, "onionward", "_ONIONWARD_COMPLETE").source()
        if shell == "zsh" and "loadautofunc" not in text:
            text = text.replace(_ZSH_CALL, _ZSH_AUTOLOADED)
        found[shell] = text.strip() + "\n"
    return found


def main(directory: str) -> None:
    """Write each into a directory of its shell below a directory."""
    for shell, text in scripts().items():
        place = Path(directory, shell)
        place.mkdir(parents=True, exist_ok=True)
        (place / NAMES[shell]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    main(sys.argv[1])

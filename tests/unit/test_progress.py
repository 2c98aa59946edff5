"""How `up` speaks."""

from __future__ import annotations

import io
import re
import sys

import pytest

from onionward.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.step("blocked")
        progress.warn("no IPv6")
        progress.bootstrap(5, "5 %: Connecting")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[ *\d+\.\d\d s\] blocked", lines[0])
    assert lines[1] == "warning: no IPv6"
    assert re.fullmatch(r"\[ *\d+\.\d\d s\] tor 5 %: Connecting", lines[2])
    assert "rich" not in {
        name.partition(".")[0] for name in vars(sys.modules["onionward.progress"])
    }


@pytest.mark.parametrize("words", ["5 %: Connecting", "5 %: x ([/etc] [2001:db8::1]:443 [red])"])
def test_a_bar_on_a_terminal_shows_tor_s_words_as_they_are(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with Progress() as progress:
        progress.bootstrap(5, words)
        progress.bootstrap(50, words)
        progress.step("routed")
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert words in printed
    assert printed.rstrip().endswith("routed")


def test_the_cursor_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def interrupted() -> None:
        with Progress() as progress:
            progress.bootstrap(5, "x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l") >= 0

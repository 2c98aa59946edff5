"""A real browser, without a network to fetch anything from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.lab import verify_png as png

WIDTH, HEIGHT = 1200, 2400
GREEN, RED, CONTROL = (0x1B, 0x6B, 0x3A), (0xB3, 0x26, 0x1E), (0x5B, 0x6B, 0x8C)
_BROWSER = "chromium-headless-shell"
_QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--hide-scrollbars",
          "--force-device-scale-factor=1")  # fmt: skip


def text_of(page: Path, directory: Path) -> str:
    """The document as the browser understands it."""
    return _browse(page, directory / "dom", "--dump-dom")


def picture_of(page: Path, directory: Path) -> png.Picture:
    """A screenshot, which is also left in the directory."""
    shot = directory / "page.png"
    size = f"--window-size={WIDTH},{HEIGHT}"
    _browse(page, directory / "shot", size, f"--screenshot={shot}")
    return png.read(shot.read_bytes())


def _browse(page: Path, directory: Path, *argv: str) -> str:
    command = ["unshare", "--net", "--", _BROWSER, *_QUIET, f"--user-data-dir={directory}"]
    done = subprocess.run(
        [*command, *argv, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": str(directory)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

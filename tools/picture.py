"""docs/watch.svg made anew: a real run of `onionward watch` in a lab of its own.

.venv/bin/python -m tools.picture        as root, in half a minute
"""

from __future__ import annotations

import io
import re
import select
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from onionward.lab import Host, Lab, build, destroy
from onionward.paths import PATHS
from onionward.system import System
from onionward.watch.loop import Watch
from onionward.watch.text import render

PROJECT = Path(__file__).resolve().parents[1]
PICTURE = PROJECT / "docs/watch.svg"
COLUMNS, LINES = 100, 30
_NAME = "picture"
_CONFIG = "/run/onionward-lab/picture.toml"
_LOOKS = 12.0  # seconds
_SCOPES = """\
[host]
[[lan]]
interface = "eth1"
[[user]]
name = "alice"
[[user]]
name = "bob"
[tor]
network = "/run/onionward-lab/network.torrc"
"""
_TALK = "while sleep 0.3; do curl -s -m 5 http://www.example.test/ http://{web}/; done > /dev/null"
# later than the screen begins, so that it knows whose they are
_HOLD = "sleep 8; exec 5<>/dev/tcp/{web}/80 6<>/dev/tcp/{web}/80; read"
_TRY = "while sleep 0.5; do echo x > /dev/udp/192.0.2.7/443; done 2> /dev/null"


def main() -> None:
    """Build a lab, have people talk in it, look, and write the picture."""
    try:
        lab = build(System(), name=_NAME)
        PICTURE.write_text(_picture(lab))
    finally:
        destroy(System(), _NAME)


def _picture(lab: Lab) -> str:
    gateway, client = lab.hosts["gateway"], lab.hosts["client1"]
    (gateway.root / _CONFIG.lstrip("/")).write_text(_SCOPES)
    _run(gateway, "onionward", "--config", _CONFIG, "up")
    talk = _TALK.format(web=lab.web4)
    talkers = [
        _start(gateway, "bash", "-c", talk, user="alice"),
        _start(gateway, "bash", "-c", _HOLD.format(web=lab.web4), user="alice"),
        _start(gateway, "bash", "-c", _TRY, user="alice"),
        _start(gateway, "bash", "-c", talk),
        _start(client, "bash", "-c", talk.replace("www.example.test", lab.web4)),
    ]
    try:
        _run(gateway, "onionward", "pause", "bob")
        path = f"PYTHONPATH={PROJECT}"
        return _run(gateway, "env", path, "python", "-m", "tools.picture", "look")
    finally:
        for talker in talkers:
            talker.kill()
            talker.wait()
        _run(gateway, "onionward", "down", "--force")


def _run(host: Host, *argv: str) -> str:
    done = subprocess.run(host.command(argv), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{argv}: {done.stdout}{done.stderr}")
    return done.stdout


def _start(host: Host, *argv: str, user: str | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(host.command(argv, user=user), stdin=subprocess.PIPE)


def look() -> str:
    """What `watch` shows after a while, drawn; its letters come from whoever looks at it."""
    watch = Watch(System(), PATHS)
    end = time.monotonic() + _LOOKS
    while time.monotonic() < end:
        found = dict(watch.waiting())
        for descriptor in select.select([*found], [], [], 1.0)[0]:
            found[descriptor]()
        watch.tick()
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True, color_system="standard"
    )
    for line in render(watch.view(), COLUMNS, LINES):
        console.print(line, no_wrap=True, overflow="ellipsis", highlight=False)
    watch.close()
    drawn = console.export_svg(title="onionward watch")
    # a picture asks no server for its letters
    without = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return without.replace("Fira Code", "monospace")


if __name__ == "__main__":
    if sys.argv[1:] == ["look"]:
        sys.stdout.write(look())
    else:
        main()

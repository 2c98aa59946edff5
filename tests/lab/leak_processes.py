"""The processes of a bench: probes that try vectors, and the far end of their flows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import IO

from onionward.lab import Lab
from onionward.leaks.model import Targets

_SECONDS = 120.0


class Running:
    """A probe that has prepared and waits."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []

    def wait_until_prepared(self) -> None:
        out = self._stream(self._process.stdout)
        for line in out:
            if line.strip() == '"prepared"':
                return
            self._lines.append(line)

    def finish(self) -> dict[str, str]:
        try:
            rest, errors = self._process.communicate("\n", timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        assert self._process.returncode == 0, errors
        found = [json.loads(line) for line in (*self._lines, *rest.splitlines())]
        return {entry["id"]: entry["outcome"] for entry in found if isinstance(entry, dict)}

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream
        return stream


class Peer:
    """The far end of flows, at some addresses of a host of the lab."""

    def __init__(self, lab: Lab, targets: Targets, name: str, *addresses: str) -> None:
        argv = ["python", "-m", "onionward.leaks.peer", str(targets.peer_port), lab.stranger4]
        command = lab.hosts[name].command([*argv, *addresses])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._expect("ready")

    def _expect(self, word: str) -> None:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line.strip() == word, f"the peer says {line!r}"

    def go(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self._expect("went")

    def end(self) -> None:
        self._process.communicate(timeout=10)

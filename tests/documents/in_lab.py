"""The lab's machines, for somebody who follows a document.

this machine      the clone: `onionward lab`, which makes the lab
host, gateway, …  the lab's; alice and accounts that a document makes are accounts there
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onionward.lab import Lab
from tests.documents.session import PROJECT, Ended
from tests.lab.app_rootless_account import HOME, PYTHON, Account

HERE = "this machine"
PROTECTED = ("host", "gateway")
_FILES = (
    *("passwd", "group", "shadow", "gshadow", "subuid", "subgid"),
    "onionward/onionward.toml",
)
_TYPED = "mkdir -p /run/documents && cd /run/documents && "
_PATIENCE = 90.0
_VARIABLES = {"LC_ALL": "C.UTF-8", "TERM": "dumb", "COLUMNS": "80", "HOME": "/root"}
_WRAPPER = f'#!/bin/sh\nexec {PYTHON} -m onionward "$@"\n'


def make(name: str) -> Ended:
    """Type `onionward lab up`."""
    return _ended(_here(".venv/bin/onionward lab up", name), name)


def _here(words: str, name: str) -> list[str]:
    """Arguments for what is typed in the clone; nothing but `onionward lab` is let near it."""
    found = re.fullmatch(r"(exec )?\.venv/bin/onionward lab (up|exec|down)\b(.*)", words)
    assert found, words
    ending, verb, rest = found.groups(default="")
    program = f"{Path(sys.executable).parent}/onionward"
    return ["sh", "-c", f"{ending}{program} lab {verb} --name {name}{rest}"]


def _ended(argv: list[str], name: str) -> Ended:
    variables = {"PATH": os.environ["PATH"], **_VARIABLES}
    done = Ended.of(argv, _PATIENCE, cwd=PROJECT, env=variables)
    # the lab has the name that it has when none is given
    output = done.output.replace(f"--name {name} ", "").replace(f"lab {name} ", "lab lab ")
    return Ended(done.status, output.replace(f"{Path(sys.executable).parents[2]}/", ""))


class InLab:
    """The machines of a lab.

    Args:
        lab: its hosts.
        made: how `make` has ended.

    """

    def __init__(self, lab: Lab, made: Ended) -> None:
        self.lab = lab
        self._made = made
        self._account = Account(lab)
        self._account.prepare()
        wrapper = lab.hosts["host"].root / "srv/onionward"
        wrapper.write_text(_WRAPPER)
        wrapper.chmod(0o755)

    def files(self, machine: str) -> Path:
        """The root of a machine's files."""
        return self.lab.hosts[machine].root if machine in self.lab.hosts else Path("/nowhere")

    def execute(self, machine: str, user: str | None, words: str) -> Ended:
        """Run words of a shell to their end."""
        if words.endswith("onionward lab up"):
            return self._made
        return _ended(self._command(machine, user, words), self.lab.name)

    @contextmanager
    def going_on(self, machine: str, user: str | None, words: str) -> Iterator[None]:
        """Run words of a shell while something else goes on."""
        with subprocess.Popen(
            self._command(machine, user, f"exec {words}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
            start_new_session=True,
        ) as process:
            time.sleep(0.5)
            assert process.poll() is None, f"{words} has ended: {process.communicate()[0]!r}"
            yield
            assert process.poll() is None, f"{words} has ended: {process.communicate()[0]!r}"
            # Ctrl-C reaches all that the terminal's command has started
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=10)

    @contextmanager
    def left_as_found(self) -> Iterator[None]:
        """Configurations, accounts and rules are afterwards as they were before."""
        kept = {
            path: path.read_bytes()
            for name in PROTECTED
            for path in (self.files(name) / "etc" / file for file in _FILES)
            if path.exists()
        }
        try:
            yield
        finally:
            self._account.end_all()
            for name in PROTECTED:
                self.execute(name, None, "onionward disable; onionward down --force")
                tables = self.execute(name, None, "nft list tables").output
                assert "onionward" not in tables, tables
            for path, content in kept.items():
                if path.read_bytes() != content:
                    path.write_bytes(content)

    def _command(self, machine: str, user: str | None, words: str) -> list[str]:
        if machine == HERE:
            return _here(words, self.lab.name)
        host = self.lab.hosts[machine]
        if user is None:
            return host.command(["sh", "-c", _TYPED + words])
        if "sudo " in words:
            # there is no sudo in the lab: this is what onionward sees of it
            uid = self._account.uid
            script = f"cd {HOME} && {words.replace('sudo ', '')}"
            path = f"PATH={Path(sys.executable).parent}:/usr/sbin:/usr/bin"
            return host.command(["env", f"SUDO_UID={uid}", path, "sh", "-c", script])
        if user == self._account.name and machine == "host":
            variables = {"PATH": f"/srv:{self._account.variables['PATH']}"}
            return self._account.command("sh", "-c", f"cd; {words}", variables=variables)
        return host.command(["env", "HOME=/run/documents", "sh", "-c", words], user=user)

"""Values and stand-ins that several tests share."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onionward.errors import CommandError
from onionward.facts import Account, Facts, Link
from onionward.networks import Address, Network
from onionward.policy import ControlGroup, Flow, Policy, derive
from onionward.system import DIES_WITH_US, System


def net(text: str) -> Network:
    return ipaddress.ip_network(text)


def addr(text: str) -> Address:
    return ipaddress.ip_address(text)


def flow(peer: str, peer_port: int, local: str, local_port: int) -> Flow:
    return Flow(addr(peer), peer_port, addr(local), local_port)


ETH0 = Link(
    "eth0",
    (addr("192.0.2.2"), addr("fd00::2"), addr("fe80::fc:ff:fe00:1")),
    (net("192.0.2.0/24"), net("fd00::/64"), net("fe80::/64")),
)

FACTS = Facts(
    effective_uid=0,
    nft_version=(1, 0, 6),
    tor_path="/usr/sbin/tor",
    missing_tools=(),
    links=(ETH0,),
    users=(),
    ipv6=True,
    tor_account=Account("onionward-tor", 947, 947, Path("/var/lib/onionward/tor")),
    account_processes=(),
    dhcp_uids=(0, 101),
    ephemeral_ports=(32768, 60999),
    privileged_ports_below=1024,
    cgroup_mount=Path("/sys/fs/cgroup"),
)


def policy(config_text: str = "", facts: Facts = FACTS, **changes: Any) -> Policy:
    """The policy of a configuration on the example machine, with some fields changed."""
    from onionward.config import parse

    derived = derive(
        parse(config_text, "test.toml"),
        facts,
        tor_uid=947,
        tor_cgroup=ControlGroup("onionward-test", 1),
    )
    return replace(derived, **changes)


class LocalSystem(System):
    """Changes files for real, gives them to whoever runs the tests, and writes down each effect."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[str] = []

    def effect(self, words: str) -> None:
        self.effects.append(words)

    def write_file(
        self, path: Path, text: str, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        super().write_file(path, text, mode=mode, owner=_possible(owner))

    def make_directory(
        self, path: Path, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> None:
        super().make_directory(path, mode=mode, owner=_possible(owner))


def _possible(owner: tuple[int, int]) -> tuple[int, int]:
    return owner if os.geteuid() == 0 else (os.geteuid(), os.getegid())


class DyingSystem(LocalSystem):
    """Dies immediately before one of its effects, as a kill would make it."""

    class DeathError(BaseException):
        """No program can catch a kill."""

    def __init__(self, survives: int) -> None:
        super().__init__()
        self._survives = survives

    def effect(self, words: str) -> None:
        if len(self.effects) == self._survives:
            raise self.DeathError(words)
        super().effect(words)


class ScriptedSystem(LocalSystem):
    """Answers commands from a table instead of running them.

    Args:
        answers: for the start of a command line, what it prints or the error it ends with.

    """

    def __init__(
        self, answers: Mapping[str, str | CommandError | Callable[[str], str]] | None = None
    ) -> None:
        super().__init__()
        self.answers = dict(answers or {})
        self.asked: list[str] = []

    def execute(
        self, argv: Sequence[str], *, stdin: str, timeout: float, accept: Sequence[int]
    ) -> str:
        del timeout, accept
        words = " ".join(argv).removeprefix(f"{' '.join(DIES_WITH_US)} ")
        self.asked.append(words)
        for start in sorted(self.answers, key=len, reverse=True):
            if words.startswith(start):
                answer = self.answers[start]
                if isinstance(answer, CommandError):
                    raise answer
                return answer(stdin) if callable(answer) else answer
        raise AssertionError(f"no answer is prepared for: {words}")

"""`onionward verify` on a machine of the lab, and rulesets that are broken on purpose."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.lab.lifecycle_machine import Machine

Report = dict[str, Any]

RULES = "/run/onionward/rules.nft"
_BROKEN = "/run/onionward-lab/broken.nft"


def verify(machine: Machine, *argv: str, status: int, user: str | None = None) -> Report:
    """Verify; the exit status must be that one."""
    done = machine.run("onionward", "verify", "--json", *argv, timeout=120, user=user)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr
    report: Report = json.loads(done.stdout)
    return report


def opened(report: Report) -> set[tuple[str, str]]:
    """What was found open, and for whom."""
    return {(r["id"], r["who"]) for r in report["results"] if r["verdict"] == "open"}


def ids(report: Report, verdict: str) -> set[str]:
    """What was found so for anybody."""
    return {r["id"] for r in report["results"] if r["verdict"] == verdict}


def load(machine: Machine, change: Callable[[str], str]) -> None:
    """Load the rules in force with a change, as somebody's mistake would have them."""
    text = machine.path(RULES).read_text()
    broken = change(text)
    assert broken != text
    machine.path(_BROKEN).write_text(broken)
    machine.output("nft", "--file", _BROKEN)


def load_back(machine: Machine) -> None:
    """Load the rules as they should be."""
    machine.output("nft", "--file", RULES)


def accepting(match: str, *, redirected: bool = True) -> Callable[[str], str]:
    """The last word and those before it let through what matches.

    Args:
        match: of nft(8).
        redirected: whether tor still gets what it would get of that.

    """

    def change(text: str) -> str:
        stamp = re.search(r"meta mark set (0x[0-9a-f]+)\n", text)
        assert stamp
        text = _first_in(text, "output", f"{match} accept")
        text = _first_in(text, "wire", f"{match} meta mark set {stamp[1]} accept")
        return text if redirected else _first_in(text, "to_tor", f"{match} return")

    return change


def _first_in(text: str, chain: str, rule: str) -> str:
    found = re.search(rf"\tchain {chain} {{\n\t\ttype .*\n", text)
    assert found, chain
    return f"{text[: found.end()]}\t\t{rule}\n{text[found.end() :]}"


def without(pattern: str) -> Callable[[str], str]:
    """Lines that match a pattern are missing."""
    return lambda text: (
        "\n".join(line for line in text.splitlines() if not re.search(pattern, line)) + "\n"
    )


def both(*changes: Callable[[str], str]) -> Callable[[str], str]:
    """One change after the other."""

    def change(text: str) -> str:
        for one in changes:
            text = one(text)
        return text

    return change

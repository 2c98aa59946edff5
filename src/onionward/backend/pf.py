"""pfctl: check, apply, verify, remove; states, and whether pf is on. Knows one tool, no policy.

The anchor's rules are replaced in one transaction. The main ruleset is loaded from the machine's
own pf.conf, which leads to the anchor and fills it with the block in the same transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from onionward.errors import CommandError, RefusedError, VerifyError
from onionward.networks import Network
from onionward.render.pf import ANCHOR, Ruleset
from onionward.system import System

NAME = "pf"
_RULE = re.compile(r"(pass|block|match|rdr|no|anchor|rdr-anchor|nat-anchor)\b")
_LOADS = re.compile(r"\s*load\s+anchor\b")
# the optimizer joins rules, and what is read back could not be compared (pfctl(8), -o)
_EXACT = ("-o", "none")


def check(system: System, *rulesets: Ruleset) -> None:
    """Have pfctl read an anchor's rules without loading them.

    Raises:
        RefusedError: it does not accept them; with its words.

    """
    for ruleset in rulesets:
        _check(
            system,
            ["-a", ANCHOR, "-f", "-"],
            ruleset.text,
            f"the rules for the state {ruleset.state}",
            "see the text with: onionward show pf",
        )


def check_main(system: System, text: str, path: Path) -> None:
    """Have pfctl read the main ruleset without loading it.

    Raises:
        RefusedError: it does not accept it; with its words.

    """
    _check(system, ["-f", "-"], text, f"{path} with the anchor in it", "put it right first")


def _check(system: System, arguments: list[str], text: str, what: str, hint: str) -> None:
    try:
        system.query(["pfctl", "-n", *arguments], stdin=text, timeout=60)
    except CommandError as error:
        raise RefusedError(
            f"pfctl does not accept {what}: {error.stderr.strip()}; nothing was changed", hint
        ) from error


def _info(system: System) -> str | None:
    try:
        return system.query(["pfctl", "-s", "info"])
    except CommandError as error:
        # /dev/pf comes with the module
        if "No such file" in error.stderr or "not configured" in error.stderr:
            return None
        raise


def is_in_kernel(system: System) -> bool:
    """Whether there is a pf to talk to."""
    return _info(system) is not None


def is_enabled(system: System) -> bool:
    """Whether pf is on; False where its kernel module is not loaded."""
    return "Status: Enabled" in (_info(system) or "")


def enable(system: System) -> None:
    """Switch pf on."""
    if not is_enabled(system):
        system.change(["pfctl", "-e"])


def disable(system: System) -> None:
    """Switch pf off."""
    if is_enabled(system):
        system.change(["pfctl", "-d"])


def load_main(system: System, path: Path) -> None:
    """Replace the main ruleset, in one transaction with the anchors that it loads."""
    system.change(["pfctl", "-f", str(path)], timeout=60)


def forget_main(system: System) -> None:
    """Empty the main ruleset, which was empty before."""
    for what in ("rules", "nat"):
        if what == "rules" or _translation(system):
            system.change(["pfctl", "-F", what])


def apply(system: System, ruleset: Ruleset) -> None:
    """Replace the anchor's rules and tables in one transaction.

    Raises:
        CommandError: pfctl refused it; what was there before is still there.

    """
    words = f"pfctl -a {ANCHOR} -f -  # {ruleset.state}"
    command = ["pfctl", *_EXACT, "-a", ANCHOR, "-f", "-"]
    system.change(command, stdin=ruleset.text, timeout=60, words=words)


def remove(system: System) -> None:
    """Empty the anchor: rules, redirection and tables."""
    if read(system) is None:
        return
    for what in ("rules", "nat", "Tables"):
        # OpenBSD has no rules of translation apart
        if what == "nat" and not _translation(system, ANCHOR):
            continue
        system.change(["pfctl", "-a", ANCHOR, "-F", what])


def forget_states(system: System) -> None:
    """End all states: pf asks no rule about a packet that has one."""
    system.change(["pfctl", "-F", "states"])


def forget_states_of(system: System, networks: Iterable[Network]) -> None:
    """End the states of packets from and to these networks."""
    for network in networks:
        everybody = "0.0.0.0/0" if network.version == 4 else "::/0"
        system.change(["pfctl", "-k", str(network)])
        system.change(["pfctl", "-k", everybody, "-k", str(network)])


def read(system: System) -> str | None:
    """The anchor's rules as pfctl prints them, or None when there are none."""
    try:
        rules = system.query(["pfctl", "-a", ANCHOR, "-s", "rules"])
    except CommandError:
        return None
    return f"{_translation(system, ANCHOR)}{rules}" if rules.strip() else None


def _translation(system: System, anchor: str = "") -> str:
    where = ["-a", anchor] if anchor else []
    try:
        return system.query(["pfctl", *where, "-s", "nat"])
    except CommandError:
        return ""


def verify(system: System, ruleset: Ruleset) -> str:
    """Read back what is in force and hold it against what pfctl makes of the text.

    Returns:
        A digest of it.

    Raises:
        VerifyError: something is missing or more than was asked for, pf is off, or our anchor is
            not the first that is asked.

    """
    if not is_enabled(system):
        raise VerifyError("pf is off, so no rule holds")
    held = read(system)
    if held is None:
        raise VerifyError(f"the anchor {ANCHOR} is empty")
    command = ["pfctl", *_EXACT, "-n", "-v", "-a", ANCHOR, "-f", "-"]
    expected = _rules(system.query(command, stdin=ruleset.text, timeout=60))
    found = _rules(held)
    if found != expected:
        missing = [line for line in expected if line not in found]
        more = [line for line in found if line not in expected]
        raise VerifyError(
            f"pf holds other rules than were loaded: {len(missing)} missing {missing[:1]}, "
            f"{len(more)} not ours {more[:1]}"
        )
    if wrong := unhooked(system, translated=held.lstrip().startswith(("rdr", "no rdr"))):
        raise VerifyError(wrong)
    return digest(held)


def unhooked(system: System, *, translated: bool) -> str:
    """Why the anchor is not the first that is asked, or ""."""
    rules = _rules(system.query(["pfctl", "-s", "rules"]))
    first = next(iter(rules), "")
    if not first.startswith(f'anchor "{ANCHOR}"'):
        return f'the main ruleset does not begin with anchor "{ANCHOR}" but with: {first or "-"}'
    first = next((line for line in _rules(_translation(system)) if "nat-" not in line), "")
    if translated and not first.startswith(f'rdr-anchor "{ANCHOR}"'):
        return f'translation does not begin with rdr-anchor "{ANCHOR}" but with: {first or "-"}'
    return ""


def _rules(printed: str) -> list[str]:
    """Rules of what `pfctl -s` and `pfctl -nv` print, without macros, tables and scrubbing."""
    lines = (line.strip() for line in printed.splitlines())
    return [line for line in lines if _RULE.match(line)]


def digest(held: str) -> str:
    """A fingerprint of rules."""
    import hashlib

    return hashlib.sha256("\n".join(_rules(held)).encode()).hexdigest()


def main_rules(system: System) -> list[str]:
    """The main ruleset as it is in force, comparable with `rules_of`."""
    return _of_main(_translation(system)) + _of_main(system.query(["pfctl", "-s", "rules"]))


def rules_of(system: System, text: str) -> list[str]:
    """What pfctl makes of a main ruleset, without loading it."""
    # it would print the rules of the anchors, too, which are no part of the main ruleset
    lines = (line for line in text.splitlines(keepends=True) if not _LOADS.match(line))
    return _of_main(system.query(["pfctl", "-n", "-v", "-f", "-"], stdin="".join(lines)))


def _of_main(printed: str) -> list[str]:
    # what is inside an inline anchor is indented; lists become tables with a name of the moment
    top = "\n".join(line for line in printed.splitlines() if line[:1].strip())
    return [re.sub(r"<__automatic_\w+>", "<__automatic>", line) for line in _rules(top)]

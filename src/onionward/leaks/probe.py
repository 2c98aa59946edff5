"""Run vectors where they belong: `python -m onionward.leaks.probe TARGETS ID…`.

Every attempt answers with one line of JSON: its `id` and an `outcome`, which is `sent`,
`refused …` (the machine said no) or `broken …` (the attempt proves nothing). When one of them has
something to prepare, all are prepared first; then the line `"prepared"` is printed and a line is
awaited on standard input before they provoke.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import json
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from onionward.leaks.model import FIRST_NUMBER, Account, Attempt, Probe, Targets
from onionward.leaks.settings import owned_by
from onionward.leaks.vectors import CATALOGUE, number_of

_REFUSALS = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EPIPE,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.EDESTADDRREQ,  # a connected UDP socket that was destroyed has no peer any more
        errno.ENOBUFS,  # the egress hook has dropped the frame
        errno.ETIMEDOUT,
    }
)


def outcome(error: Exception | None) -> str:
    """What an attempt that ended like this has shown."""
    if error is None:
        return "sent"
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return f"refused: {error}"
    return f"broken: {type(error).__name__}: {error}"


def become(account: str) -> None:
    """Give up root for good, and have the account's groups; those go first."""
    # needed for socket addresses, and loaded from where the account may not be able to read
    codecs.lookup("idna")
    entry = pwd.getpwnam(account)
    os.initgroups(account, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)


class Run:
    """Attempts that are prepared together and then provoked together."""

    def __init__(self, probes: Sequence[tuple[str, Probe, Attempt]]) -> None:
        self._probes = probes
        self._waiting: list[tuple[str, Iterator[None]]] = []
        self.outcomes: dict[str, str] = {}

    def prepare(self) -> bool:
        """Start every attempt; whether any of them waits to provoke."""
        for name, probe, attempt in self._probes:
            try:
                rest = probe(attempt)
                if rest is not None:
                    next(rest)
                    self._waiting.append((name, rest))
                    continue
            except Exception as error:  # noqa: BLE001  one attempt must not stop the others
                self.outcomes[name] = outcome(error)
            else:
                self.outcomes[name] = "sent"
        return bool(self._waiting)

    def provoke(self) -> None:
        """Finish the attempts that wait."""
        for name, rest in self._waiting:
            try:
                for _ in rest:
                    raise RuntimeError("a probe waits once")
            except Exception as error:  # noqa: BLE001
                self.outcomes[name] = outcome(error)
            else:
                self.outcomes[name] = "sent"


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the vectors named; 0 whatever came of them."""
    parser = argparse.ArgumentParser(prog="python -m onionward.leaks.probe", description=__doc__)
    parser.add_argument("targets", help="the targets as JSON")
    parser.add_argument("ids", nargs="+", metavar="ID", help="vectors of one account")
    parser.add_argument("--serve", action="store_true", help="run what answers inside the host")
    parser.add_argument("--account", help="run as this account whatever the vectors say")
    parser.add_argument("--owner", help="keep the rights, but open sockets as this account")
    parser.add_argument("--cgroup", type=Path, help="enter this control group first")
    parser.add_argument("--first", type=int, default=FIRST_NUMBER, help="lowest number to use")
    options = parser.parse_args(argv)

    targets = Targets.from_json(options.targets)
    chosen = [CATALOGUE[name] for name in options.ids]
    accounts = {vector.account for vector in chosen}
    if len(accounts) != 1 and not options.account:
        parser.error("vectors of several accounts")
    probes: list[tuple[str, Probe, Attempt]] = []
    for vector in chosen:
        probe = vector.serve if options.serve else vector.probe
        if probe is None:
            parser.error(f"{vector.id} has nothing to serve")
        number = number_of(vector.id, options.first)
        probes.append((vector.id, probe, Attempt(targets, number)))

    if options.cgroup:
        (options.cgroup / "cgroup.procs").write_text(str(os.getpid()))
    names = {Account.USER: targets.user_account, Account.TOR: targets.tor_account}
    account = options.account or names.get(accounts.pop(), "root")
    if account != "root" and not options.serve:
        become(account)

    attempts = Run(probes)
    with contextlib.ExitStack() as stack:
        if options.owner:
            stack.enter_context(owned_by(options.owner))
        if attempts.prepare():
            _say("prepared")
            sys.stdin.readline()
        attempts.provoke()
    for name, words in attempts.outcomes.items():
        _say({"id": name, "outcome": words})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

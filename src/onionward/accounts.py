"""Accounts whose traffic is routed: who they are, and which ids their sockets may have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onionward.errors import CommandError, StepError
from onionward.facts import Account, find_account
from onionward.system import System

SUBUID = Path("/etc/subuid")
NSSWITCH = Path("/etc/nsswitch.conf")
# (uid_t) -1 means "no account" in system calls, so the last id is one less
_LAST_UID = 2**32 - 2


@dataclass(frozen=True, slots=True, order=True)
class Uids:
    """A range of user ids.

    Attributes:
        first: the lowest.
        last: the highest, part of the range.

    """

    first: int
    last: int

    def __contains__(self, uid: int) -> bool:
        return self.first <= uid <= self.last

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class User:
    """An account of `[[user]]` as this machine has it.

    Attributes:
        account: its entry in the account database.
        groups: ids of all its groups, the primary one too.
        subordinate: ids that its rootless containers run as (subuid(5)), sorted, without overlaps.

    """

    account: Account
    groups: frozenset[int]
    subordinate: tuple[Uids, ...] = ()

    @property
    def uids(self) -> tuple[Uids, ...]:
        """Every id its sockets may have, as sorted ranges without overlaps."""
        return merged((Uids(self.account.uid, self.account.uid), *self.subordinate))

    def owns(self, uid: int) -> bool:
        """Whether an id is its own or one of its subordinate ones."""
        return any(uid in uids for uids in self.uids)


@dataclass(frozen=True, slots=True)
class WayAround:
    """Something that acts in the network for an account, under another account's name.

    Attributes:
        name: by which `[[user]] accept` names it.
        reason: what it is and what to do about it, in words that follow a name and a colon.
        path: the program it is about, or None.

    """

    name: str
    reason: str
    path: Path | None = None

    @property
    def narrowest(self) -> str:
        """The word for accept lists that accepts this and nothing else of its kind."""
        return self.name if self.path is None else f"{self.name}:{self.path}"

    def is_accepted(self, accept: Iterable[str]) -> bool:
        """Whether the configuration accepts it, by its name or by name and path ("setuid:/x")."""
        return not {self.name, self.narrowest}.isdisjoint(accept)


def merged(ranges: Iterable[Uids]) -> tuple[Uids, ...]:
    """The same ids in as few ranges as possible, sorted."""
    found: list[Uids] = []
    for one in sorted(ranges):
        if found and one.first <= found[-1].last + 1:
            found[-1] = Uids(found[-1].first, max(found[-1].last, one.last))
        else:
            found.append(one)
    return tuple(found)


def parse_subordinate(text: str, name: str, uid: int) -> tuple[Uids, ...]:
    """The ranges that /etc/subuid gives to an account, by its name or its uid (subuid(5)).

    Numbers are read as newuidmap(1) reads them, so that no id it would map is missed: hexadecimal
    and octal too, after spaces. Lines that are no range are left out, as are ids that do not exist.
    """
    ranges = []
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 3 or fields[0] not in (name, str(uid)):
            continue
        first, count = _unsigned(fields[1]), _unsigned(fields[2])
        if first is not None and first <= _LAST_UID and count:
            ranges.append(Uids(first, min(first + count - 1, _LAST_UID)))
    return merged(ranges)


def _unsigned(text: str) -> int | None:
    """A number as strtoul(3) reads it with base 0, or None."""
    found = re.fullmatch(r"[ \t\v\f\r]*\+?(0[xX][0-9a-fA-F]+|[0-9]+)", text, re.ASCII)
    if found is None:
        return None
    digits = found[1]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
    try:
        return int(digits, base)
    except ValueError:  # an octal number with 8 or 9
        return None


def foreign_source(nsswitch: str) -> str:
    """Where subordinate ids come from when not from /etc/subuid, or "" (nsswitch.conf, `subid`)."""
    for line in nsswitch.splitlines():
        database, separator, sources = line.partition("#")[0].partition(":")
        if separator and database.strip() == "subid":
            # only the first source counts (getsubids(1))
            first = (sources.split() or ["files"])[0]
            return "" if first == "files" else first
    return ""


def find_user(name: str, *, subuid: Path = SUBUID) -> User | None:
    """The account of this name with all its ids, or None when there is none."""
    account = find_account(name)
    if account is None:
        return None
    return User(
        account,
        frozenset(os.getgrouplist(account.name, account.gid)),
        parse_subordinate(_text(subuid), account.name, account.uid),
    )


def uncounted(user: User, *, nsswitch: Path = NSSWITCH) -> tuple[WayAround, ...]:
    """Ids the account may have that are not known here, as a way around named "subordinate"."""
    source = foreign_source(_text(nsswitch))
    if not source:
        return ()
    reason = (
        f"{nsswitch} takes subordinate ids of {user.account.name} from {source}, which cannot be "
        "read here; programs in its containers may run as ids that are not routed"
    )
    return (WayAround("subordinate", reason),)


def shared(user: User, others: Iterable[Account]) -> tuple[Account, ...]:
    """Accounts whose id is among the subordinate ids of a user: its rules would hold for them."""
    return tuple(
        other
        for other in others
        if other.uid != user.account.uid and any(other.uid in u for u in user.subordinate)
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def name_problem(name: str) -> str:
    """Why useradd(8) should not make an account of this name, or ""."""
    if len(name) > 32:
        return f"{name!r} is longer than the 32 characters of an account name"
    if not re.fullmatch(r"[a-z_][a-z0-9_.-]*\$?", name):
        return (
            f"{name!r} is not an account name: it begins with a-z or _, goes on with a-z, 0-9, _, "
            "- and ., and may end in $"
        )
    return ""


def create(system: System, name: str) -> User:
    """The account of this name, made when it does not exist, with a home and no password.

    Nobody can log in to it with a password until passwd(1) gives it one; root's `su` works at once.

    Raises:
        StepError: there is no such account and it could not be made; with useradd's words.

    """
    if (found := find_user(name)) is not None:
        return found
    if problem := name_problem(name):
        raise StepError(f"account not created: {problem}", "correct the name under [[user]]")
    argv = ["useradd", "--create-home", "--user-group", "--shell", "/bin/bash", name]
    try:
        system.change(argv)
    except CommandError as error:
        raise StepError(
            f"account {name} was not created: {_complaint(error)}",
            f"create it yourself (adduser {name}), then repeat `onionward up`",
        ) from error
    if (made := find_user(name)) is None:
        raise StepError(f"useradd made no account {name}", "look at /etc/passwd and at its log")
    return made


def _complaint(error: CommandError) -> str:
    words = [line.removeprefix("useradd: ") for line in error.stderr.splitlines() if line.strip()]
    return "; ".join(words) or f"useradd ended with status {error.status}"

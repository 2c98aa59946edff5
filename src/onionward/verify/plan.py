"""Vectors, and who tries them → trials; and what is not tried, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onionward.leaks.model import Account, Attempt, Needs, Scope, Targets, Vector
from onionward.leaks.scopes import applies
from onionward.leaks.vectors import CATALOGUE, number_of
from onionward.verify.aims import Canaries
from onionward.verify.conduct import Surroundings, reason_against

Rights = Literal["root", "own"]
"""Of whoever verifies: all, or those of an ordinary account."""

_NO_RIGHT = "it takes root's rights"
_NO_NUMBERS = "too many accounts for one run"


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who tries vectors.

    Attributes:
        title: for people.
        account: whose sockets are opened.
        scope: what the vectors are to be ways out of.
        kinds: the accounts of the catalogue that this one stands for.
        subordinate: a user id that belongs to the account (subuid(5)), or 0.

    """

    title: str
    account: str
    scope: Scope
    kinds: frozenset[Account]
    subordinate: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """One vector, tried by somebody.

    Attributes:
        vector: what is tried.
        who: by whom.
        attempt: with which targets and number.

    """

    vector: Vector
    who: Who
    attempt: Attempt

    @property
    def key(self) -> tuple[str, str]:
        """Which it is, among all trials of a plan."""
        return (self.vector.id, self.who.title)

    @property
    def filter(self) -> str:
        """By what its packets are known (pcap-filter(7))."""
        return self.vector.filter(self.attempt)


@dataclass(frozen=True, slots=True)
class Untried:
    """One vector that is not tried.

    Attributes:
        vector: which.
        who: by whom it would have been.
        why: the reason, for people.

    """

    vector: Vector
    who: Who
    why: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Trials that one process of one account makes, one after the other.

    Attributes:
        who: whose process.
        options: of `onionward.leaks.probe`.
        trials: in the order of the catalogue.
        in_group: whether the process enters the control group of tor's service.

    """

    who: Who
    options: tuple[str, ...]
    trials: tuple[Trial, ...]
    in_group: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be tried.

    Attributes:
        batches: of each account, in order.
        untried: what is not.

    """

    batches: tuple[Batch, ...]
    untried: tuple[Untried, ...]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All of them."""
        return tuple(trial for batch in self.batches for trial in batch.trials)


def people(
    *,
    route: str,
    users: Sequence[tuple[str, int]],
    rights: Rights,
    ordinary: str,
    tor: str,
) -> tuple[Who, ...]:
    """Who tries.

    Args:
        route: "tor", "onion" or "direct", of what the machine itself sends.
        users: the accounts that are routed, each with a subordinate user id or 0.
        rights: of whoever verifies.
        ordinary: an account without rights that no rule names; with rights "own" one's own.
        tor: tor's account.

    """
    user, root = frozenset({Account.USER}), frozenset({Account.ROOT})
    if rights == "own":
        # whether this account, or the whole machine, is routed is for root to know
        return (Who(ordinary, ordinary, Scope.HOST, user),)
    found: list[Who] = []
    if route == "tor":
        found += [
            Who("root", "root", Scope.HOST, user | root),
            Who(ordinary, ordinary, Scope.HOST, user),
            Who("tor's account", tor, Scope.HOST, frozenset({Account.TOR})),
        ]
    if route == "onion":
        found += [
            Who("root", "root", Scope.ONION, root),
            Who(ordinary, ordinary, Scope.ONION, user),
        ]
    found += [Who(name, name, Scope.USER, user | root, sub) for name, sub in users]
    return tuple(found)


def plan(
    whos: Sequence[Who],
    targets: Targets,
    canaries: Canaries,
    around: Surroundings,
    *,
    beyond: int,
    rights: Rights,
    only: tuple[str, ...] = (),
) -> Plan:
    """What is to be tried.

    Args:
        whos: who tries.
        targets: where the probes aim.
        canaries: drawn.
        around: what the machine's network has.
        beyond: the first number that is not to be used.
        rights: of whoever verifies.
        only: how the names of those begin that are looked at; all when there are none.

    """
    batches: list[Batch] = []
    untried: list[Untried] = []
    for place, who in enumerate(whos):
        first = canaries.first + place * len(CATALOGUE)
        aim = replace(
            targets,
            user_account=who.account if who.scope is Scope.USER else targets.user_account,
            subordinate=who.subordinate,
        )
        there = replace(around, subordinate=bool(who.subordinate))
        chosen: list[Trial] = []
        for vector in _of(who, rights):
            if only and not vector.id.startswith(only):
                continue
            why = reason_against(vector, there)
            if not why and first + len(CATALOGUE) > beyond:
                why = _NO_NUMBERS
            if not why and rights == "own" and _needs_rights(vector):
                why = _NO_RIGHT
            if why:
                untried.append(Untried(vector, who, why))
            else:
                attempt = Attempt(aim, number_of(vector.id, first))
                chosen.append(Trial(vector, who, attempt))
        batches += _batches(who, chosen, first, rights)
    return Plan(tuple(batches), tuple(untried))


def _of(who: Who, rights: Rights) -> Iterator[Vector]:
    """The vectors that mean something for somebody, whether they can be tried or not."""
    for vector in CATALOGUE.values():
        if not applies(vector, who.scope):
            continue
        # an account without rights learns of the others, too
        if rights == "own" or _kind(vector) in who.kinds:
            yield vector


def _kind(vector: Vector) -> Account:
    """Who tries it; whoever is in tor's control group belongs to tor's."""
    return Account.TOR if vector.needs is Needs.TOR_GROUP else vector.account


def _needs_rights(vector: Vector) -> bool:
    return _kind(vector) is not Account.USER


def _batches(who: Who, trials: Sequence[Trial], first: int, rights: Rights) -> Iterator[Batch]:
    """As few processes as can be; those in tor's control group apart."""
    groups: dict[tuple[Account, bool], list[Trial]] = {}
    for trial in trials:
        in_group = trial.vector.needs is Needs.TOR_GROUP
        groups.setdefault((trial.vector.account, in_group), []).append(trial)
    for (kind, in_group), found in groups.items():
        options = ["--first", str(first)]
        if kind is Account.USER:
            account = trials[0].attempt.targets.user_account if in_group else who.account
            options += ["--account", account if rights == "root" else "root"]
        elif who.scope is Scope.USER:
            options += ["--owner", who.account]
        yield Batch(who, tuple(options), tuple(found), in_group)

"""A view as plain lines, for something that is no terminal: one for each change."""

from __future__ import annotations

from collections.abc import Iterator

from onionward.watch.ledger import Circuit
from onionward.watch.view import View


def changes(before: View | None, after: View) -> tuple[str, ...]:
    """What is new, a line each; of the first view, all that lasts."""
    return (
        *_of_state(before, after),
        *_of_scopes(before, after),
        *_of_circuits(before, after),
        *_of_attempts(before, after),
        *_of_news(before, after),
    )


def _of_state(before: View | None, after: View) -> Iterator[str]:
    if before is None or (before.state, before.tor) != (after.state, after.tor):
        yield f"state {after.state}; {after.tor}"
    known = set() if before is None else {*before.problems}
    yield from (f"problem {problem}" for problem in after.problems if problem not in known)
    yield from (f"solved {problem}" for problem in sorted(known - {*after.problems}))


def _of_scopes(before: View | None, after: View) -> Iterator[str]:
    known = {} if before is None else {row.name: row for row in before.scopes}
    for row in after.scopes:
        if row.name not in known:
            yield f"scope {row.name}" + (f" ({row.note})" if row.note else "")
        elif row.note != known[row.name].note:
            yield f"{row.name} {row.note or 'resumed'}"
    names = {row.name for row in after.scopes}
    for name, row in known.items():
        if name not in names:
            yield f"{name} resumed" if row.note else f"scope {name} ended"


def _of_circuits(before: View | None, after: View) -> Iterator[str]:
    known = {} if before is None else {c.number: c for c in before.circuits if _is_told(c)}
    present = {circuit.number: circuit for circuit in after.circuits if _is_told(circuit)}
    for number, circuit in present.items():
        if number not in known:
            path = " → ".join(hop.name for hop in circuit.hops)
            whose = "" if circuit.owner is None else f" of {circuit.owner.words()}"
            yield f"circuit {number}{whose}: {path}"
    yield from (f"circuit {number} ended" for number in known if number not in present)


def _is_told(circuit: Circuit) -> bool:
    return circuit.owner is not None and circuit.state == "BUILT"


def _of_attempts(before: View | None, after: View) -> Iterator[str]:
    # how often changes all the time
    known = set() if before is None else {words.partition(", ")[0] for words in before.attempts}
    yield from (words for words in after.attempts if words.partition(", ")[0] not in known)


def _of_news(before: View | None, after: View) -> Iterator[str]:
    known = set() if before is None else {*before.news}
    yield from (f"{one.level} {one.words}" for one in after.news if one not in known)

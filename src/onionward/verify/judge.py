"""What was seen, and what attempts said → what is known of each vector. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onionward.leaks.model import Vector
from onionward.leaks.vectors import THEMES
from onionward.verify.plan import Plan, Trial, Untried
from onionward.verify.report import Result, Sighting, Verdict

Key = tuple[str, str]

_NOTHING = Sighting(0)
# errno(3): ENETUNREACH, EADDRNOTAVAIL, EHOSTUNREACH
_NO_WAY = re.compile(r"Errno (101|99|113)\b")
# what a way out over IPv6 is called in the catalogue
_SIX = re.compile(r"6(-|$)|\.all-nodes$|^raw\.(nd-|router-|mld$)|^group\.mld$|^cast\.dhcp6$")

_THEME_OF = {vector.id: theme for theme, vectors in THEMES.items() for vector in vectors}


@dataclass(frozen=True)
class Evidence:
    """What a run has to show.

    Attributes:
        control: sightings in the scratch network, by vector and who.
        uplink: sightings on the wire; None when nobody could watch.
        said: what came of each attempt on the machine itself.
        said_in_control: the same in the scratch network.
        routes4: whether the machine has a way out over IPv4.
        routes6: the same, IPv6.
        unwatched: why nobody could watch, or "".

    """

    control: Mapping[Key, Sighting]
    uplink: Mapping[Key, Sighting] | None
    said: Mapping[Key, str]
    said_in_control: Mapping[Key, str]
    routes4: bool
    routes6: bool
    unwatched: str = ""


def judge(plan: Plan, evidence: Evidence) -> tuple[Result, ...]:
    """What is known, in the order of the catalogue."""
    results = [_judged(trial, evidence) for trial in plan.trials]
    results += [_untried(untried) for untried in plan.untried]
    order = {name: place for place, name in enumerate(_THEME_OF)}
    return tuple(sorted(results, key=lambda result: order[result.id]))


def _untried(untried: Untried) -> Result:
    vector = untried.vector
    theme = _THEME_OF[vector.id]
    return Result(vector.id, theme, vector.title, untried.who.title, "not tried", untried.why)


def _judged(trial: Trial, evidence: Evidence) -> Result:
    said = evidence.said.get(trial.key, "broken: it was not run")
    control = evidence.control.get(trial.key, _NOTHING)
    uplink = (evidence.uplink or {}).get(trial.key, _NOTHING)
    verdict, why = _verdict(trial, evidence, said, control, uplink)
    vector = trial.vector
    theme = _THEME_OF[vector.id]
    return Result(
        vector.id,
        theme,
        vector.title,
        trial.who.title,
        verdict,
        why,
        trial.filter,
        said,
        control,
        uplink,
    )


def _verdict(
    trial: Trial, evidence: Evidence, said: str, control: Sighting, uplink: Sighting
) -> tuple[Verdict, str]:
    # whatever else is wrong, what was seen has left
    if uplink.packets:
        return "open", ""
    six = is_six(trial.vector)
    routed = evidence.routes6 if six else evidence.routes4
    if not routed and _NO_WAY.search(said):
        return "not tried", f"this machine has no IPv{6 if six else 4} route"
    if evidence.uplink is None:
        return "not proven", evidence.unwatched
    if not control.packets:
        told = evidence.said_in_control.get(trial.key, "broken: it was not run")
        return "not proven", f"the detector did not see it in the control either ({told})"
    if said.startswith("broken"):
        return "not proven", f"the attempt failed by itself ({said.partition(': ')[2]})"
    return "closed", ""


def is_six(vector: Vector) -> bool:
    """Whether it is a way out over IPv6."""
    return bool(_SIX.search(vector.id)) or vector.family == "V6"

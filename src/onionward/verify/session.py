"""From what is in force to a report: plan, control, trial, judgement."""

from __future__ import annotations

import contextlib
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onionward import __version__
from onionward.describe import describe, scopes
from onionward.errors import LabError, RefusedError
from onionward.leaks.model import Targets
from onionward.leaks.vectors import CATALOGUE
from onionward.leaks.wire import Capture, Exempt, Witness
from onionward.paths import Paths
from onionward.system import System, find_tool
from onionward.verify import aims, plan, prober, relays, scratch, watching, workplace
from onionward.verify.judge import Evidence, judge
from onionward.verify.machine import Machine, allowed, ephemeral, look, networks6, notes, people
from onionward.verify.machine import interfaces as of_interest
from onionward.verify.report import FORMAT, Report

_SETTLE_SECONDS = 1.2  # the first repetition of a SYN comes after one second
_LONGEST = 512  # bytes of a frame: more than any filter of the catalogue reads

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for.

    Attributes:
        interface: the one to try to leave by; "" for that of the default route.
        only: how names of vectors begin that are to be tried; all when there are none.
        disturb: try also what may disturb other machines of the link.

    """

    interface: str = ""
    only: tuple[str, ...] = ()
    disturb: bool = False


def run(system: System, paths: Paths, wish: Wish, say: Say) -> Report:
    """Verify.

    Raises:
        RefusedError: nothing is routed, or nothing of it can be tried from here.
        LockedError: another run is at work.
        LabError: the control cannot be made.

    """
    machine = look(system, paths)
    for tool in ("tcpdump", "ip", "unshare", "nsenter"):
        if find_tool(tool) is None:
            raise RefusedError(f"`onionward verify` needs {tool}; nothing was tried", "install it")
    whos = people(machine)
    if not whos:
        raise RefusedError(
            "only clients of a LAN are routed, and what they send begins with them: "
            "there is nothing that can be tried from here",
            "onionward explain --from INTERFACE says what becomes of a client's packet",
        )
    began = time.time()
    uplink = aims.read(system, wish.interface)
    below = ephemeral(machine)
    canaries = aims.draw(random.SystemRandom(), len(whos) * len(CATALOGUE), below)
    targets = _targets(machine, uplink, canaries)
    bypass = machine.policy.bypass if machine.policy else ()
    around = aims.surroundings(uplink, bypass, subordinate=False, disturb=wish.disturb)
    made = plan.plan(
        whos, targets, canaries, around, beyond=below, rights=machine.rights, only=wish.only
    )
    if not made.trials:
        raise RefusedError(_why_none(made))
    say(f"{len(made.trials)} ways out by {_listed(who.title for who in whos)}")
    with workplace.occupied(workplace.directory()) as place:
        return _tried(system, machine, made, uplink, targets, canaries, place, say, began)


def _why_none(made: plan.Plan) -> str:
    if not made.untried:
        return "no way out has such a name; nothing was tried"
    first = made.untried[0]
    return f"nothing can be tried: {first.vector.id}, because {first.why}"


def _targets(machine: Machine, uplink: aims.Uplink, canaries: aims.Canaries) -> Targets:
    policy = machine.policy
    virtual = ("127.192.0.7", "fd5a:7011::7")
    ports = (940, 941)
    if policy is not None:
        virtual = (str(policy.virtual4[7]), str(policy.virtual6[7]))
        ports = (policy.trans_port, policy.dns_port)
    found = aims.targets(uplink, canaries, virtual, ports)
    return replace(
        found, user_account=machine.ordinary, tor_account=machine.tor_account or machine.ordinary
    )


def _tried(
    system: System,
    machine: Machine,
    made: plan.Plan,
    uplink: aims.Uplink,
    targets: Targets,
    canaries: aims.Canaries,
    place: Path,
    say: Say,
    began: float,
) -> Report:
    control_began = time.time()
    control, said_in_control = _control(system, machine, made, uplink, targets, place, say)
    control_ended = time.time()
    control_seen = watching.sightings(control, made.trials, expected=True)
    say(f"the detector has seen {len(control_seen)} of {len(made.trials)}")

    interfaces = of_interest(machine, uplink.device)
    say(f"the same on this machine; tcpdump watches {', '.join(interfaces)}")
    unwatched = ""
    trial_began = time.time()
    uid = machine.policy.tor_uid if machine.policy else -1
    with contextlib.ExitStack() as stack:
        captures: watching.Captures | None = None
        try:
            captures = stack.enter_context(_watched(interfaces, place, "uplink", ()))
        except LabError as error:
            if machine.rights == "root":
                raise
            unwatched = "nobody watched the wire, which takes root's rights"
            say(f"what leaves cannot be seen: {error.hint}")
        far_ends = stack.enter_context(relays.noted(uid))
        said = _probe(made, None, machine.group)
    trial_ended = time.time()
    say("reading what was seen")
    seen = watching.sightings(captures or {}, made.trials, expected=False)
    evidence = Evidence(
        control=control_seen,
        uplink=None if captures is None else seen,
        said=said,
        said_in_control=said_in_control,
        routes4=uplink.routes4,
        routes6=uplink.routes6,
        unwatched=unwatched,
    )
    policy = machine.policy
    exempt = Exempt(relays=tuple(sorted(far_ends)), networks6=networks6(machine))
    return Report(
        format=FORMAT,
        onionward=__version__,
        machine=platform.node(),
        kernel=platform.release(),
        state=machine.state,
        scopes=scopes(policy) if policy else (),
        policy=tuple(describe(policy).splitlines()) if policy else (),
        interface=uplink.device,
        watched=() if captures is None else tuple(interfaces),
        began=began,
        seconds=round(time.time() - began, 1),
        canaries=_canaries(canaries),
        first=canaries.first,
        tools=_tools(system),
        control=(control_began, control_ended),
        trial=(trial_began, trial_ended),
        results=judge(made, evidence),
        traffic=watching.traffic(
            captures or {}, control, made.trials, seen, exempt, allowed(machine)
        ),
        notes=notes(machine),
    )


def _control(
    system: System,
    machine: Machine,
    made: plan.Plan,
    uplink: aims.Uplink,
    targets: Targets,
    place: Path,
    say: Say,
) -> tuple[watching.Captures, prober.Outcomes]:
    """What the probes do where they can do nothing, and what the detector makes of it."""
    if machine.rights != "root":
        # a user namespace would do for the probes, but tcpdump refuses to run in one
        say("no positive control: it takes root's rights")
        return {}, {trial.key: "no control without root's rights" for trial in made.trials}
    say("positive control: the same probes in a network that leads nowhere")
    with (
        scratch.opened(system, uplink, targets, place) as room,
        _watched([uplink.device], place, "control", room.enter) as control,
    ):
        return control, _probe(made, room, machine.group)


@contextlib.contextmanager
def _watched(
    interfaces: Sequence[str], place: Path, label: str, enter: Sequence[str]
) -> Iterator[dict[str, Capture]]:
    """Watch what leaves by interfaces, from this side."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Witness(name, place, enter=enter, direction="out", longest=_LONGEST).watch(
                    f"{label}{number}"
                )
            )
            for number, name in enumerate(interfaces)
        }


def _probe(
    made: plan.Plan, room: scratch.Scratch | None, group: Path | None
) -> dict[tuple[str, str], str]:
    """Have everybody try, one after the other; here, also let leave what is tried again later."""
    said: dict[tuple[str, str], str] = {}
    for who in dict.fromkeys(batch.who for batch in made.batches):
        batches = [batch for batch in made.batches if batch.who == who]
        said |= prober.run(batches, room, group)
    if room is None:
        time.sleep(_SETTLE_SECONDS)
    return said


def _canaries(canaries: aims.Canaries) -> dict[str, str]:
    names = ("web4", "web6", "dns4", "dns6", "stranger4", "stranger6")
    return {name: str(getattr(canaries, name)) for name in names}


def _tools(system: System) -> tuple[str, ...]:
    words = system.query(["tcpdump", "--version"])
    return tuple(words.splitlines()[:2])


def _listed(words: Iterator[str]) -> str:
    return ", ".join(words)

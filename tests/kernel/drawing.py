"""Cases, drawn."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from onionward.explain import State
from tests.kernel.cases import Case, Send
from tests.kernel.clients import packets_of_clients
from tests.kernel.policies import PAUSABLE, drawn_links, drawn_policies
from tests.kernel.programs import packets_of_programs


@st.composite
def cases(draw: st.DrawFn, state: State, most: int) -> Case:
    """A machine that is in this state, and up to `most` packets."""
    links = draw(drawn_links())
    policy = draw(drawn_policies(links))
    kinds = packets_of_programs(links, policy)
    if policy.lans:
        # where programs are untouched, there is little to see of them
        more = 3 if policy.route == "tor" or policy.users else 9
        kinds += [packets_of_clients(links, policy)] * more
    sends: list[Send] = []
    taken: set[tuple[object, ...] | None] = set()
    # most often as many as can be, because loading rules takes longer than sending all these;
    # every number can be had, so that a failure shrinks packet by packet
    for _ in range(draw(st.sampled_from([*range(1, most), *[most] * most * 2]))):
        chosen = draw(draw(st.sampled_from(kinds)))
        if chosen.flow is None or chosen.flow not in taken:
            sends.append(chosen)
        taken.add(chosen.flow)
    forwarding = (draw(st.booleans()), draw(st.booleans()))
    paused = draw(st.lists(st.sampled_from(PAUSABLE), max_size=2, unique=True))
    policy = replace(policy, paused=tuple(sorted(paused)))
    return Case(links, policy, state, tuple(sends), forwarding)

"""The rules of a case for iptables, as a script: all that was there before goes."""

from __future__ import annotations

from onionward.policy import Policy
from onionward.render import iptables
from onionward.render.iptables import Ruleset, sets_text
from onionward.render.iptables.text import document
from tests.kernel.cases import Case

_TABLES = ("raw", "mangle", "nat", "filter")
# nothing of what an earlier case has loaded stays
_EMPTY = "".join(f"*{name}\nCOMMIT\n" for name in _TABLES)


def rendered(policy: Policy, state: str, *, sets: bool = True) -> Ruleset:
    """What is rendered for a state."""
    render = iptables.route if state == "routed" else iptables.block
    return render(policy, sets=sets, frames=True)


def script(case: Case, variant: str) -> str:
    """A shell script that loads what is rendered for the state of a case."""
    ruleset = rendered(case.policy, case.state)
    steps = [
        ("nft -f -", "table netdev onionward_l2\ndelete table netdev onionward_l2\n"),
        (f"iptables-{variant}-restore", _EMPTY),
        (f"ip6tables-{variant}-restore", _EMPTY),
        ("ipset destroy", ""),
        ("ipset -exist restore", sets_text(ruleset.sets)),
        (f"iptables-{variant}-restore --noflush", document(ruleset.ip4)),
        (f"ip6tables-{variant}-restore --noflush", document(ruleset.ip6)),
        ("nft -f -", ruleset.frames),
    ]
    return "\n".join(f"{command} <<'EOF'\n{text}\nEOF" for command, text in steps) + "\n"

"""The documents for iptables are the ones that were reviewed, and the real tools hold them.

`pytest tests/golden --update-goldens` writes what is rendered now; review the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from onionward.backend.iptables import IpTables
from onionward.errors import RefusedError, VerifyError
from onionward.render import iptables
from onionward.render.iptables import Ruleset
from onionward.render.iptables.text import document
from tests.golden import cases
from tests.golden.machine import namespace, unique_cgroup
from tests.golden.reviewed import compare

MORE = (
    (
        ("everything", "nft"),
        ("user-onion", "legacy"),
        ("gateway", "nft"),
        ("inbound-bypass", "legacy"),
        ("kept", "nft"),
    )
    if "ONIONWARD_SWEEP" in os.environ
    else ()
)
FOLDER = Path(__file__).parent / "iptables"


def rendered(case: cases.Case, state: str) -> Ruleset:
    render = iptables.route if state == "routed" else iptables.block
    return render(case.policy, sets=True, frames=True)


def texts(case: cases.Case) -> dict[str, str]:
    return {
        f"{word}.ip{'6' if version == 6 else ''}tables": document(
            rendered(case, state).tables(version)
        )
        for word, state in (("route", "routed"), ("block", "blocked"))
        for version in (4, 6)
    }


def test_rendered_as_reviewed(case: cases.Case, request: pytest.FixtureRequest) -> None:
    if case.policy.reach is not None:
        with pytest.raises(RefusedError, match="does not hold tor to its bridges"):
            texts(case)
        return
    folder = FOLDER / case.path.name
    compare({folder / name: text for name, text in texts(case).items()}, request)


@pytest.mark.usefixtures("real_tools")
@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("everything-host", "legacy"),
        ("user-onion", "nft"),
        *MORE,
    ],
)
def test_the_kernel_holds_what_was_rendered(
    name: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases.load(name, tmp_path)
    group = unique_cgroup(cases.CGROUP) if case.policy.tor_cgroup is not None else None
    filters = IpTables("nft" if chosen == "nft" else "legacy")
    with namespace(case.policy.devices, group) as system:
        block, route = (in_group(rendered(case, state), group) for state in ("blocked", "routed"))
        for ruleset in (block, route):
            filters.check(system, ruleset)
        assert filters.read(system) is None, "a check changes nothing"
        digests = []
        for ruleset in (block, route, block):
            filters.apply(system, ruleset)
            digests.append(filters.verify(system, ruleset))
            held = filters.read(system)
            assert held is not None
            assert filters.held_state(held) == ruleset.state
            assert filters.watched_devices(held) == ruleset.devices
        assert digests[0] == digests[2] != digests[1]
        filters.put_back(system, filters.text(route))
        assert filters.verify(system, route) == digests[1]
        with pytest.raises(VerifyError):
            filters.verify(system, block)
        # somebody's rule before ours is seen
        tool = f"ip6tables-{chosen}"
        system.query([tool, "-t", "mangle", "-I", "POSTROUTING", "-j", "ACCEPT"])
        with pytest.raises(VerifyError, match=r"mangle POSTROUTING: .* is not what comes first"):
            filters.verify(system, route)
        system.query([tool, "-t", "mangle", "-D", "POSTROUTING", "-j", "ACCEPT"])
        assert filters.verify(system, route) == digests[1]
        # killed when the rules are gone and the tables that were not there before are left
        with monkeypatch.context() as patch:
            patch.setattr(filters, "_remove_empty", killed)
            with pytest.raises(KeyboardInterrupt):
                filters.remove_tables(system)
        if chosen == "nft":  # of the other, /proc tells for the namespace of the test only
            assert filters.any_table(system)
        filters.remove_tables(system)
        assert filters.read(system) is None
        left = system.query([f"iptables-{chosen}-save"])
        assert not re.search(r"(?m)^(-A|:onion)", left), left
        assert chosen == "legacy" or not left.strip(), left


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def in_group(ruleset: Ruleset, group: str | None) -> Ruleset:
    """With the name of a control group that no other run uses."""
    if group is None:
        return ruleset
    path = group.rpartition("/")[2]

    def named(text: str) -> str:
        return text.replace(f"--path {cases.CGROUP}", f"--path {path}")

    families = [
        tuple(
            table._replace(
                chains=tuple((name, tuple(map(named, rules))) for name, rules in table.chains)
            )
            for table in tables
        )
        for tables in (ruleset.ip4, ruleset.ip6)
    ]
    return ruleset._replace(ip4=families[0], ip6=families[1])

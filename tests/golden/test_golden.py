"""Every text is the one that was reviewed, and the real nft and tor accept it.

`pytest tests/golden --update-goldens` writes what is rendered now; review the difference.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from onionward.backend import nftables as backend
from onionward.errors import CommandError, VerifyError
from onionward.render import nftables
from onionward.render.nftables import Ruleset
from onionward.system import System
from onionward.tables import TABLE
from onionward.tor.process import command
from tests.golden import cases
from tests.golden.machine import namespace, unique_cgroup
from tests.golden.reviewed import compare

TEXTS = ["route.nft", "block.nft", "boot.nft", "lock.nft", "torrc", "policy.txt", "resolv.conf"]


def test_all_cases_are_there() -> None:
    assert len(cases.names()) >= 23


def test_rendered_as_reviewed(case: cases.Case, request: pytest.FixtureRequest) -> None:
    assert list(case.texts) == TEXTS
    compare({case.path / name: text for name, text in case.texts.items()}, request)


def test_nothing_else_is_in_the_folder(case: cases.Case) -> None:
    found = {entry.name for entry in case.path.iterdir()}
    assert found - {"network"} == {"onionward.toml", "facts.json", *TEXTS}


def on_a_machine(case: cases.Case, ruleset: Ruleset, cgroup: str | None) -> Ruleset:
    """The golden text itself, with a name for the control group that no other run uses."""
    name = "route.nft" if ruleset.state == "routed" else "block.nft"
    text = (case.path / name).read_text()
    if cgroup is not None:
        assert f'"{cases.CGROUP}"' in text
        text = text.replace(f'"{cases.CGROUP}"', f'"{cgroup}"')
    return ruleset._replace(text=text)


def group_of(case: cases.Case) -> str | None:
    # a machine that is not routed does not ask for it
    asked = case.policy.tor_cgroup is not None and case.policy.route == "tor"
    return unique_cgroup(cases.CGROUP) if asked else None


@pytest.mark.usefixtures("real_tools")
def test_the_kernel_holds_what_was_rendered(case: cases.Case) -> None:
    group = group_of(case)
    with namespace(case.policy.devices, group) as system:
        block, route = (on_a_machine(case, r, group) for r in (case.block, case.route))
        for ruleset in (block, route):
            backend.check(system, ruleset)
            assert not backend.any_table(system), "a check changes nothing"
        digests = []
        for ruleset in (block, route, block, route, route):
            backend.apply(system, ruleset)
            digests.append(backend.verify(system, ruleset))
            held = backend.read(system)
            assert held is not None
            assert f'comment "onionward: {ruleset.state}"' in held
            assert backend.watched_devices(held) == case.policy.devices
            assert set(backend.counters(held)) == {
                "refused",
                "spoofed",
                "invalid",
                "escaped",
                "forwarded",
                "strangers",
            }
        assert digests[0] == digests[2] != digests[1] == digests[3] == digests[4]
        backend.remove_tables(system)
        assert not backend.any_table(system)
        assert system.query(["nft", "list", "ruleset"]) == ""


@pytest.mark.usefixtures("real_tools")
@pytest.mark.parametrize("name", ["everything-host", "everything"])
def test_rules_that_count_without_nflog(name: str, tmp_path: Path) -> None:
    policy = replace(cases.load(name, tmp_path).policy, nflog=False, tor_cgroup=None)
    with namespace(policy.devices, None) as system:
        for ruleset in (nftables.block(policy), nftables.route(policy)):
            assert " log " not in ruleset.text
            backend.apply(system, ruleset)
            backend.verify(system, ruleset)


@pytest.mark.usefixtures("real_tools")
def test_the_kernel_holds_the_elements_of_every_set(case: cases.Case) -> None:
    group = group_of(case)
    with namespace(case.policy.devices, group) as system:
        ruleset = on_a_machine(case, case.route, group)
        backend.apply(system, ruleset)
        table = ruleset.text.partition("netdev onionward_l2 {")[0]
        for kind, name in re.findall(r"^\t(set|map) (\w+) ", table, re.M):
            shown = system.query(["nft", "list", kind, *TABLE, name])
            assert rendered_elements(shown, name) == rendered_elements(table, name), name


def rendered_elements(text: str, name: str) -> set[str]:
    found = re.search(rf"^\t(?:set|map) {name} \{{\n(.*?)^\t\}}", text, re.M | re.S)
    assert found
    listed = re.search(r"elements = \{(.*?)\}", found[1], re.S)
    given = listed[1].split(",") if listed else []
    # nft shows the network of one address without its prefix
    return {re.sub(r"/(32|128)$", "", element.strip()) for element in given}


@pytest.mark.usefixtures("real_tools")
class TestDetection:
    """What `verify` and the digest are for: rules that are not the ones that were loaded."""

    CHANGES = (
        "delete chain inet onionward forwarded",
        "flush chain inet onionward wire",
        "add rule inet onionward output accept",
        "insert rule inet onionward wire accept",
        "add chain inet onionward more",
        "add chain inet onionward more { type filter hook output priority 5; }",
        "add rule netdev onionward_l2 egress accept",
        "delete table netdev onionward_l2",
        "delete table inet onionward",
    )
    SUBTLE_CHANGES = (
        "add element inet onionward bypass4 { 198.51.100.0/24 }",
        "add chain inet onionward output { policy accept; }",
        "replace rule inet onionward tor handle HANDLE accept",
    )

    @pytest.mark.parametrize("change", CHANGES)
    def test_verify_sees(self, change: str, tmp_path: Path) -> None:
        case = cases.load("no-cgroup", tmp_path)
        with namespace(case.policy.devices, None) as system:
            backend.apply(system, case.route)
            system.query(["nft", change])
            with pytest.raises(VerifyError):
                backend.verify(system, case.route)

    @pytest.mark.parametrize("change", [*CHANGES[:-2], *SUBTLE_CHANGES])
    def test_the_digest_sees(self, change: str, tmp_path: Path) -> None:
        case = cases.load("no-cgroup", tmp_path)
        with namespace(case.policy.devices, None) as system:
            backend.apply(system, case.route)
            digest = backend.verify(system, case.route)
            if "HANDLE" in change:
                shown = system.query(["nft", "--handle", "list", "chain", *TABLE, "tor"])
                handle = re.search(r"meta skuid .* # handle (\d+)", shown)
                assert handle
                change = change.replace("HANDLE", handle[1])
            system.query(["nft", change])
            held = backend.read(system)
            assert held is not None
            assert backend.digest(held) != digest

    def test_counted_packets_are_no_change(self, tmp_path: Path) -> None:
        case = cases.load("no-cgroup", tmp_path)
        with namespace(case.policy.devices, None) as system:
            backend.apply(system, case.route)
            digest = backend.verify(system, case.route)
            system.query(["ip", "address", "add", "192.168.1.5/24", "dev", "eth0"])
            system.query(["ip", "link", "set", "eth0", "up"])
            provoke = "import socket; socket.socket(2, 2).sendto(b'x', ('192.168.1.9', 9))"
            with pytest.raises(CommandError, match=r"Operation not permitted|No route"):
                system.query([sys.executable, "-c", provoke])
            held = backend.read(system)
            assert held is not None
            assert sum(backend.counters(held).values()) > 0
            assert backend.digest(held) == digest

    def test_a_device_that_is_not_watched_is_seen(self, tmp_path: Path) -> None:
        case = cases.load("interfaces", tmp_path)
        group = group_of(case)
        ruleset = on_a_machine(case, case.route, group)
        with namespace(case.policy.devices, group) as system:
            backend.apply(system, ruleset._replace(text=ruleset.text.replace('"eth1", ', "")))
            with pytest.raises(VerifyError, match=r"watched interfaces: \('eth0', 'ppp0'"):
                backend.verify(system, ruleset)

    def test_rules_that_are_refused_leave_the_old_ones(self, tmp_path: Path) -> None:
        case = cases.load("no-cgroup", tmp_path)
        with namespace(case.policy.devices, None) as system:
            backend.apply(system, case.block)
            digest = backend.verify(system, case.block)
            broken = case.route._replace(text=case.route.text + "delete table inet no_such\n")
            with pytest.raises(CommandError):
                backend.apply(system, broken)
            assert backend.verify(system, case.block) == digest

    def test_a_foreign_table_is_left_alone(self, tmp_path: Path) -> None:
        case = cases.load("no-cgroup", tmp_path)
        with namespace(case.policy.devices, None) as system:
            system.query(["nft", "add table inet onionward2; add table inet filter"])
            theirs = system.query(["nft", "list", "ruleset"])
            assert not backend.any_table(system)
            backend.apply(system, case.block)
            backend.apply(system, case.route)
            backend.remove_tables(system)
            assert system.query(["nft", "list", "ruleset"]) == theirs


@pytest.mark.usefixtures("real_tools")
def test_tor_accepts_its_configuration(case: cases.Case, tmp_path: Path) -> None:
    text = (case.path / "torrc").read_text()
    account = pwd.getpwnam("nobody")
    text, substituted = re.subn(r"^User .*$", f"User {account.pw_name}", text, flags=re.M)
    assert substituted == 1
    # tor looks at its data as that account, which cannot look into pytest's directories
    with tempfile.TemporaryDirectory(prefix="onionward-golden-") as data:
        os.chown(data, account.pw_uid, account.pw_gid)
        text, substituted = re.subn("^DataDirectory .*$", f"DataDirectory {data}", text, flags=re.M)
        assert substituted == 1
        torrc = tmp_path / "torrc"
        torrc.write_text(text)
        printed = System().query([*command(torrc), "--verify-config"], timeout=30)
    assert "Configuration was valid" in printed
    warned = [line for line in printed.splitlines() if "[warn]" in line or "[err]" in line]
    # tor says of a network that is not the public one that it is not the public one
    assert [line for line in warned if not re.search("DirAuthority|TestingTorNetwork", line)] == []


@pytest.mark.usefixtures("real_tools")
def test_tor_refuses_what_is_no_configuration(tmp_path: Path) -> None:
    torrc = tmp_path / "torrc"
    torrc.write_text("TransPort 127.0.0.1:940\nNoSuchOption 1\n")
    with pytest.raises(CommandError, match="NoSuchOption"):
        System().query([*command(torrc), "--verify-config"], timeout=30)


OPENING = re.compile(r"^set (bypass|link|unroutable|direct_users|dhcp_accounts)\d? \{")
INTERVALS = re.compile(r"\{[^}]*(?:/\d+|\d-\d)[^}]*\}")


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("cases/*/*.nft")), ids=str)
def test_no_set_of_intervals_closes_anything(path: Path) -> None:
    """Such a set is empty for a moment when rules are replaced (render/nftables/accounts.py)."""
    head = ""
    for line in map(str.strip, path.read_text().splitlines()):
        if line.startswith(("set ", "map ")):
            head = line
        elif "flags interval" in line:
            assert OPENING.match(head), head
        elif INTERVALS.search(line):
            assert line.partition(" comment ")[0].endswith(" accept"), line

"""What surrounds pf on BSD, as values: which file gets which lines, which commands, how undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onionward.bsd.kind import Kind
from onionward.bsd.pf_conf import MARK, needs_loopback
from onionward.facts import Facts
from onionward.paths import Paths
from onionward.policy import Policy
from onionward.render.pf import ANCHOR, DIALECTS
from onionward.render.pf.dialects import TURNING4, TURNING6, TURNING_INTERFACE

Command = tuple[str, ...]

RESOLV_CONF = """\
# Written by onionward: names are resolved through Tor.
# The file that was here returns with `onionward down`.
{lookup}nameserver 127.0.0.1
"""


class Step(NamedTuple):
    """One of them.

    Attributes:
        name: its key in the journal.
        words: what it is for.
        path: the file that is changed, or None.
        lines: what is written there.
        whole: whether the file is replaced; else the lines are added.
        mode: of a file that is made.
        commands: run after that.
        undo: run when it is put back.
        at_boot: whether it is for every boot: `enable` takes it, and not `up`.

    """

    name: str
    words: str
    path: Path | None = None
    lines: str = ""
    whole: bool = False
    mode: int = 0o644
    commands: tuple[Command, ...] = ()
    undo: tuple[Command, ...] = ()
    at_boot: bool = False


def steps(kind: Kind, policy: Policy, facts: Facts, paths: Paths) -> tuple[Step, ...]:
    """All of them but the rules, in the order in which they are taken."""
    found = []
    if needs_loopback(policy):
        found.append(_turning_interface(kind, policy))
    if kind.name == "freebsd":
        found.append(
            Step(
                "pf_module",
                "pf in the kernel, now and at boot",
                kind.etc / "rc.conf",
                'pf_enable="YES"\n',
                commands=(("kldload", "-n", "pf"),),
                undo=(("kldunload", "pf"),),
            )
        )
    if policy.route == "tor":
        found += _resolver(kind, policy, facts, paths)
    return tuple(found)


def _turning_interface(kind: Kind, policy: Policy) -> Step:
    name = TURNING_INTERFACE
    six = policy.ipv6
    if kind.name == "openbsd":
        path = kind.etc / f"hostname.{name}"
        mask = "/32" if kind.dialect == "openbsd" else " 255.255.255.255"
        lines = f"inet {TURNING4}{mask}\n" + (f"inet6 {TURNING6} 128\n" if six else "")
    else:
        path = kind.etc / "rc.conf"
        lines = f'cloned_interfaces="${{cloned_interfaces}} {name}"\n'
        lines += f'ifconfig_{name}="inet {TURNING4}/32"\n'
        lines += f'ifconfig_{name}_ipv6="inet6 {TURNING6}/128"\n' if six else ""
    assign: list[Command] = [("ifconfig", name, "inet", f"{TURNING4}/32", "up")]
    assign += [("ifconfig", name, "inet6", f"{TURNING6}/128")] if six else []
    return Step(
        "lo1",
        f"a second loopback interface: what is for tor is routed to {name} and comes in there",
        path,
        lines,
        commands=(("ifconfig", name, "create"), *assign),
        undo=(("ifconfig", name, "destroy"),),
    )


def _resolver(kind: Kind, policy: Policy, facts: Facts, paths: Paths) -> Iterator[Step]:
    lookup = "lookup file bind\n" if kind.name == "openbsd" else ""
    yield Step(
        "resolver",
        "names are asked on loopback",
        paths.resolv_conf,
        RESOLV_CONF.format(lookup=lookup),
        whole=True,
    )
    words = "no resolver of the link's in resolv.conf (if one comes all the same, names go to Tor)"
    if kind.dialect != "openbsd":
        lines = "supersede domain-name-servers 127.0.0.1;\n"
        yield Step("dhclient", words, kind.etc / "dhclient.conf", lines)
        return
    behind = {lan.interface for lan in policy.lans}
    uplinks = [link.name for link in facts.links if link.is_uplink and link.name not in behind]
    if uplinks:
        lines = "".join(f"interface {name} {{ ignore dns }}\n" for name in uplinks)
        yield Step("dhclient", words, kind.etc / "dhcpleased.conf", lines)


def main_step(kind: Kind, policy: Policy) -> Step:
    """How the main ruleset leads to the anchor."""
    hooks = [f'anchor "{ANCHOR}"', f'load anchor "{ANCHOR}" from "{kind.stored_block}"']
    words = "the anchor is asked before every other rule, and blocks until `up` has routed"
    if DIALECTS[kind.dialect].translates_first:
        hooks.insert(0, f'rdr-anchor "{ANCHOR}"')
    if needs_loopback(policy):
        words += "; lines `set skip on` loopback are out of force, because packets are judged there"
    return Step(
        "pf_conf",
        words,
        kind.pf_conf,
        "".join(f"{line}\t{MARK}\n" for line in hooks),
        commands=(("pfctl", "-f", str(kind.pf_conf)), ("pfctl", "-e")),
        undo=(("pfctl", "-f", str(kind.pf_conf)), ("pfctl", "-d", "#", "if", "it", "was", "off")),
    )


def describe(kind: Kind, listed: tuple[Step, ...], main: Step) -> str:
    """What `onionward show system` prints."""
    lines = [f"# What surrounds pf's rules on {kind.title}, and how each is undone."]
    for step in (*listed, main):
        when = "by `onionward enable`" if step.at_boot else "by `onionward up`"
        lines += ["", f"# {step.name}: {step.words} ({when})"]
        if step.path is not None:
            how = "becomes (what it was is kept)" if step.whole else "gets these lines"
            lines.append(f"# {step.path} {how}:")
            lines += [f"    {line}" for line in step.lines.splitlines()]
        lines += [f"$ {' '.join(command)}" for command in step.commands]
        back = [f"`{' '.join(command)}`" for command in step.undo]
        if step.path is not None:
            others = "left alone" if step.whole else "without these lines"
            back.insert(0, f"{step.path} as it was; {others} if somebody else changed it")
        lines.append(f"# undone: {'; '.join(back) or 'nothing to undo'}")
    lines += ["", *_pf_device(kind)]
    return "\n".join(lines) + "\n"


def _pf_device(kind: Kind) -> tuple[str, ...]:
    if kind.dialect == "openbsd":
        return (
            "# /dev/pf: not needed. TCP is diverted (TransProxyType pf-divert), and tor asks the",
            "# socket where a connection was going, also in a chroot.",
        )
    return (
        "# /dev/pf: tor asks it where a connection was going, and opens it for reading and writing",
        "# as root before it becomes its own account: nothing is to be changed. A tor in a chroot",
        "# needs it there as well (devfs(8): `path pf unhide` for the chroot's devfs).",
    )

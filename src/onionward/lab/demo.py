"""`onionward lab demo`: the same machine with protection off and on, and what left it.

server saw …                 the page's own words about who asked
tcpdump on the far side      counts what came out of the machine's cable
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onionward.errors import LabError
from onionward.lab import build, destroy
from onionward.lab.lab import Lab
from onionward.lab.targets import targets
from onionward.leaks.model import Account, Attempt, Targets
from onionward.leaks.vectors import CATALOGUE, number_of
from onionward.leaks.wire import Capture, Exempt, Witness
from onionward.progress import with_time
from onionward.system import System

# One of each kind of way out; the tests try all of the catalogue.
_VECTORS = (
    "udp.quic4",
    "udp.ntp6",
    "dns.udp4",
    "dns.udp6",
    "ping.any4",
    "ping.any6",
    "bound.tcp4",
    "raw.gre4",
    "frame.udp4",
)
_PAGE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was asked for.

    Attributes:
        title: what it is, for people.
        url: where it is.
        seen: the address that the server saw, or "" when there was no answer.

    """

    title: str
    url: str
    seen: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What a machine did, and what was seen of it.

    Attributes:
        pages: what it fetched.
        name: what a name was resolved to, or "".
        leaks: packets that the witness saw of each vector.
        queries: name queries in clear that it saw.
        escaped: packets that a routed machine must not send.

    """

    pages: tuple[Page, ...]
    name: str
    leaks: dict[str, int]
    queries: int
    escaped: int


def run(system: System) -> int:
    """Build a lab, show, remove it; returns the exit status.

    Returns:
        0 when everything leaked with protection off, nothing with it on, and all pages came.

    Raises:
        LabError: the lab cannot be built or the host cannot be routed.

    """
    console = Console(highlight=False)
    name = f"demo-{os.getpid()}"
    console.print("[bold]A private Tor network on this machine[/] (no internet is used)")
    try:
        progress = with_time(lambda words: console.print(words, markup=False))
        lab = build(system, name=name, progress=progress)
        with tempfile.TemporaryDirectory(prefix="onionward-demo-") as directory:
            off, on = _off_and_on(lab, Path(directory), console)
    finally:
        destroy(system, name)
    console.print()
    console.print(_table(lab, off, on))
    return _verdict(lab, off, on, console)


def _off_and_on(lab: Lab, directory: Path, console: Console) -> tuple[Observation, Observation]:
    console.print("\n[bold]Protection off:[/] the machine fetches pages, and tries to leak")
    off = _observe(lab, directory, "off")
    console.print("\n[bold]onionward up[/]")
    _onionward(lab, "up")
    console.print("\n[bold]Protection on:[/] the same again")
    on = _observe(lab, directory, "on")
    console.print("\n[bold]onionward down[/]")
    _onionward(lab, "down")
    return off, on


def _onionward(lab: Lab, command: str) -> None:
    done = subprocess.run(lab.hosts["host"].command(["onionward", command]), check=False)
    if done.returncode:
        raise LabError(f"`onionward {command}` ended with status {done.returncode} in the lab")


def _observe(lab: Lab, directory: Path, label: str) -> Observation:
    aims = targets(lab)
    exempt = Exempt(relays=lab.relays, networks6=("2001:db8::/64",))
    witness = Witness(lab.host_link, directory, namespace=lab.hosts["internet"].pid)
    with witness.watch(label) as capture:
        pages = (
            _fetch(lab, "web page over IPv4", f"http://{lab.web4}/"),
            _fetch(lab, "web page over IPv6", f"http://[{lab.web6}]/"),
            _fetch(lab, "web page by name", "http://www.example.test/"),
            _fetch(lab, "onion service", f"http://{lab.onion}/"),
        )
        name = _run(lab, ["dig", "+short", "+time=10", "www.example.test", "A"]).strip()
        for account in (Account.USER, Account.ROOT):
            _attempt(lab, aims, account)
    leaks = {vector: _count(capture, aims, vector) for vector in _VECTORS}
    return Observation(
        pages, name, leaks, capture.count("port 53"), capture.count(exempt.escaped())
    )


def _count(capture: Capture, aims: Targets, vector: str) -> int:
    return capture.count(CATALOGUE[vector].filter(Attempt(aims, number_of(vector))))


def _attempt(lab: Lab, aims: Targets, account: Account) -> None:
    names = [vector for vector in _VECTORS if CATALOGUE[vector].account is account]
    _run(lab, ["python", "-m", "onionward.leaks.probe", aims.to_json(), *names])


def _fetch(lab: Lab, title: str, url: str) -> Page:
    text = _run(lab, ["curl", "--silent", "--max-time", str(_PAGE_SECONDS), url])
    try:
        seen = str(json.loads(text)["client"])
    except (ValueError, KeyError):
        seen = ""
    return Page(title, url, seen)


def _run(lab: Lab, argv: Sequence[str]) -> str:
    done = subprocess.run(
        lab.hosts["host"].command(argv), capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout


def _table(lab: Lab, off: Observation, on: Observation) -> Table:
    table = Table(title="One machine, without and with onionward", show_lines=False)
    table.add_column("what it did")
    table.add_column("protection off")
    table.add_column("protection on")
    for before, after in zip(off.pages, on.pages, strict=True):
        table.add_row(f"{before.title}: server saw", _seen(lab, before), _seen(lab, after))
    table.add_row("a name was resolved to", off.name or "no answer", on.name or "no answer")
    table.add_section()
    for vector, count in off.leaks.items():
        title = f"tries: {CATALOGUE[vector].title}"
        table.add_row(title, _packets(count), _packets(on.leaks[vector]))
    table.add_section()
    table.add_row("name queries on the wire", _packets(off.queries), _packets(on.queries))
    table.add_row(
        "[bold]all packets in clear on the wire[/]", _packets(off.escaped), _packets(on.escaped)
    )
    return table


def _seen(lab: Lab, page: Page) -> str:
    if not page.seen:
        return "no answer"
    if page.seen in (lab.host4, lab.host6):
        return f"[red]{page.seen} (this machine)[/]"
    if page.seen in lab.exits:
        return f"[green]{page.seen} (a Tor exit)[/]"
    return f"[green]{page.seen} (its own tor)[/]"


def _packets(count: int) -> str:
    return f"[red]{count} seen[/]" if count else "[green]0[/]"


def _verdict(lab: Lab, off: Observation, on: Observation, console: Console) -> int:
    problems = [
        f"the witness did not see {vector} with protection off"
        for vector, count in off.leaks.items()
        if not count
    ]
    problems += [f"{page.title}: no answer through Tor" for page in on.pages if not page.seen]
    problems += [
        f"{page.title}: the server saw this machine"
        for page in on.pages
        if page.seen in (lab.host4, lab.host6)
    ]
    if not on.name:
        problems.append("no name was resolved through Tor")
    for problem in problems:
        console.print(f"[red]problem:[/] {problem}")
    console.print("tcpdump on the far side of the wire, packets in clear with protection on:")
    console.print(f"[bold]{on.escaped}[/]")
    return 1 if problems or on.escaped else 0

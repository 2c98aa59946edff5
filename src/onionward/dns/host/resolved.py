"""systemd-resolved on a routed host: it asks 127.0.0.1, which the packet rules turn to tor.

A file in the directory of its configuration makes that its one server for all names (the routing
domain `~.`) and ends LLMNR, multicast DNS, DNS over TLS, DNSSEC (tor's answers have no signatures)
and the cache. What it has been told of links, by networkd, NetworkManager or people, it keeps over
a restart; links are not asked any more, but for names below their own domains, so these are taken
from them (resolved.conf(5), resolvectl(1), org.freedesktop.resolve1(5)).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from onionward.dns import service
from onionward.dns.host import dropin, places
from onionward.errors import CommandError
from onionward.system import System

PATH = places.RESOLVED
"""After all others in order ("~" comes last in ASCII); what else is set there is set back first."""
TEXT = f"""\
{dropin.MARK}: names are resolved through Tor. Removed by `onionward down`.
[Resolve]
DNS=
DNS=127.0.0.1
FallbackDNS=
Domains=
Domains=~.
LLMNR=no
MulticastDNS=no
DNSOverTLS=no
DNSSEC=no
Cache=no
"""
_NETWORKD = Path("/run/systemd/netif/links")
DIRECTORIES = (Path("/run/systemd/resolve/netif"), _NETWORKD)
"""What it has been told of links, and what networkd tells it: a file for each link."""
TOOLS = ("busctl", "resolvectl", "systemctl")
_PATIENCE = 5.0  # seconds for it to come up again
_BUS = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")
_WANTED = {"LLMNR": "no", "MulticastDNS": "no", "DNSOverTLS": "no", "DNSSEC": "no"}
_PROPERTIES = ("Domains", *_WANTED)
_UNMANAGED = ("unmanaged", "pending", "initialized", "linger")


class Link(TypedDict):
    """A link whose domains are taken away.

    Attributes:
        index: the kernel's number for it.
        name: of the interface.
        domains: those that are for routing only with "~" before them.
        networkd: whether networkd tells systemd-resolved of it.

    """

    index: int
    name: str
    domains: list[str]
    networkd: bool


class Saved(TypedDict):
    """How to undo it; JSON in the journal.

    Attributes:
        drop_in: the file for its configuration.
        links: those that had domains.

    """

    drop_in: dropin.DropIn
    links: list[Link]


def survey(system: System, before: Saved | None = None) -> Saved:
    """What is there now; of a link that has got domains anew, these are what returns.

    Raises:
        CommandError: it does not answer.
        ResolverError: the name of our file is taken.

    """
    saved = before["drop_in"] if before else dropin.survey(PATH, TEXT)
    links = {link["index"]: link for link in before["links"]} if before else {}
    if is_running():
        links |= {link["index"]: link for link in _with_domains(system)}
    return Saved(drop_in=saved, links=list(links.values()))


def is_running() -> bool:
    """Whether it does; asking would start it."""
    from onionward.dns.onion.facts import is_running

    return is_running("systemd-resolve")


def _properties(system: System) -> Mapping[str, Any]:
    texts = system.query(["busctl", "--json=short", "get-property", *_BUS, *_PROPERTIES])
    values = [json.loads(line)["data"] for line in texts.splitlines()]
    return dict(zip(_PROPERTIES, values, strict=True))


def _with_domains(system: System) -> list[Link]:
    names = _interfaces()
    return [
        Link(index=index, name=names[index], domains=domains, networkd=_is_networkds(index))
        for index, domains in _domains(_properties(system)["Domains"]).items()
        if index in names
    ]


def _domains(data: Sequence[tuple[int, str, bool]]) -> dict[int, list[str]]:
    """Domains of each link as resolvectl(1) has them; 0 stands for those of the configuration."""
    found: dict[int, list[str]] = {}
    for index, name, routing in data:
        found.setdefault(index, []).append(f"~{name}" if routing else name)
    return found


def _interfaces() -> dict[int, str]:
    import socket

    return dict(socket.if_nameindex())


def _is_networkds(index: int) -> bool:
    """Whether networkd has a say in what a link's domains are."""
    try:
        lines = (_NETWORKD / str(index)).read_text().splitlines()
    except OSError:
        return False
    states = [line.partition("=")[2] for line in lines if line.startswith("ADMIN_STATE=")]
    return bool(states) and states[0] not in _UNMANAGED


def apply(system: System, saved: Saved) -> None:
    """Have it ask tor; nothing happens when it does already.

    Raises:
        CommandError: it does not come up again, or does not take something.

    """
    changed = dropin.apply(system, saved["drop_in"])
    if not is_running():
        return
    if changed or list(_of_configuration(_patiently(system))):
        service.restart_resolved(system)
        _patiently(system)
    for link in _with_domains(system):
        system.change(["resolvectl", "domain", link["name"], ""])


def _patiently(system: System) -> Mapping[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return _properties(system)
        except CommandError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def restore(system: System, saved: Saved) -> str:
    """Put back what it was told, when resolv.conf is back; works from every point of `apply`.

    Returns:
        What could not be put back, or "".

    Raises:
        CommandError: it does not take something.

    """
    note = dropin.restore(system, saved["drop_in"])
    if not is_running():
        left = ", ".join(link["name"] for link in saved["links"])
        ended = f"systemd-resolved has ended; domains of {left} are not put back" if left else ""
        return "; ".join(words for words in (note, ended) if words)
    names = _interfaces()
    now = _domains(_patiently(system)["Domains"])
    for link in saved["links"]:
        # one that has domains has got them anew
        if names.get(link["index"]) == link["name"] and link["index"] not in now:
            system.change(["resolvectl", *_words_for(link)])
    service.restart_resolved(system)
    _patiently(system)
    return note


def _words_for(link: Link) -> tuple[str, ...]:
    if link["networkd"]:
        # networkd's own word holds again, what a lease has said since included
        return ("revert", link["name"])
    return ("domain", link["name"], *link["domains"])


def problems(system: System, saved: Saved) -> Iterator[str]:
    """What is no longer as `apply` left it."""
    yield from dropin.problems(saved["drop_in"])
    if not is_running():
        return
    try:
        found = _properties(system)
    except CommandError as error:
        yield f"systemd-resolved does not answer: {error.message}"
        return
    yield from _of_configuration(found)
    names = _interfaces()
    for index, domains in _domains(found["Domains"]).items():
        if index in names:
            words = ", ".join(domains)
            yield f"systemd-resolved has domains of its own for {names[index]} again: {words}"


def _of_configuration(found: Mapping[str, Any]) -> Iterator[str]:
    """What systemd-resolved does not do as its configuration tells it."""
    if _domains(found["Domains"]).get(0) != ["~."]:
        yield "systemd-resolved does not ask tor for all names"
    for name, value in _WANTED.items():
        if found[name] != value:
            yield f"systemd-resolved has {name}={found[name]}"


def recognise() -> Saved | None:
    """What an earlier `apply` must have done; domains of links are not known any more."""
    found = dropin.recognise(PATH)
    return Saved(drop_in=found, links=[]) if found else None

"""`onionward import`: old setups → a configuration that means the same, and what is safer in it.

FILE … ──► words, rules ──► Found ──► onionward.toml, with what was kept and what was changed
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from onionward.errors import RefusedError
from onionward.importing import firehol, netfilter, pf
from onionward.importing.found import Found, Note
from onionward.importing.words import TooLongError, has_branches
from onionward.networks import Network, overlapping
from onionward.printable import printable

# where names may be mapped, tried in this order when what was there does not do
_VIRTUAL4 = ("127.192.0.0/10",)
_VIRTUAL6 = ("fd5a:7011::/32", "fc5a:7011::/32")
_VIRTUAL4_OF_LAN = ("10.192.0.0/10", "172.20.0.0/16", "100.64.0.0/10", "192.168.0.0/16")


def read(files: Iterable[tuple[str, str]]) -> Found:
    """What the files (name, text) say together.

    Raises:
        RefusedError: one of them is no text.

    """
    found = Found()
    branched: list[str] = []
    for name, text in files:
        before = copy.deepcopy(found)
        text = text.removeprefix("\ufeff")
        if "\0" in text:
            raise RefusedError(
                f"{name} is no text", "name scripts, torrc, pf.conf or firehol.conf as they are"
            )
        try:
            if pf.is_pf(text):
                pf.read(text, name, found)
            elif firehol.is_firehol(text):
                firehol.read(text, name, found)
            else:
                netfilter.read(text, name, found)
                if has_branches(text) and found.rules:
                    branched.append(name)
        except TooLongError as error:
            raise RefusedError(
                f"{name}: {error}: what comes after would be lost",
                "take the list of networks out, and write it into [bypass] yourself",
            ) from error
        if found == before:
            found.leave_out(name, "nothing in it is about who goes where")
    _settle(found)
    for name in branched:
        allowed = ", ".join(map(str, found.bypass))
        found.change(
            name,
            "which functions are called and which conditions hold was not decided: all their "
            "commands were taken as run"
            + (f". Look whether these were reached directly at all: {allowed}" if allowed else ""),
        )
    return found


def _settle(found: Found) -> None:
    """What no single line says."""
    if found.rules and not found.ip6:
        found.change("", "there was not one rule for IPv6, which left in clear: it is covered now")
    if found.tor_ports:
        for port, place in found.turned_to.items():
            if port not in found.tor_ports:
                found.change(
                    place,
                    f"port {port} is none of tor's in the torrc: what was sent there, to another "
                    "program perhaps, goes through Tor now",
                )
    is_redirected = found.host
    if found.refused and not found.host:
        found.host = True
        found.change(
            found.refused,
            "everything else that this machine sent was refused; it goes through Tor now, for "
            "with narrower scopes it would leave in clear",
        )
    _settle_accounts(found)
    if found.use_bridges and not found.bridges:
        found.change(
            found.use_bridges,
            "UseBridges: none of the bridges can be used here, and without one the link would see "
            "that this is Tor. `check` and `up` refuse this configuration until bridges name one",
        )
    _settle_networks(found, is_redirected=is_redirected)
    if found.inbound:
        ports = ", ".join(map(str, sorted(found.inbound)))
        found.change(
            next(iter(found.inbound.values())),
            f"TCP {ports} was open: who may connect is decided by host.inbound (attached and "
            'bypassed networks), not by port; "all" lets everybody in',
        )
    if not (found.host or found.onion or found.lans or found.users):
        found.host = True
        found.change(
            "", "no rule says who goes through Tor: everything that this machine sends does"
        )
    _settle_virtual(found)


def _settle_accounts(found: Found) -> None:
    for place, who in found.unnamed:
        if found.host:
            found.keep(place, f"{who}: like everything else that this machine sends")
        else:
            found.leave_out(place, f"NOT COVERED: {who}; name these accounts, as [[user]]")
    found.users = [name for name in found.users if name not in ("0", "root")]
    for name, place in found.control.items():
        if name in found.users:
            found.keep(place, f"{name} may speak to tor's control port, through a filter")
        else:
            found.leave_out(
                place,
                f"{name} spoke to tor's control port: a [[user]] of that name with control = true "
                "may, through a filter",
            )
    if found.host and found.users:
        found.change("", "accounts that go through Tor on a routed host only get circuits apart")


def _settle_networks(found: Found, *, is_redirected: bool) -> None:
    """Which are reached directly; `is_redirected`: whether all that this host sends went to tor."""
    if found.host:
        found.onion = False
        let_out = {n: place for n, place in found.accepted.items() if n not in found.bypass}
        for network, place in let_out.items():
            how = (
                "by the filter, but its TCP was redirected all the same"
                if is_redirected
                else "of what was refused"
            )
            words = f"{network} was let out {how}: it goes through Tor now, or nowhere"
            found.change(place, words)
    else:
        for network, place in (*found.bypass.items(), *found.accepted.items()):
            found.leave_out(place, f"{network}: nothing is bypassed where this host is not routed")
        found.bypass.clear()
    for mapped, place in found.mapped.items():
        _cut_out(mapped, place, found)
    for network, place in found.bypass.items():
        found.change(
            place,
            f"{network} was reached for name resolution, too: names are asked of Tor alone now, "
            "wherever they are asked for",
        )


def _cut_out(mapped: Network, place: str, found: Found) -> None:
    """What was redirected is not bypassed, whichever of the two rules stood first."""
    network: Any
    for network, excepted in list(found.bypass.items()):
        if network.version != mapped.version or not mapped.subnet_of(network):
            continue
        del found.bypass[network]
        found.kept.pop(Note(excepted, f"{network} is reached directly"), None)
        rest = network.address_exclude(mapped)
        found.bypass |= dict.fromkeys(sorted(rest), excepted)
        found.change(
            excepted, f"{network} is reached directly but for {mapped}, which goes to tor ({place})"
        )


def _settle_virtual(found: Found) -> None:
    for version, (network, place) in list(found.virtual.items()):
        clash = next((n for n in found.bypass if overlapping(n, network)), None)
        problem = ""
        if clash is not None:
            problem = f"it lies in {clash}, which is reached directly: .onion names would have left"
        elif found.lans and network.is_loopback:
            problem = "clients send nothing to loopback over a wire"
        elif version == 6 and network[0] not in ipaddress.ip_network("fc00::/7"):
            problem = "not a unique local network (fc00::/7)"
        elif network.prefixlen > (16 if version == 4 else 104):
            problem = "too small for tor"
        elif version == 4 and not network.is_private:
            problem = "not a private range"
        if problem:
            found.change(place, f"names were mapped into {network}: {problem}")
            del found.virtual[version]
        else:
            found.keep(place, f"names under .onion are mapped into {network}")
    if 6 not in found.virtual:
        _make_room_for_names6(found)
    if 4 in found.virtual:
        return
    usual = _VIRTUAL4_OF_LAN if found.lans else _VIRTUAL4
    free = [
        candidate
        for candidate in map(ipaddress.ip_network, usual)
        if not any(overlapping(candidate, network) for network in found.bypass)
    ]
    if free and str(free[0]) != usual[0]:
        found.virtual[4] = (free[0], "")


def _make_room_for_names6(found: Found) -> None:
    usual, other = map(ipaddress.ip_network, _VIRTUAL6)
    if not any(overlapping(usual, network) for network in found.bypass):
        return
    if clash := next((n for n in found.bypass if overlapping(other, n)), None):
        place = found.bypass.pop(clash)
        found.kept.pop(Note(place, f"{clash} is reached directly"), None)
        found.change(place, f"{clash} leaves no room for addresses of names under .onion")
        _make_room_for_names6(found)
    else:
        found.virtual[6] = (other, "")


def to_toml(found: Found) -> str:
    """The configuration, with what was kept and what was changed as comments."""
    return "\n".join([*_heading(found), *_tables(found)])


def _heading(found: Found) -> Iterator[str]:
    yield "# What the old setup meant, for onionward."
    for words, notes in (
        ("kept", found.kept),
        ("changed, for safety", found.changed),
        ("left out", found.left_out),
    ):
        if notes:
            yield "#"
            yield f"# {words}:"
            yield from (f"#   {_printable(note)}" for note in notes)
    yield ""


def _printable(note: Note) -> str:
    words = f"{note.place}: {note.words}" if note.place else note.words
    return printable(words)


def _tables(found: Found) -> Iterator[str]:
    route = "tor" if found.host else "onion" if found.onion else "direct"
    yield from ("[host]", f'route = "{route}"', "")
    for interface in found.lans:
        yield from ("[[lan]]", f"interface = {_quoted(interface)}", "")
    for name in found.users:
        control = ["control = true"] if name in found.control else []
        yield from ("[[user]]", f"name = {_quoted(name)}", *control, "")
    if found.bypass:
        yield from ("[bypass]", f"networks = {_listed(found.bypass)}", "")
    of_tor = [*_of_tor(found)]
    if of_tor:
        yield from ("[tor]", *of_tor, "")


def _of_tor(found: Found) -> Iterator[str]:
    if found.virtual:
        yield f"virtual_networks = {_listed(network for network, _ in found.virtual.values())}"
    for key, codes in found.exits.items():
        yield f"{key} = {_listed(codes)}"
    if found.bridges or found.use_bridges:
        yield f"bridges = {_listed(found.bridges or ['one that the old setup had'])}"
    if found.isolate:
        yield "isolate_destinations = true"


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(_quoted(str(value)) for value in values)}]"


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)

"""Lines of a torrc (tor(1), THE CONFIGURATION FILE FORMAT)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from onionward.config import bridges, countries
from onionward.importing.found import Found, network_of

# options that such setups have, in the small letters in which they are compared
_PORTS = frozenset({"transport", "dnsport"})
_ADDRESSES = {"translistenaddress": "TransPort", "dnslistenaddress": "DNSPort"}
_VIRTUAL = frozenset({"virtualaddrnetwork", "virtualaddrnetworkipv4", "virtualaddrnetworkipv6"})
_OURS = {
    "automaphostsonresolve": "names under .onion are mapped, always",
    "user": "tor gets an account of its own",
    "datadirectory": "tor's data is kept in /var/lib/onionward",
    "runasdaemon": "tor is started and ended by onionward",
    "log": "tor's log is in /run/onionward while it is on",
    "pidfile": "tor is started and ended by onionward",
    "automaphostssuffixes": "names under .onion are mapped; others are resolved",
    "clientonly": "tor is a client, always",
    "transproxytype": "chosen by onionward",
    "clienttransportplugin": "the transport's program is found by onionward",
}
_EXITS = {"exitnodes": "exit_countries", "excludeexitnodes": "exclude_exit_countries"}
_NOT_TAKEN = {
    "socksport": "no SOCKS port is opened: programs need none",
    "sockslistenaddress": "no SOCKS port is opened: programs need none",
    "controlport": "tor's control port is for onionward; [[user]] with control = true has a filter",
    "cookieauthentication": "onionward uses a socket that only root can open",
    "hashedcontrolpassword": "onionward uses a socket that only root can open",
}
OPTIONS = frozenset(
    (
        *_PORTS,
        *_ADDRESSES,
        *_VIRTUAL,
        *_OURS,
        *_EXITS,
        *_NOT_TAKEN,
        "bridge",
        "usebridges",
        "strictnodes",
    )
)


def read_line(words: tuple[str, ...], place: str, found: Found) -> None:
    """One option; the first word is one of OPTIONS."""
    name, value = words[0], words[1] if len(words) > 1 else ""
    option = name.lower()
    if option in _PORTS:
        number = value.rpartition(":")[2]
        found.tor_ports |= {int(number)} if number.isdecimal() else set()
        found.change(
            place,
            f"{name} {value}: onionward listens on privileged ports of loopback (940 and 941), "
            "which no other account can take while tor is down",
        )
        _read_flags(name, words[2:], place, found)
    elif option in _ADDRESSES:
        found.change(
            place,
            f"{name} is an option that tor no longer has (an address belongs to "
            f"{_ADDRESSES[option]}); listeners are on loopback, and clients are led there",
        )
    elif option in _VIRTUAL:
        network = network_of(value.strip("[]").replace("]", ""))
        if network is None:
            found.leave_out(place, f"{name} {value}: no network")
        else:
            found.virtual[network.version] = (network, place)
    elif option in _EXITS:
        _read_exits(name, " ".join(words[1:]), place, found)
    elif option == "bridge":
        _read_bridge(" ".join(words[1:]), place, found)
    elif option == "usebridges":
        if value == "1":
            found.use_bridges = place
    elif option == "strictnodes":
        found.keep(place, f"{name}: what is said of exits holds, always")
    elif option in _OURS:
        found.keep(place, f"{name}: {_OURS[option]}")
    else:
        found.leave_out(place, f"{name}: {_NOT_TAKEN[option]}")


def _read_flags(name: str, flags: Iterable[str], place: str, found: Found) -> None:
    for flag in flags:
        if flag.lower() in ("isolatedestaddr", "isolatedestport"):
            found.isolate = True
            found.keep(place, f"{flag}: each destination gets circuits of its own")
        elif flag.lower() == "isolateclientaddr":
            found.keep(place, f"{flag}: accounts and clients get circuits of their own, always")
        else:
            found.leave_out(place, f"{name} … {flag}: there is nothing like it here")


def _read_exits(name: str, value: str, place: str, found: Found) -> None:
    codes = [part.strip().lower() for part in value.split(",")]
    named = [match[1] for code in codes if (match := re.fullmatch(r"\{([a-z]{2})\}", code))]
    if len(named) < len(codes) or any(map(countries.problem, named)):
        found.leave_out(place, f"{name} {value}: only countries can be named, not single relays")
        return
    found.exits[_EXITS[name.lower()]] = tuple(dict.fromkeys(named))
    found.keep(place, f"{name} {value}: of exits; needs the package tor-geoipdb")


def _read_bridge(line: str, place: str, found: Found) -> None:
    try:
        bridges.read(line)
    except bridges.NoBridgeError as error:
        found.leave_out(place, f"Bridge {line}: {error}")
    else:
        found.bridges.append(line)
        found.keep(place, "Bridge: tor's account reaches bridges and no other relay")

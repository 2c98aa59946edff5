"""firehol.conf(5), as such setups have it: a script of bash whose commands are firehol's."""

from __future__ import annotations

from itertools import pairwise

from onionward.importing.found import Found
from onionward.importing.words import commands, shortened

_OURS = frozenset({"interface", "router", "transparent_proxy", "transparent_squid", "redirect"})


def is_firehol(text: str) -> bool:
    """Whether these are commands of firehol."""
    return any(command.words[0] in ("interface", "transparent_proxy") for command in commands(text))


def read(text: str, name: str, found: Found) -> None:
    """One file."""
    found.change(
        name, "firehol before version 3 makes no rules for IPv6, which left in clear: covered now"
    )
    behind = ""
    for command in commands(text):
        place, words = f"{name}:{command.line}", command.words
        options = dict(pairwise(words))
        match words[0]:
            case "transparent_proxy" | "transparent_squid":
                found.route_host(place)
                if interface := options.get("inface"):
                    found.add_lan(interface, place)
                if len(words) > 3:
                    found.tor_account = words[3]
            case "redirect":
                found.keep(place, "names are asked of tor's resolver")
            case "interface":
                behind = words[1] if len(words) > 1 else ""
            case "server" if "torproxy" in words and behind.isalnum() and behind != "lo":
                found.add_lan(behind, place)
            case "client" if "user" in words:
                found.keep(place, "only tor leaves; onionward makes an account for it alone")
            case "server" | "client" | "policy":
                found.leave_out(place, f"{' '.join(words)}: decided by the policy")
            case _:
                found.leave_out(
                    place, f"not understood, and left out: {shortened(' '.join(words))}"
                )

"""The rules that decide, by name: `explain` quotes what the ruleset has as comments."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """Comment of a rule; nft(8) allows 128 characters."""

    ONION_ADDRESSES = "addresses of onion names go to tor"
    ONION_NAMES = "onion names go to tor's resolver"
    NAMES = "names go to tor's resolver"
    FULL_DNS = "names go to unbound, which asks through tor"
    TCP = "TCP goes to tor"
    OWN_ADDRESS = "stays on this machine"
    KEPT = "open before, kept"
    TOR = "tor itself"
    TOR_ELSEWHERE = "tor: where no relay of its is"
    DHCP = "DHCP client"
    BYPASS = "bypassed network"
    DIRECT_USER = "bypassed account"
    UNROUTED = "not routed"
    PAUSED = "a paused account gets nothing through"
    REFUSED = "all else is refused"
    USER_NAMES = "no name goes around tor"
    USER_SERVICES = "no service passes on what a routed account says"
    USER_REFUSED = "all else of a routed account is refused"
    ONION_REFUSED = "onion addresses: TCP through tor or nothing"
    ONION_NAMES_REFUSED = "onion names: tor's resolver or nobody"
    FORWARDED = "nothing is forwarded"
    RUNS = "for applications of run alone"
    CLIENT_SPOOFED = "no such client behind this interface"
    CLIENT_WEAK_HOST = "address of another interface"
    CLIENT_REFUSED = "all else of clients is refused"
    CLIENT_SERVICE = "service for clients"
    CLIENT_DHCP = "DHCP of clients"
    CLIENT_SILENCE = "for nobody here"


def commented(text: str, rule: Rule) -> str:
    """A rule as nft reads it, with its comment."""
    return f'{text} comment "{rule}"'

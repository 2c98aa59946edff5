"""Configuration texts that lead names under .onion to tor's DNSPort. Pure.

Options are those of dnsmasq(8), unbound.conf(5) and resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Sequence

OWN_ADDRESS = "127.0.0.94"
"""Where a resolver of our own listens; a loopback address that nobody else uses."""
MARK = "# Written by onionward"
"""How every file of ours begins."""

_DNS_PORT_ADDRESS = "127.0.0.1"
_KEPT = ("search", "domain", "options", "sortlist")
_NEVER_WAITS = 5000


def own_dnsmasq(
    dns_port: int,
    *,
    nameservers: Sequence[str],
    follow: str,
    rotate: bool,
    account: tuple[str, str],
    pid_file: str,
    log: str,
) -> str:
    """The configuration of a forwarder that changes nothing for names that are not under .onion.

    Args:
        dns_port: tor's DNSPort.
        nameservers: whom to ask for all other names.
        follow: a resolv.conf to take them from instead, also when it changes; or "".
        rotate: whether they are asked in turn (resolv.conf(5), rotate) and not in order.
        account: whom it becomes after it has opened its port, as (account, group).
        pid_file: where it writes its process id.
        log: where it writes complaints.

    """
    servers = [f"resolv-file={follow}"] if follow else ["no-resolv"]
    servers += [] if follow else [f"server={address}" for address in nameservers]
    lines = [
        f"{MARK}: names under .onion go to tor, all others to whom they went before.",
        "port=53",
        f"listen-address={OWN_ADDRESS}",
        "bind-interfaces",
        "no-hosts",
        "no-ident",
        f"user={account[0]}",
        f"group={account[1]}",
        f"pid-file={pid_file}",
        f"log-facility={log}",
        # a repeated query goes to the next server, as the C library would send it
        *([] if rotate else ["strict-order"]),
        "cache-size=0",
        # the AD bit of a server that validates is passed on
        "proxy-dnssec",
        # the C library has no such limits
        f"dns-forward-max={_NEVER_WAITS}",
        "edns-packet-max=4096",
        *servers,
        f"server=/onion/{_DNS_PORT_ADDRESS}#{dns_port}",
    ]
    return "\n".join(lines) + "\n"


def own_resolv_conf(text: str, nameservers: int) -> str:
    """A resolv.conf that names our forwarder, all else as it was.

    Args:
        text: what was there.
        nameservers: how many it named. Ours comes as often, because the C library counts its
            attempts, and the time for each, by the lines.

    """
    rows = [line.split() for line in text.splitlines()]
    kept = [_patient(row, nameservers) for row in rows if row and row[0] in _KEPT]
    lines = [
        f"{MARK}: names under .onion are resolved through Tor, others as before.",
        "# The file that was here returns with `onionward down`.",
        *[f"nameserver {OWN_ADDRESS}"] * nameservers,
        *kept,
    ]
    return "\n".join(lines) + "\n"


def _patient(row: list[str], nameservers: int) -> str:
    """A line of resolv.conf, with a timeout after which our forwarder turns to the next server.

    It takes a query that comes again within two seconds for the same one. The C library waits
    longer for the first server than for the second.
    """
    if row[0] != "options":
        return " ".join(row)
    short = {f"timeout:{seconds}" for seconds in range(nameservers)} if nameservers > 1 else set()
    return " ".join(f"timeout:{nameservers}" if word in short else word for word in row)


def rotates(text: str) -> bool:
    """Whether a resolv.conf asks for its servers in turn."""
    rows = [line.split() for line in text.splitlines()]
    return any("rotate" in row[1:] for row in rows if row and row[0] == "options")


def dnsmasq_drop_in(dns_port: int) -> str:
    """For a dnsmasq of the machine."""
    return f"""\
{MARK}: names under .onion go to tor. Removed by `onionward down`.
server=/onion/{_DNS_PORT_ADDRESS}#{dns_port}
rebind-domain-ok=/onion/
"""


def unbound_drop_in(dns_port: int) -> str:
    """For an unbound of the machine.

    It knows .onion as a name that does not exist (RFC 7686), asks nobody on loopback, and would
    look for signatures; all three are undone for this name only, but for the second.
    """
    return f"""\
{MARK}: names under .onion go to tor. Removed by `onionward down`.
server:
    local-zone: "onion." nodefault
    domain-insecure: "onion."
    private-domain: "onion."
    do-not-query-localhost: no
forward-zone:
    name: "onion."
    forward-addr: {_DNS_PORT_ADDRESS}@{dns_port}
    forward-no-cache: yes
"""

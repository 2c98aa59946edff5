"""Which resolver of a machine has to learn about .onion, and what stands in the way. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from onionward.dns.onion.facts import Environment, Server, is_loopback, is_own
from onionward.dns.onion.texts import OWN_ADDRESS

Manager = Literal["own", "dnsmasq", "networkmanager", "unbound", "resolved"]

_STUBS = ("127.0.0.53", "127.0.0.54")
_RESOLVED_FILES = "/run/systemd/resolve/"
_NETWORK_MANAGER = "NetworkManager"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        manager: who will tell names under .onion from others, for programs that read resolv.conf:
            a dnsmasq of ours ("own"), one of the machine's, or systemd-resolved.
        reason: why, in words.
        link: whether systemd-resolved gets a link of ours, for programs that ask it.
        drop_in: the file that the machine's resolver reads, or "".
        check: a command that reads the resolver's whole configuration, or ().
        reload: the command after which the resolver has read it, or ().

    """

    manager: Manager
    reason: str
    link: bool = False
    drop_in: str = ""
    check: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()


def choose(environment: Environment) -> Plan:
    """The plan for a machine."""
    asked = environment.nameservers
    link = environment.resolved
    names = ", ".join(dict.fromkeys(asked))
    if link and all(address in _STUBS for address in asked):
        return Plan("resolved", f"resolv.conf names systemd-resolved's stub, {names}", link=True)
    strangers = [address for address in asked if not is_loopback(address)]
    if strangers:
        where = f"resolv.conf names {strangers[0]}, which is not on this machine's loopback"
        return Plan("own", where, link)
    found = [environment.at(address) for address in asked]
    server = found[0]
    if any(_program(other) != _program(server) for other in found):
        return Plan("own", f"resolv.conf names several resolvers of this machine, {names}", link)
    if server is None:
        return Plan("own", f"resolv.conf names {names}, where nobody answers", link)
    return _for_server(server, names, link=link)


def _program(server: Server | None) -> Server | None:
    """The same for every address of one program."""
    return None if server is None else replace(server, address="")


def _for_server(server: Server, names: str, *, link: bool) -> Plan:
    who = f"{server.program}, which answers at {names},"
    if server.program not in ("dnsmasq", "unbound"):
        return Plan("own", f"{who} is none that onionward knows how to configure", link)
    if not server.directories:
        return Plan("own", f"{who} reads no directory of configuration files", link)
    drop_in = f"{server.directories[0]}/onionward.conf"
    check = (*server.arguments, "--test")
    if server.parent == _NETWORK_MANAGER:
        restart = ("nmcli", "general", "reload", "dns-full")
        reason = f"{who} was started by NetworkManager"
        return Plan("networkmanager", reason, link, drop_in, check, restart)
    if not server.unit:
        return Plan("own", f"{who} is no service of systemd, so who restarts it is unknown", link)
    reason = f"{who} reads {server.directories[0]}"
    if server.program == "unbound":
        check = ("unbound-checkconf", server.config)
        reload = ("systemctl", "try-reload-or-restart", server.unit)
        return Plan("unbound", reason, link, drop_in, check, reload)
    reload = ("systemctl", "try-restart", server.unit)
    return Plan("dnsmasq", reason, link, drop_in, check, reload)


def obstacles(environment: Environment) -> Iterator[str]:
    """Why the plan for a machine cannot be carried out, each with what to do."""
    plan = choose(environment)
    needed = ["resolvectl"] if plan.link else []
    needed += ["networkctl"] if plan.link and environment.networkd else []
    needed += [command[0] for command in (plan.check, plan.reload) if command]
    for tool in needed:
        if tool in environment.missing:
            yield f"{tool} is missing, without which {plan.reason.split(',')[0]} cannot be told"
    if plan.drop_in in environment.taken:
        yield f"{plan.drop_in} is not onionward's; give it another name"
    if plan.manager == "own":
        yield from _own_obstacles(environment, plan)


def _own_obstacles(environment: Environment, plan: Plan) -> Iterator[str]:
    if "dnsmasq" in environment.missing:
        yield (
            f"{plan.reason}; the forwarder that this takes, dnsmasq, is missing: "
            "apt install dnsmasq-base"
        )
    if environment.account is None:
        yield "there is no account `nobody` for a forwarder; create it"
    for server in environment.servers:
        if server.everywhere:
            yield (
                f"{plan.reason}; {server.program} has port 53 of every address, so a forwarder "
                f"cannot have {OWN_ADDRESS}: let {server.program} listen on its own addresses only "
                "(dnsmasq: bind-interfaces), or name it in resolv.conf"
            )
        elif is_own(server.address):
            yield f"{server.program} has port 53 of {OWN_ADDRESS}, which onionward uses"
    if plan.link and environment.target.startswith(_RESOLVED_FILES):
        # it would take our forwarder for one of the servers that it lists there
        yield (
            f"resolv.conf leads to {environment.target}, where systemd-resolved lists the servers "
            "that it asks itself; let it lead to its stub: "
            "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf"
        )
    stubs = [address for address in environment.nameservers if address in _STUBS]
    if plan.link and stubs:
        yield (
            f"resolv.conf names systemd-resolved's stub, {stubs[0]}, and others beside it: let it "
            "be a link to /run/systemd/resolve/stub-resolv.conf, or name only one kind"
        )
    yield from environment.unusable

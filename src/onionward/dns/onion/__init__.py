"""Only names under .onion go to tor; every other name goes where it went before.

Whatever resolves names on the machine is told so: a dnsmasq, NetworkManager's dnsmasq or an unbound
by a file in the directory of their configuration, systemd-resolved by a link of ours, and where
programs ask a resolver elsewhere, or one that cannot be told, a forwarder of our own stands in
front of it. With tor down names under .onion fail; nobody else is asked for them.

`survey` before anything changes, `apply` when tor's DNSPort answers, `restore` at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from onionward.dns import file, service
from onionward.dns.onion import dnsmasq, query, resolved, texts
from onionward.dns.onion.facts import Environment, environment, is_own, is_running
from onionward.dns.onion.plan import Manager, Plan, choose, obstacles
from onionward.errors import CommandError, ResolverError
from onionward.paths import PATHS, Paths
from onionward.system import System, temporary_name

__all__ = [
    "Environment",
    "Manager",
    "Plan",
    "Saved",
    "apply",
    "choose",
    "environment",
    "problems",
    "recognise",
    "restore",
    "survey",
    "unusable",
]

# (address, port) → the address that the resolver there gives for a name that only tor knows
Ask = Callable[[str, int], str]

_PATIENCE = 5.0  # seconds for a resolver to come up again
# systemctl(1) and nmcli(1): the service, or NetworkManager, is not there (any more)
_GONE = {"systemctl": (5,), "nmcli": (8,)}


class DropIn(TypedDict):
    """A file that the machine's resolver reads. There was none of this name before.

    Attributes:
        path: of the file.
        ours: its text.
        check: a command that reads the resolver's whole configuration.
        reload: the command after which the resolver has read it.

    """

    path: str
    ours: str
    check: list[str]
    reload: list[str]


class Forwarder(TypedDict):
    """A resolver of our own, and the resolv.conf that names it.

    Attributes:
        config: its configuration.
        resolv_conf: how to put the original back, see `onionward.dns.file`.

    """

    config: str
    resolv_conf: file.Saved


class Saved(TypedDict):
    """How to undo the step; JSON in the journal.

    Attributes:
        manager: who tells names under .onion from others.
        reason: why it is this one, in words.
        dns_port: tor's DNSPort.
        asked: whom programs ask first once all is done, an address of this machine.
        link: whether systemd-resolved gets a link of ours.
        networkd: whether systemd-networkd has to be told of that link.
        networkd_directory: whether it had the directory for that already.
        drop_in: a file for the machine's resolver, or None.
        forwarder: a resolver of our own, or None.

    """

    manager: Manager
    reason: str
    dns_port: int
    asked: str
    link: bool
    networkd: bool
    networkd_directory: bool
    drop_in: DropIn | None
    forwarder: Forwarder | None


def unusable(environment: Environment) -> tuple[str, ...]:
    """Why names under .onion cannot be led to tor on this machine, each with what to do."""
    return tuple(obstacles(environment))


def survey(system: System, environment: Environment, dns_port: int, paths: Paths = PATHS) -> Saved:
    """What has to be known to put everything back, before anything changes.

    What an earlier `apply` did must have been restored: its traces would be taken for the
    machine's own.

    Raises:
        ResolverError: this machine cannot do it, or still has what an earlier `apply` did.

    """
    if environment.resolv_conf.startswith(texts.MARK):
        raise ResolverError(
            f"{paths.resolv_conf} is onionward's own still",
            "put the original back first: onionward down",
        )
    if reasons := unusable(environment):
        raise ResolverError("; ".join(reasons))
    plan = choose(environment)
    return Saved(
        manager=plan.manager,
        reason=plan.reason,
        dns_port=dns_port,
        asked=texts.OWN_ADDRESS if plan.manager == "own" else environment.nameservers[0],
        link=plan.link,
        networkd=plan.link and environment.networkd,
        networkd_directory=resolved.has_networkd_directory(),
        drop_in=_drop_in(plan, dns_port) if plan.drop_in else None,
        forwarder=(
            _forwarder(system, environment, dns_port, paths) if plan.manager == "own" else None
        ),
    )


def _drop_in(plan: Plan, dns_port: int) -> DropIn:
    render = texts.unbound_drop_in if plan.manager == "unbound" else texts.dnsmasq_drop_in
    return DropIn(
        path=plan.drop_in,
        ours=render(dns_port),
        check=list(plan.check),
        reload=list(plan.reload),
    )


def _forwarder(system: System, environment: Environment, dns_port: int, paths: Paths) -> Forwarder:
    assert environment.account is not None  # noqa: S101  # `unusable` has said so
    asked = environment.nameservers
    config = texts.own_dnsmasq(
        dns_port,
        nameservers=asked,
        follow=environment.target if environment.followed else "",
        rotate=texts.rotates(environment.resolv_conf),
        account=environment.account,
        pid_file=str(dnsmasq.pid_path(paths)),
        log=str(dnsmasq.log_path(paths)),
    )
    ours = texts.own_resolv_conf(environment.resolv_conf, len(asked))
    return Forwarder(config=config, resolv_conf=file.survey(system, paths.resolv_conf, ours))


def apply(system: System, saved: Saved, paths: Paths = PATHS, *, ask: Ask = query.address) -> None:
    """Lead names under .onion to tor's DNSPort, which answers already; can be repeated.

    Raises:
        ResolverError: a resolver does not take it, with its words, or does not answer as tor does.
            `restore` puts back what was done until then.
        CommandError: a command failed.

    """
    if saved["link"]:
        resolved.apply(system, saved["dns_port"], networkd=saved["networkd"])
    if (drop_in := saved["drop_in"]) is not None:
        _apply_drop_in(system, drop_in)
    if (forwarder := saved["forwarder"]) is not None:
        dnsmasq.start(system, forwarder["config"], paths)
        file.replace(system, paths.resolv_conf, forwarder["resolv_conf"])
    _wait_until_led(saved, ask)


def _wait_until_led(saved: Saved, ask: Ask) -> None:
    """Wait until whom programs ask gives tor's answer."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        tor = ask("127.0.0.1", saved["dns_port"])
        theirs = ask(saved["asked"], 53)
        if tor and theirs == tor:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if not tor:
        raise ResolverError(f"tor does not answer for .onion at port {saved['dns_port']}")
    said = f"gives {theirs}, which is not tor's answer" if theirs else "has no answer"
    raise ResolverError(
        f"names under .onion do not get to tor: {saved['asked']} {said}",
        f"is there another rule for .onion in its configuration? ({saved['reason']})",
    )


def _apply_drop_in(system: System, drop_in: DropIn) -> None:
    path = Path(drop_in["path"])
    system.write_file(path, drop_in["ours"])
    try:
        system.query(drop_in["check"])
        service.reload(system, drop_in["reload"])
    except CommandError as error:
        system.remove_file(path)
        # one that has not come up again would stay down
        if error.argv[:1] == ("systemctl",):
            system.change(["systemctl", "restart", drop_in["reload"][-1]], accept=(0, 1))
        raise ResolverError(
            f"with {path} the machine's resolver does not start, so it was taken out again: "
            f"{error.message}",
            "what it says is about its whole configuration; mend that first",
        ) from error


def restore(system: System, saved: Saved, paths: Paths = PATHS) -> str:
    """Put everything back: works from every point of `apply`, and twice.

    Returns:
        What was left alone because others have changed it since, or "".

    Raises:
        ResolverError: the forwarder does not end.
        CommandError: a command failed; what comes after it was not put back yet.

    """
    notes = []
    if (forwarder := saved["forwarder"]) is not None:
        notes.append(file.restore(system, paths.resolv_conf, forwarder["resolv_conf"]))
        dnsmasq.stop(system, paths)
    if saved["link"]:
        directory = saved["networkd_directory"]
        resolved.restore(system, networkd=saved["networkd"], directory=directory)
        if forwarder is not None:
            resolved.forget_resolv_conf(system)
    if (drop_in := saved["drop_in"]) is not None:
        notes.append(_restore_drop_in(system, drop_in))
    return "; ".join(note for note in notes if note)


def _restore_drop_in(system: System, drop_in: DropIn) -> str:
    path = Path(drop_in["path"])
    system.remove_file(temporary_name(path))
    if _text(path) not in ("", drop_in["ours"]):
        return f"{path} was changed by somebody else meanwhile and is left as it is"
    system.remove_file(path)
    # also when it was gone already: an earlier `restore` may have ended between the two
    reload = drop_in["reload"]
    service.reload(system, reload, gone=_GONE[reload[0]])
    return ""


def problems(system: System, saved: Saved, paths: Paths = PATHS) -> tuple[str, ...]:
    """What is no longer as `apply` left it, in words; () while all is in force."""
    found = []
    if saved["link"]:
        runs = is_running("systemd-resolve")
        try:
            found.append(resolved.problem(system, saved["dns_port"], runs=runs))
        except CommandError as error:
            found.append(f"systemd-resolved does not answer: {error.message}")
    drop_in = saved["drop_in"]
    if drop_in is not None and _text(Path(drop_in["path"])) != drop_in["ours"]:
        found.append(f"{drop_in['path']}, by which names under .onion go to tor, was changed")
    if (forwarder := saved["forwarder"]) is not None:
        if not file.is_ours(paths.resolv_conf, forwarder["resolv_conf"]):
            found.append(f"{paths.resolv_conf} was changed and no longer names the forwarder")
        if not dnsmasq.running(paths):
            found.append("the forwarder for names has ended: names do not resolve")
    return tuple(problem for problem in found if problem)


def recognise(system: System, environment: Environment, paths: Paths = PATHS) -> Saved | None:
    """What an `apply` without a readable journal must have done; None when there is no trace."""
    link = resolved.is_present() or resolved.has_told_networkd()
    forwarder = None
    if any(map(is_own, environment.nameservers)) or dnsmasq.running(paths):
        ours = environment.resolv_conf
        if not ours.startswith(texts.MARK):
            ours = texts.own_resolv_conf("", 1)  # whatever it was: it is not there any more
        found = file.recognise(paths.resolv_conf, ours)
        found = found or file.survey(system, paths.resolv_conf, ours)
        forwarder = Forwarder(config="", resolv_conf=found)
    drop_in = _own_drop_in(environment)
    if not (link or forwarder or drop_in):
        return None
    return Saved(
        manager="own",
        reason="recognised by what is left of it",
        dns_port=0,
        asked="",
        link=link,
        networkd=resolved.has_told_networkd(),
        networkd_directory=True,
        drop_in=drop_in,
        forwarder=forwarder,
    )


def _own_drop_in(environment: Environment) -> DropIn | None:
    plan = choose(environment)
    text = _text(Path(plan.drop_in)) if plan.drop_in else ""
    if not text.startswith(texts.MARK):
        return None
    return {**_drop_in(plan, 0), "ours": text}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""

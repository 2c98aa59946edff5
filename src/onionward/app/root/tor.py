"""Which tor serves runs: the machine's while onionward is on, else one that is started for them.

Both are onionward's tor: the same account, data and so the same guards, never both at once. The one
for runs listens for runs alone. When `up` starts the machine's, it ends the other one; when `down`
has ended the machine's, the keeper starts the other one again. The machine's is told over its
control port to listen for runs as well, so that its configuration, and what `up` compares with it,
stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onionward.app.reading import text_of
from onionward.app.root import places
from onionward.config import Config, load
from onionward.errors import StepError, TorError
from onionward.paths import OF_RUNS, PATHS
from onionward.system import System
from onionward.tor import process as tor_process


class Serving(NamedTuple):
    """A tor that takes what runs send.

    Attributes:
        pid: of it.
        trans_port: where it takes connections.
        dns_port: where it takes queries.
        virtual: networks of .onion names.

    """

    pid: int
    trans_port: int
    dns_port: int
    virtual: tuple[str, str]


Tell = Callable[[str], None]


def ready(system: System, path: str, *, ipv6: bool, tell: Tell) -> Serving:
    """Have a tor for runs, whatever the machine is in, and wait until it has circuits.

    Args:
        system: the seam.
        path: of the configuration, should tor have to be started; "" for the machine's.
        ipv6: whether it is to listen on IPv6.
        tell: told how far it is.

    Raises:
        ConfigError: that is wrong.
        StepError: the machine does not let it through; says why.
        TorError: it does not start or has no circuits; with its reason.

    """
    from onionward import state

    journal = state.load(PATHS)
    if journal is None:
        return _own(system, configuration(path), ipv6=ipv6, tell=tell)
    if journal.state != "routed":
        raise StepError(
            "onionward is blocking this machine, so tor serves nobody",
            "`onionward status` says why; repeat `onionward up`, or open it: `onionward down`",
        )
    return _machines(ipv6=ipv6)


def release(system: System) -> None:
    """End the tor that is there for runs alone: the machine's wants its data."""
    if tor_process.running(OF_RUNS):
        tor_process.stop(system, OF_RUNS, None)


def configuration(path: str) -> Config:
    """What tor is configured by: the machine's configuration, without its scopes.

    Args:
        path: another file than the machine's; "" for that.

    Raises:
        ConfigError: it cannot be read, or is wrong.

    """
    found = load(Path(path) if path else None)
    return replace(found, lan=(), user=(), onion=True, host=None)


def _addresses(*, ipv6: bool) -> list[str]:
    return [places.TOR4, *([f"[{places.TOR6}]"] if ipv6 else [])]


def _own(system: System, config: Config, *, ipv6: bool, tell: Tell) -> Serving:
    from onionward import facts
    from onionward.policy import derive
    from onionward.render.torrc import relays, torrc
    from onionward.tor import account as tor_account
    from onionward.tor import control
    from onionward.tor.installed import refuse_missing

    account = tor_account.ensure(system, config.tor.user, PATHS)
    found = facts.gather(system, config)
    refuse_missing(config, found.installed)
    policy = replace(derive(config, found, tor_uid=account.uid, tor_cgroup=None), ipv6=ipv6)
    text = torrc(
        policy,
        OF_RUNS,
        account=account.name,
        network=relays(config, found.installed),
        only_at=_addresses(ipv6=ipv6),
    )
    if not (tor_process.running(OF_RUNS) and text_of(str(OF_RUNS.torrc)) == text):
        if strangers := tor_process.running(PATHS):
            raise TorError(
                f"a tor of an onionward that is off is left (process {strangers[0]})",
                "end it: onionward down",
            )
        tor_process.stop(system, OF_RUNS, None)
        system.make_directory(PATHS.state, mode=0o711)
        system.make_directory(OF_RUNS.runtime)
        tor_process.start(system, text, OF_RUNS, account, None)
    control.wait_for_circuits(
        OF_RUNS,
        config.tor.bootstrap_timeout,
        lambda phase: tell(f"tor {phase.words()}"),
        lambda: bool(tor_process.running(OF_RUNS)),
    )
    pids = tor_process.running(OF_RUNS)
    if not pids:
        raise TorError("tor has ended", f"its log: {OF_RUNS.tor_log}")
    virtual = (str(policy.virtual4), str(policy.virtual6))
    return Serving(pids[0], config.tor.trans_port, config.tor.dns_port, virtual)


def _machines(*, ipv6: bool) -> Serving:
    from onionward.tor import control

    pids = tor_process.running(PATHS)
    if not pids:
        raise TorError("the machine's tor is not there", "`onionward status` says more")
    with control.connected(PATHS) as controller:
        ports = {}
        listening: list[tuple[str, str]] = []
        for option in ("TransPort", "DNSPort"):
            known = controller.get_conf(option, multiple=True)
            own = tuple(f"{address}:" for address in _addresses(ipv6=ipv6))
            others = [line for line in known if not line.startswith(own)]
            head, _, isolation = others[0].partition(" ")
            ports[option] = head.rpartition(":")[2]
            wanted = [f"{address}{ports[option]} {isolation}".rstrip() for address in own]
            listening += [(option, line) for line in (*others, *wanted)]
            if sorted((*others, *wanted)) == sorted(known):
                continue
            ports["changed"] = "yes"
        if "changed" in ports:
            _listen(controller, listening)
        virtual = tuple(
            controller.get_conf(f"VirtualAddrNetworkIPv{version}").strip("[").replace("]", "")
            for version in (4, 6)
        )
    return Serving(
        pids[0], int(ports["TransPort"]), int(ports["DNSPort"]), (virtual[0], virtual[1])
    )


def listen_no_longer() -> None:
    """Have the machine's tor listen for its own scopes only; nothing happens when it is gone."""
    from onionward.tor import control

    if not tor_process.running(PATHS):
        return
    with control.connected(PATHS) as controller:
        own = tuple(f"{address}:" for address in _addresses(ipv6=True))
        lines = [
            (option, line)
            for option in ("TransPort", "DNSPort")
            for line in controller.get_conf(option, multiple=True)
            if not line.startswith(own)
        ]
        _listen(controller, lines)


def _listen(controller: object, lines: list[tuple[str, str]]) -> None:
    import stem

    grouped: dict[str, list[str]] = {}
    for option, line in lines:
        grouped.setdefault(option, []).append(line)
    try:
        controller.set_options(grouped)  # type: ignore[attr-defined]
    except stem.ControllerError as error:
        raise TorError(f"tor does not listen for runs: {error}") from error

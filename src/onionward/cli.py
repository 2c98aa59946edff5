"""The command line: the only code that prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from onionward import __version__
from onionward.errors import RefusedError

if TYPE_CHECKING:
    from onionward.config import Config
    from onionward.system import System

F = TypeVar("F", bound=Callable[..., Any])

_PORT = click.IntRange(1, 65535)


def config_option(command: F) -> F:
    """`--config FILE`, which may stand before or after the command's name."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(),
        help="Configuration; default /etc/onionward/onionward.toml. "
        "Without any file this host is routed.",
    )(command)


def _load(ctx: click.Context, path: str | None) -> Config:
    from pathlib import Path

    from onionward.config import load

    chosen = path or ctx.obj["config"]
    return load(Path(chosen) if chosen else None)


def _system(ctx: click.Context) -> System:
    """The seam; another one can be put into the context before the command line runs."""
    from onionward.system import System

    system: System = ctx.obj.setdefault("system", System(trace=ctx.obj["verbose"]))
    return system


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="onionward %(version)s")
@click.option("--verbose", is_flag=True, help="Print every change with its time before it is made.")
@config_option
@click.pass_context
def cli(ctx: click.Context, config_path: str | None, *, verbose: bool) -> None:
    """Route traffic through Tor at the packet filter; nothing leaves in clear.

    Exit status: 0 done; 1 failed, and the state the machine is in is said; 2 wrong usage or
    configuration, and nothing was touched.
    """
    ctx.ensure_object(dict)
    ctx.obj["verbose"] = verbose
    ctx.obj["config"] = config_path


@cli.command()
@config_option
@click.option("--yes", is_flag=True, help="Go on even if this cuts the SSH session it is typed in.")
@click.option("--create-users", is_flag=True, help="Create accounts of [[user]] that do not exist.")
@click.option(
    "--confirm",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    help="Undo it after so many seconds, unless `onionward confirm` comes in time.",
)
@click.pass_context
def up(
    ctx: click.Context,
    config_path: str | None,
    *,
    yes: bool,
    create_users: bool,
    confirm: int | None,
) -> None:
    """Route: block first, start Tor, then let traffic through it."""
    from onionward import lifecycle
    from onionward.boot.way_out import telling_the_way_out
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    _interrupt_on_signals()
    with telling_the_way_out(_system(ctx)), Progress() as progress:
        config = _load(ctx, config_path)
        request = lifecycle.Request(
            config, accept_cut=yes, create_users=create_users, confirm=confirm
        )
        journal = lifecycle.up(_system(ctx), request, PATHS, progress)
        if journal.undo.get("confirm"):
            from onionward.confirmation import seconds_left

            left = seconds_left(journal)
            say(f"undone in {left} s, unless you keep it: onionward confirm")


@cli.command("confirm")
@config_option
@click.pass_context
def confirm_command(ctx: click.Context, config_path: str | None) -> None:
    """Keep what `up --confirm` has done; without it, it undoes itself."""
    del config_path
    from onionward.confirmation import undo
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    _require_root("confirm")
    with Progress() as progress:
        journal, left = undo.confirm(_system(ctx), PATHS, progress)
    what = "; ".join(journal.scopes) or "nothing yet"
    say(f"confirmed with {left} s left: {journal.config} stays ({journal.state}: {what})")


@cli.command()
@config_option
@click.option(
    "--force",
    is_flag=True,
    help="Open the network even if the journal is damaged or a flow cannot be cut.",
)
@click.pass_context
def down(ctx: click.Context, config_path: str | None, *, force: bool) -> None:
    """Put everything back exactly as it was."""
    del config_path  # what was done is in the journal, not in the configuration of today
    from onionward import lifecycle
    from onionward.boot import way_out
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    _require_root("down")
    way_out.end_attempts(_system(ctx))
    _interrupt_on_signals()
    with Progress() as progress:
        if lifecycle.down(_system(ctx), PATHS, progress, force=force):
            back = "see the warning" if progress.warned else "everything is as it was"
            say(f"off: {back}; traffic leaves in clear")
        else:
            say("off already: nothing to put back")
    if way_out.is_enabled():
        say("the next boot is blocked and routed again: `onionward disable` ends that")


@cli.command()
@config_option
@click.option(
    "--init",
    type=click.Choice(["systemd", "sysvinit"]),
    help="What starts services here; left out, what is found.",
)
@click.pass_context
def enable(
    ctx: click.Context, config_path: str | None, init: Literal["systemd", "sysvinit"] | None
) -> None:
    """Block at every boot before there is a network, then route as `up` does."""
    from onionward import lifecycle
    from onionward.boot import install, prepare
    from onionward.boot.way_out import WAY_OUT
    from onionward.paths import PATHS

    _require_root("enable")
    config = _load(ctx, config_path)
    facts, limits = lifecycle.validate(_system(ctx), config, PATHS, whole=True)
    for limit in limits:
        click.echo(f"limit: {limit}")
    texts = prepare.texts(_system(ctx), config, facts, config_path or ctx.obj["config"])
    install.enable(_system(ctx), texts, init or install.choose())
    click.echo(
        "enabled: from the next boot on nothing leaves before Tor is up; nothing changed now"
    )
    click.echo(f"if Tor cannot be reached then, {WAY_OUT}")


@cli.command()
@config_option
@click.pass_context
def disable(ctx: click.Context, config_path: str | None) -> None:
    """Take back what `enable` did; what is in force now stays in force."""
    del config_path
    from onionward.boot import install

    _require_root("disable")
    if install.disable(_system(ctx)):
        click.echo("disabled: the next boot is open; `onionward down` opens the network now")
    else:
        click.echo("disabled already: nothing to remove")


@cli.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, config_path: str | None, *, as_json: bool) -> None:
    """Say what is routed and whether it still holds."""
    del config_path
    from onionward import status as status_module
    from onionward.paths import PATHS

    _require_root("status")
    report = status_module.gather(_system(ctx), PATHS)
    click.echo(status_module.to_json(report) if as_json else status_module.to_text(report))


@cli.command()
@config_option
@click.option("--repair", is_flag=True, help="Mend it, as far as that does not open the network.")
@click.pass_context
def doctor(ctx: click.Context, config_path: str | None, *, repair: bool) -> None:
    """Name everything that is not as it should be, and the command that mends it.

    Exit status: 0 nothing is wrong, or all of it was repaired; 1 something is.
    """
    del config_path  # what should be is what is in force, not the configuration of today
    from onionward import doctor as doctor_module
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    _require_root("doctor")
    if repair:
        _interrupt_on_signals()
        with Progress() as progress:
            found = doctor_module.repair(_system(ctx), PATHS, progress)
    else:
        found = doctor_module.examine(_system(ctx), PATHS)
    for finding in found:
        how = f"repair: {finding.repair}" if finding.repair else "repair: by hand"
        say(f"wrong: {finding.words}\n  {how}")
    if not found:
        say("nothing is wrong")
    sys.exit(1 if found else 0)


@cli.command()
@config_option
@click.pass_context
def check(ctx: click.Context, config_path: str | None) -> None:
    """Validate the configuration and the rendered rules, touching nothing."""
    from onionward import lifecycle
    from onionward.paths import PATHS

    config = _load(ctx, config_path)
    facts, limits = lifecycle.validate(_system(ctx), config, PATHS, whole=True)
    for limit in limits:
        click.echo(f"limit: {limit}")
    interfaces = ", ".join(link.name for link in facts.links) or "none"
    click.echo(f"{config.source.name}: good; nft and tor accept it (interfaces: {interfaces})")


@cli.command()
@config_option
@click.argument("what", type=click.Choice(["policy", "nftables", "torrc", "resolver"]))
@click.option(
    "--state",
    type=click.Choice(["routed", "blocked"]),
    default="routed",
    help="For which state the rules are shown.",
)
@click.pass_context
def show(ctx: click.Context, config_path: str | None, what: str, state: str) -> None:
    """Print the policy or what is rendered from it; touch nothing."""
    from onionward import preview
    from onionward.paths import PATHS

    config = _load(ctx, config_path)
    click.echo(preview.show(_system(ctx), config, PATHS, what, state), nl=False)


@cli.command()
@config_option
@click.option("--user", help="Account (name or number) that sends it; default: you.")
@click.option("--tor", "is_tor", is_flag=True, help="Tor itself sends it.")
@click.option("--from", "interface", help="A client behind this interface sends it.")
@click.option("--source", help="The client's address; default: one of the interface's network.")
@click.option("--name", help="The name that a query for port 53 asks for.")
@click.option("--source-port", type=_PORT, help="Where it matters: 68 and 546 are DHCP's.")
@click.option(
    "--state",
    type=click.Choice(["routed", "blocked"]),
    default="routed",
    show_default=True,
    help="What the machine is.",
)
@click.argument("protocol")
@click.argument("address")
@click.argument("port", type=_PORT, required=False)
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    config_path: str | None,
    state: Literal["routed", "blocked"],
    protocol: str,
    address: str,
    port: int | None,
    **sender: Any,
) -> None:
    """Say what happens to a packet, and by which rule; touch nothing.

    For example: onionward explain --user bob udp 1.1.1.1 443

    or, for a client of a LAN: onionward explain --from eth1 udp 1.1.1.1 53

    It is the first packet of an exchange: answers go to whom `inbound` admits.
    """
    from onionward import preview

    config = _load(ctx, config_path)
    question = preview.Question(protocol.lower(), address, port, **sender)
    click.echo(preview.explain(_system(ctx), config, question, state))


@cli.group()
def lab() -> None:
    """Build a private Tor network on this machine; no internet is needed."""


@lab.command("up")
@click.option("--name", default="lab", show_default=True, help="Several can exist at once.")
@click.pass_context
def lab_up(ctx: click.Context, name: str) -> None:
    """Build the network and a host to protect."""
    from onionward import lab as lab_module
    from onionward.progress import with_time

    _require_root("lab")
    _interrupt_on_signals()
    built = lab_module.build(_system(ctx), name=name, progress=with_time(click.echo))
    option = "" if name == "lab" else f"--name {name} "
    click.echo(f"try: {sys.argv[0]} lab exec {option}host -- curl http://{built.web4}/")


@lab.command("demo")
@click.option(
    "--scope",
    type=click.Choice(["host", "lan", "user", "onion", "all"]),
    default="host",
    show_default=True,
    help="Who is routed: the machine, clients behind it, accounts, .onion names, or all of them.",
)
@click.pass_context
def lab_demo(ctx: click.Context, scope: str) -> None:
    """Show a machine with protection off and on, and what left it."""
    from onionward.lab import demo

    _require_root("lab")
    _interrupt_on_signals()
    sys.exit(demo.run(_system(ctx), scope))


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--name", default="lab", show_default=True, help="Which lab.")
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def lab_exec(ctx: click.Context, name: str, host: str, command: tuple[str, ...]) -> None:
    """Run a command inside HOST.

    HOST is host, neighbour, gateway, client1, client2, client3, container or internet.
    """
    from onionward import lab as lab_module

    del ctx
    _require_root("lab")
    hosts = lab_module.find(name).hosts
    if host not in hosts:
        raise RefusedError(f"the lab has no host {host}; known: {', '.join(sorted(hosts))}")
    argv = hosts[host].command(command)
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606  # nsenter takes this process's place


@lab.command("down")
@click.option("--name", default="lab", show_default=True, help="Which lab.")
@click.pass_context
def lab_down(ctx: click.Context, name: str) -> None:
    """Remove a lab: its processes, namespaces, links and files."""
    from onionward import lab as lab_module

    _require_root("lab")
    lab_module.destroy(_system(ctx), name)
    click.echo(f"lab {name} is gone")


def _require_root(command: str) -> None:
    if os.geteuid() != 0:
        raise RefusedError(f"`onionward {command}` needs root; nothing was touched", "use sudo")


def _interrupt_on_signals() -> None:
    """Let a closed terminal or a polite kill undo what was begun, as Ctrl-C does.

    Once: putting back is not to be interrupted again by an impatient user.
    """
    import signal

    # what nohup(1) has ignored stays so
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def interrupt(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)

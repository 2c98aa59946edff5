"""What looks: status, doctor (which mends when told to), check, show, import, explain."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from onionward.cli.common import (
    Port,
    bsd_commands,
    config_option,
    interrupt_on_signals,
    load,
    refuse_on_bsd,
    require_root,
    resolver_option,
    system_of,
    unused_config_option,
)
from onionward.errors import RefusedError
from onionward.printable import printable

if TYPE_CHECKING:
    from onionward.config import Config

_PORT = Port()


@click.command()
@unused_config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--exit-address",
    is_flag=False,
    flag_value="default",
    metavar="[URL]",
    help="Ask a server through Tor which address it sees, for at most 20 seconds; default: "
    "https://check.torproject.org/api/ip.",
)
@click.pass_context
def status(
    ctx: click.Context, config_path: str | None, *, as_json: bool, exit_address: str | None
) -> None:
    """Say what is routed and whether it still holds.

    Exit status: 0 routed; 3 off; 4 blocked; 5 open (activated, but the rules are gone: NOT
    PROTECTED); 1 nobody can tell.
    """
    del config_path
    from onionward import status_command

    status_command.main(system_of(ctx), as_json=as_json, exit_address=exit_address or "")


@click.command()
@unused_config_option
@click.option("--repair", is_flag=True, help="Mend it, as far as that does not open the network.")
@click.pass_context
def doctor(ctx: click.Context, config_path: str | None, *, repair: bool) -> None:
    """Name what is not as it should be, and what mends it.

    Exit status: 0 nothing is wrong, or all of it was repaired; 1 something is.
    """
    del config_path  # what should be is what is in force, not the configuration of today
    from onionward import doctor as doctor_module
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    refuse_on_bsd("doctor")
    require_root("doctor")
    if repair:
        interrupt_on_signals()
        with Progress() as progress:
            found = doctor_module.repair(system_of(ctx), PATHS, progress)
    else:
        found = doctor_module.examine(system_of(ctx), PATHS)
    for finding in found:
        how = f"repair: {finding.repair}" if finding.repair else "repair: by hand"
        say(f"wrong: {finding.words}\n  {how}")
    if not found:
        say("nothing is wrong")
    sys.exit(1 if found else 0)


@click.command()
@config_option
@resolver_option
@click.pass_context
def check(ctx: click.Context, config_path: str | None, resolver: str | None) -> None:
    """Validate configuration and rules, touching nothing."""
    if bsd := bsd_commands():
        click.echo(bsd.check(system_of(ctx), load(ctx, config_path), special=resolver is not None))
        return
    from onionward import lifecycle
    from onionward.paths import PATHS

    config = load(ctx, config_path)
    facts, limits = lifecycle.validate(
        system_of(ctx), config, PATHS, whole=True, resolver=resolver or ""
    )
    _note_what_is_in_force(config)
    for limit in limits:
        click.echo(printable(f"limit: {limit}"))
    interfaces = printable(", ".join(link.name for link in facts.links) or "none")
    click.echo(f"{config.source.name}: good; nft and tor accept it (interfaces: {interfaces})")


@click.command()
@config_option
@click.argument(
    "what",
    type=click.Choice(
        ["policy", "nftables", "iptables", "firehol", "pf", "torrc", "resolver", "system"]
    ),
    metavar="WHAT",
)
@click.option(
    "--state",
    type=click.Choice(["routed", "blocked"]),
    default="routed",
    help="For which state rules are shown; default: routed.",
)
@click.option(
    "--dialect",
    type=click.Choice(["openbsd", "openbsd-4.6", "freebsd"]),
    help="Of pf; default: this system's, or openbsd.",
)
@click.option(
    "--pf-conf",
    type=click.Path(exists=True, dir_okay=False),
    help="With pf: show this main ruleset with the anchor in it; refuse it if it would defeat it.",
)
@click.pass_context
def show(
    ctx: click.Context, /, config_path: str | None, what: str, state: str, **of_pf: Any
) -> None:
    """Print the policy or what is rendered from it; touch nothing.

    WHAT is policy, nftables, iptables, firehol, pf, torrc, resolver or system.

    iptables prints one document for each program that is to read it, below a line that names it.
    pf and system are for OpenBSD and FreeBSD: the rules, and what surrounds them.
    """
    from onionward import preview
    from onionward.paths import PATHS

    if (of_pf["dialect"] and what not in ("pf", "system")) or (of_pf["pf_conf"] and what != "pf"):
        raise RefusedError(
            f"--dialect is for pf and system, --pf-conf for pf; `onionward show {what}` has neither"
            if what != "system"
            else "--pf-conf is for `onionward show pf`"
        )
    if state == "blocked" and what not in ("nftables", "iptables", "pf"):
        raise RefusedError(
            f"--state is for nftables, iptables and pf; `onionward show {what}` is one for all"
        )
    config = load(ctx, config_path)
    if bsd := bsd_commands():
        click.echo(bsd.show(system_of(ctx), config, what, state, bsd.Wanted(**of_pf)), nl=False)
        return
    if what in ("pf", "system"):
        if not of_pf["dialect"]:
            click.echo("note: for OpenBSD; others: --dialect freebsd, openbsd-4.6", err=True)
        click.echo(preview.show_pf(system_of(ctx), config, what, state, of_pf), nl=False)
        return
    _note_what_is_in_force(config)
    click.echo(preview.show(system_of(ctx), config, PATHS, what, state), nl=False)


@click.command("import")
@unused_config_option
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
def import_command(config_path: str | None, files: tuple[str, ...]) -> None:
    """Print the configuration that means what old FILES meant.

    Scripts with iptables, torrc, pf.conf, firehol.conf.

    Nothing is run and nothing is touched. What was kept, what was changed for safety and why, and
    what was left out stands above it as comments.
    """
    del config_path
    from onionward import importing

    texts = []
    for name in files:
        with click.open_file(name, errors="replace") as file:
            texts.append((name, file.read()))
    click.echo(importing.to_toml(importing.read(texts)), nl=False)


@click.command()
@config_option
@click.option("--user", help="Account (name or number) that sends it; default: you.")
@click.option("--tor", "is_tor", is_flag=True, help="Tor itself sends it.")
@click.option(
    "--from", "interface", help="Who is behind this interface sends it: a client, a container."
)
@click.option("--source", help="The client's address; default: one of the interface's network.")
@click.option("--name", help="The name that a query for port 53 asks for.")
@click.option("--source-port", type=_PORT, help="Where it matters: 68 and 546 are DHCP's.")
@click.option(
    "--state",
    type=click.Choice(["routed", "blocked"]),
    help="What the machine is to be; default: routed.",
)
@click.argument("protocol")
@click.argument("address")
@click.argument("port", type=_PORT, required=False)
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    config_path: str | None,
    state: Literal["routed", "blocked"] | None,
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

    config = load(ctx, config_path)
    question = preview.Question(protocol.lower(), address, port, **sender)
    # who names a state knows that it need not be that of now
    _note_what_is_in_force(config, "" if state else "routed")
    click.echo(preview.explain(system_of(ctx), config, question, state or "routed"))


def _note_what_is_in_force(config: Config, asked: str = "") -> None:
    """Nobody is to take an answer by one configuration for what another one does."""
    from onionward import applied
    from onionward.paths import PATHS

    if bsd_commands() is None and (words := applied.deviation(PATHS, config, asked)):
        click.echo(f"note: {words}", err=True)

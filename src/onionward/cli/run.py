"""One application: run."""

from __future__ import annotations

import click

from onionward.cli.common import config_option


@click.command("run", context_settings={"allow_interspersed_args": False})
@config_option
@click.option("--name", metavar="N", help="Circuits that runs of this name and account share.")
@click.option("--new-circuits", is_flag=True, help="Give the name others from now on.")
@click.option("--as", "account", metavar="USER", help="Whom it runs as; for root only.")
@click.option(
    "--allow",
    "allowed",
    metavar="WHAT",
    multiple=True,
    help="Let through what is named: audio, session-bus, system-bus, ssh-agent, socket:PATH, "
    "fd:NUMBER; no-display takes away.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run_command(
    ctx: click.Context,
    config_path: str | None,
    command: tuple[str, ...],
    *,
    name: str | None,
    new_circuits: bool,
    account: str | None,
    allowed: tuple[str, ...],
) -> None:
    """Run one command whose only way to the network is Tor.

    It runs as you, with your terminal, files and variables, and sees no service of this machine
    that would go out in clear for it. Each run has circuits of its own, unless it has a name.
    What the command leaves running ends with it. Write -- before COMMAND if that begins with -.
    The configuration is read when a tor has to be started for it.

    Exit status: the command's own; 125 onionward failed; 126 the command cannot be executed; 127
    there is no such command; 2 wrong usage.
    """
    from onionward.app import start

    given = (
        ("--config", config_path or ctx.obj["config"]),
        ("--name", name),
        ("--as", account),
        *(("--allow", word) for word in allowed),
    )
    options = [word for option, value in given if value is not None for word in (option, value)]
    start.main([*options, *(["--new-circuits"] if new_circuits else []), "--", *command])

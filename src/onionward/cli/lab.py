"""The private Tor network: lab up, demo, exec, down."""

from __future__ import annotations

import os
import sys

import click

from onionward.cli.common import interrupt_on_signals, require_root, system_of
from onionward.errors import RefusedError


@click.group()
def lab() -> None:
    """Build a private Tor network here, without internet."""


@lab.command("up")
@click.option("--name", default="lab", show_default=True, help="Several can exist at once.")
@click.pass_context
def lab_up(ctx: click.Context, name: str) -> None:
    """Build the network and a host to protect."""
    from onionward import lab as lab_module
    from onionward.progress import with_time

    require_root("lab")
    interrupt_on_signals()
    built = lab_module.build(system_of(ctx), name=name, progress=with_time(click.echo))
    option = "" if name == "lab" else f"--name {name} "
    click.echo(f"try: {sys.argv[0]} lab exec {option}host -- curl http://{built.web4}/")


@lab.command("demo")
@click.option(
    "--scope",
    type=click.Choice(["host", "lan", "user", "onion", "app", "all"]),
    default="host",
    show_default=True,
    help="Who is routed: the machine, clients behind it, accounts, .onion names, one application, "
    "or all of them.",
)
@click.pass_context
def lab_demo(ctx: click.Context, scope: str) -> None:
    """Show a machine with protection off and on, and what left it."""
    from onionward.lab import demo

    require_root("lab")
    interrupt_on_signals()
    sys.exit(demo.run(system_of(ctx), scope))


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
    require_root("lab")
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

    require_root("lab")
    lab_module.destroy(system_of(ctx), name)
    click.echo(f"lab {name} is gone")

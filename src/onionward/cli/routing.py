"""What routes and what puts back: up, confirm, down, enable, disable."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import click

from onionward.cli.common import (
    Seconds,
    bsd_commands,
    config_option,
    interrupt_on_signals,
    load,
    require_root,
    resolver_option,
    system_of,
    unused_config_option,
)
from onionward.errors import RefusedError


@click.command()
@config_option
@click.option("--yes", is_flag=True, help="Go on even if this cuts the SSH session it is typed in.")
@click.option("--create-users", is_flag=True, help="Create accounts of [[user]] that do not exist.")
@click.option(
    "--confirm",
    type=Seconds(1, 86400),
    metavar="SECONDS",
    help="Undo it after so many seconds, unless `onionward confirm` comes in time.",
)
@resolver_option
@click.pass_context
def up(
    ctx: click.Context,
    config_path: str | None,
    *,
    yes: bool,
    create_users: bool,
    confirm: int | None,
    resolver: str | None,
) -> None:
    """Route: block first, start Tor, then let traffic through it."""
    if bsd := bsd_commands():
        from onionward.progress import Progress

        interrupt_on_signals()
        special = create_users or confirm is not None or resolver is not None
        with Progress() as progress:
            bsd.up(system_of(ctx), load(ctx, config_path), progress, special=special)
        return
    from onionward import lifecycle
    from onionward.boot.way_out import telling_the_way_out
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    interrupt_on_signals()
    with telling_the_way_out(system_of(ctx)), Progress() as progress:
        config = load(ctx, config_path)
        request = lifecycle.Request(
            config,
            accept_cut=yes,
            create_users=create_users,
            confirm=confirm,
            resolver=resolver or "",
        )
        journal = lifecycle.up(system_of(ctx), request, PATHS, progress)
        if journal.undo.get("confirm"):
            from onionward.confirmation import seconds_left

            left = seconds_left(journal)
            say(f"undone in {left} s, unless you keep it: onionward confirm")


@click.command("confirm")
@unused_config_option
@click.pass_context
def confirm_command(ctx: click.Context, config_path: str | None) -> None:
    """Keep what `up --confirm` has done; without it, it undoes itself."""
    del config_path
    from onionward.confirmation import undo
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    require_root("confirm")
    with Progress() as progress:
        journal, left = undo.confirm(system_of(ctx), PATHS, progress)
    what = "; ".join(journal.scopes) or "nothing yet"
    say(f"confirmed with {left} s left: {journal.config} stays ({journal.state}: {what})")


@click.command()
@unused_config_option
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

    require_root("down")
    if bsd := bsd_commands():
        with Progress() as progress:
            done = bsd.down(system_of(ctx), progress, force=force)
        say("off: everything is as it was; traffic leaves in clear" if done else "off already")
        return
    way_out.end_attempts(system_of(ctx))
    interrupt_on_signals()
    with Progress() as progress:
        if lifecycle.down(system_of(ctx), PATHS, progress, force=force):
            back = "see the warning" if progress.warned else "everything is as it was"
            say(f"off: {back}; traffic leaves in clear")
        else:
            say("off already: nothing to put back")
    from onionward.app.root.calling import end_if_idle

    if end_if_idle():
        say("applications of `onionward run` go on: through a tor of their own, or nowhere")
    if way_out.is_enabled():
        say("the next boot is blocked and routed again: `onionward disable` ends that")


@click.command()
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
    """Block at every boot before there is a network, then route."""
    if bsd := bsd_commands():
        _enable_on_bsd(bsd, ctx, config_path, special=init is not None)
        return
    from onionward import lifecycle
    from onionward.boot import install, prepare
    from onionward.boot.way_out import WAY_OUT
    from onionward.paths import PATHS

    require_root("enable")
    config = load(ctx, config_path)
    facts, limits = lifecycle.validate(system_of(ctx), config, PATHS, whole=True)
    for limit in limits:
        click.echo(f"limit: {limit}")
    texts = prepare.texts(system_of(ctx), config, facts, config_path or ctx.obj["config"])
    install.enable(system_of(ctx), texts, init or install.choose())
    click.echo(
        "enabled: from the next boot on nothing of the scopes leaves before Tor is up; "
        "what is in force now is unchanged"
    )
    click.echo(f"if Tor cannot be reached then, {WAY_OUT}")


@click.command()
@unused_config_option
@click.pass_context
def disable(ctx: click.Context, config_path: str | None) -> None:
    """Take back what `enable` did; what is in force stays."""
    del config_path
    require_root("disable")
    if bsd := bsd_commands():
        from onionward.progress import Progress

        with Progress() as progress:
            done = bsd.disable(system_of(ctx), progress)
    else:
        from onionward.boot import install

        done = install.disable(system_of(ctx))
    if not done:
        click.echo("disabled already: nothing to remove")
    elif bsd_commands():
        click.echo(
            "disabled: the next boot stays blocked by pf.conf until `onionward up`; what is in "
            "force now ends with `onionward down`"
        )
    else:
        click.echo(
            "disabled: the next boot is open; what is in force now ends with `onionward down`"
        )


def _enable_on_bsd(
    bsd: ModuleType, ctx: click.Context, config_path: str | None, *, special: bool
) -> None:
    from onionward.progress import Progress

    require_root("enable")
    if special:
        raise RefusedError("--init is Linux's; this system has rc(8); nothing was touched")
    with Progress() as progress:
        bsd.enable(system_of(ctx), load(ctx, config_path), progress)
    click.echo(
        "enabled: every boot runs `onionward up`; until it is done the block of pf.conf is in "
        "force. `onionward disable` ends that, and `onionward down` with all the rest"
    )

"""pause and resume: an account gets nothing through for a time."""

from __future__ import annotations

import time

import click

from onionward.cli.common import (
    Seconds,
    interrupt_on_signals,
    refuse_on_bsd,
    require_root,
    system_of,
    unused_config_option,
)


@click.command()
@unused_config_option
@click.argument("user")
@click.option(
    "--for",
    "seconds",
    type=Seconds(1, 31 * 86400),
    metavar="SECONDS",
    help="Then it ends by itself; left out, with `onionward resume`.",
)
@click.pass_context
def pause(ctx: click.Context, config_path: str | None, user: str, seconds: int | None) -> None:
    """Let nothing of a routed account's through, Tor included.

    All that the account sends is refused at once, to this machine's own services as well, and what
    it has open is cut; its runs of `onionward run` end. Nothing leaves in clear, and nobody else
    notices. It holds through every `up`, until `resume` or `down`.
    """
    del config_path
    from onionward.lifecycle import pausing
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    refuse_on_bsd("pause")
    require_root("pause")
    interrupt_on_signals()
    with Progress() as progress:
        made, is_in_force = pausing.pause(system_of(ctx), PATHS, user, seconds, progress)
    if made.until is None:
        end = f"until `onionward resume {user}`"
    else:
        end = time.strftime("until %Y-%m-%d %H:%M:%S", time.localtime(made.until))
    blocked = "" if is_in_force else "; the machine is blocked, so nobody gets anything through"
    say(f"paused: {user} gets nothing through {end}{blocked}")


@click.command()
@unused_config_option
@click.argument("user")
@click.pass_context
def resume(ctx: click.Context, config_path: str | None, user: str) -> None:
    """Let what a paused account sends go through Tor again."""
    del config_path
    from onionward.lifecycle import pausing
    from onionward.paths import PATHS
    from onionward.progress import Progress, say

    refuse_on_bsd("resume")
    require_root("resume")
    interrupt_on_signals()
    with Progress() as progress:
        was_paused = pausing.resume(system_of(ctx), PATHS, user, progress)
    say(f"resumed: {user} is routed as before" if was_paused else f"{user} was not paused")

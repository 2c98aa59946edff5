"""watch: a live screen."""

from __future__ import annotations

import os
import sys

import click

from onionward.cli.common import refuse_on_bsd, system_of, unused_config_option


@click.command()
@unused_config_option
@click.option("--plain", is_flag=True, help="Lines instead of a screen, one per change.")
@click.pass_context
def watch(ctx: click.Context, config_path: str | None, *, plain: bool) -> None:
    """Show scopes, circuits, streams and blocked attempts while they happen.

    Keys: n new identity, p pause an account, r resume one, ? help, q quit. Where standard output
    is no terminal, or one that cannot be written on freely (TERM=dumb), it prints a line for each
    change. Nothing is written to disk.
    """
    del config_path
    refuse_on_bsd("watch")
    from onionward.paths import PATHS
    from onionward.watch import loop

    loop.refuse_who_may_not(PATHS)
    if plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        ended = loop.run_plain(system_of(ctx), PATHS)
    else:
        from onionward.watch.screen import Painter, Screen

        has_keys = sys.stdin.isatty()
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        painter = Painter(colours=not os.environ.get("NO_COLOR"), unicode=unicode)
        screen = Screen(sys.stdin.fileno() if has_keys else None, sys.stdout.fileno(), painter)
        ended = loop.run_on_screen(system_of(ctx), PATHS, screen, has_keys=has_keys)
    if ended is not None:
        loop.end_as(ended)

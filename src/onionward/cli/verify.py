"""`onionward verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onionward.cli.common import (
    interrupt_on_signals,
    refuse_on_bsd,
    system_of,
    unused_config_option,
)
from onionward.errors import RefusedError


@click.command()
@unused_config_option
@click.option("--interface", default="", help="Try to leave by this one; default: default route's.")
@click.option("--only", multiple=True, metavar="NAME", help="Try what is called so, or begins so.")
@click.option(
    "--all", "disturb", is_flag=True, help="Try also what may disturb other machines of the link."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one page for people who audit, besides.",
)
@click.pass_context
def verify(
    ctx: click.Context,
    config_path: str | None,
    interface: str,
    html: Path | None,
    only: tuple[str, ...],
    *,
    disturb: bool,
    as_json: bool,
) -> None:
    """Try to leak in every way that can be tried here; watch the wire.

    Before that, the same probes run in a network of their own that leads nowhere, where the
    detector must see each. They aim at addresses that are nobody's, and at this link's router.
    Nothing of this machine is changed.

    Exit status: 0 everything that was tried is closed; 1 something is open, or not proven; 2
    nothing is routed.
    """
    del config_path  # what is tried is what is in force
    from onionward.paths import PATHS
    from onionward.progress import Progress
    from onionward.verify import report as words
    from onionward.verify import session, text

    refuse_on_bsd("verify")
    if html is not None and not html.absolute().parent.is_dir():
        raise RefusedError(f"{html.parent} is no directory; nothing was tried")
    interrupt_on_signals()
    wish = session.Wish(interface, only, disturb)
    with Progress(aside=True) as progress:
        report = session.run(system_of(ctx), PATHS, wish, progress.step)
    if html is not None:
        from onionward.verify import page

        html.write_text(page.render(report))
    if as_json:
        click.echo(words.to_json(report))
    else:
        text.show(report)
    sys.exit(report.exit_status)

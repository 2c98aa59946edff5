"""new-identity: fresh circuits for everybody."""

from __future__ import annotations

import os

import click

from onionward.cli.common import refuse_on_bsd, require_routed, system_of, unused_config_option


@click.command("new-identity")
@unused_config_option
@click.option("--close", is_flag=True, help="Cut connections that are open, too.")
@click.pass_context
def new_identity(ctx: click.Context, config_path: str | None, *, close: bool) -> None:
    """Give everybody fresh circuits: accounts, clients, names, runs.

    Connections that are open keep their circuits, and their exit, unless --close cuts them. Tor
    takes a new identity at most every 10 seconds; an earlier one waits. Names are resolved anew.
    Guards stay the same, which is safer.

    Exit status: 3 off; 4 blocked, or tor does not run; 5 open.
    """
    del config_path
    from onionward import identity
    from onionward.paths import PATHS
    from onionward.progress import say

    refuse_on_bsd("new-identity")
    # others cannot read the state; whoever may read tor's cookie is told by tor
    if os.geteuid() == 0:
        require_routed(system_of(ctx), "new-identity")
    done = identity.renew(PATHS, close=close, tell=say)
    if close:
        what = f"{done.cut} connections cut"
    elif done.open:
        what = f"{done.open} open connections stay on theirs (--close cuts them)"
    else:
        what = "no connection is open"
    say(f"new identity: fresh circuits for everybody; {what}")

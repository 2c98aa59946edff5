"""The command line: the only code that prints. Each command's module is loaded when it is typed."""

from __future__ import annotations

from importlib import import_module

import click

from onionward import __version__
from onionward.cli.common import config_option

_COMMANDS = {
    "up": "routing.up",
    "confirm": "routing.confirm_command",
    "down": "routing.down",
    "enable": "routing.enable",
    "disable": "routing.disable",
    "status": "inspection.status",
    "watch": "watch.watch",
    "new-identity": "identity.new_identity",
    "pause": "pause.pause",
    "resume": "pause.resume",
    "doctor": "inspection.doctor",
    "check": "inspection.check",
    "show": "inspection.show",
    "import": "inspection.import_command",
    "explain": "inspection.explain",
    "verify": "verify.verify",
    "run": "run.run_command",
    "lab": "lab.lab",
}


class _Commands(click.Group):
    """Commands by name, in the order in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(".")
        found: click.Command = getattr(import_module(f"{__name__}.{module}"), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Their whole first sentence, which click would cut to what fits beside the name."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(limit=200)) for name, one in commands if one]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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

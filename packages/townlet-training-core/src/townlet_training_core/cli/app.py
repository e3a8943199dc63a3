"""The root of the command line: lazy commands, plug-in commands, one way to fail.

Exit codes: 0 done, 1 ran and the verdict is negative, 2 bad input or usage, 3 an optional part is missing,
75 interrupted and resumable.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from townlet_training_core.errors import ConfigurationError, TownletError
from townlet_training_core.registry import Group, load, plugins

__all__ = ["app", "main"]

_COMMANDS = {
    "train": "townlet_training_core.cli.train:app",
    "capture": "townlet_training_core.cli.capture:app",
    "evaluate": "townlet_training_core.cli.evaluate:app",
    "export": "townlet_training_core.cli.export:app",
    "promote": "townlet_training_core.cli.promote:app",
    "replay": "townlet_training_core.cli.replay:app",
    "report": "townlet_training_core.cli.report:app",
    "runs": "townlet_training_core.cli.runs:app",
    "config": "townlet_training_core.cli.config:app",
    "doctor": "townlet_training_core.cli.doctor:app",
}
"""Commands of this package, in the order of the help page."""


class _LazyGroup(TyperGroup):
    """Finds a command when it is asked for; commands of other packages come from ``townlet.commands``."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the base class names it
        return [*_COMMANDS, *(plugin.name for plugin in plugins(Group.COMMANDS) if plugin.name not in _COMMANDS)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _COMMANDS:
            module, _, attribute = _COMMANDS[cmd_name].partition(":")
            found = getattr(importlib.import_module(module), attribute)
        elif _listing_help(ctx):
            try:  # a broken plug-in must not take the help page away; `townlet doctor` reports it
                found = load(Group.COMMANDS, cmd_name)
            except TownletError:
                return None
        elif cmd_name in self.list_commands(ctx):
            found = load(Group.COMMANDS, cmd_name)
        else:
            return None
        command = typer.main.get_command(found)
        command.name = cmd_name
        # Typer gives every app completion of its own; the root has none, so neither have the commands.
        command.params = [one for one in command.params if one.name not in {"install_completion", "show_completion"}]
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TownletError as error:
            _fail(error)
        except BrokenPipeError:
            # The reader of our output went away (`townlet ... | head`): not an error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except OSError as error:
            if error.filename is None:  # not about a path that somebody gave
                raise
            _fail(ConfigurationError(f"{os.fsdecode(error.filename)!r}: {error.strerror or error}"))


def _listing_help(ctx: Any) -> bool:
    return not getattr(ctx, "_protected_args", None) and not getattr(ctx, "args", None)


def _fail(error: TownletError) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        typer.echo(f"error: {line}", err=True)
    raise SystemExit(error.exit_code)


app = typer.Typer(
    cls=_LazyGroup,
    name="townlet",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, evaluate and release policies for small-town simulations.",
    epilog="Example: townlet train anneal --set simulation.num_envs=16",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version and exit."),
) -> None:
    if version:
        from townlet_training_core._version import __version__

        typer.echo(f"townlet-training-core {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line."""
    app()

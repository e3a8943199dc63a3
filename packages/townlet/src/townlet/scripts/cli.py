"""``townlet legacy <script>``: the old scripts as commands; each parses its own flags."""

from __future__ import annotations

import importlib
import pkgutil

import typer

from townlet import scripts
from townlet_training_core.cli.flags import run

__all__ = ["app", "script_names"]

app = typer.Typer(no_args_is_help=True, help="The old scripts, with their old flags.")


def script_names() -> list[str]:
    """Names of the scripts."""
    found = [module.name for module in pkgutil.iter_modules(scripts.__path__)]
    return sorted(name for name in found if name != "cli" and not name.startswith("_"))


def _add(name: str) -> None:
    # Every word after the name is the script's own, --help included.
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(name.replace("_", "-"), context_settings=settings)
    def command(context: typer.Context) -> None:
        run(importlib.import_module(f"townlet.scripts.{name}").main, context.args)

    del command


for _name in script_names():
    _add(_name)

"""``townlet runs``: what was run, how it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli.options import JsonOption, RunsDirOption
from townlet_training_core.runs import RunDirectory, list_runs

__all__ = ["app"]

app = typer.Typer(no_args_is_help=False, help="List run directories and look into one.")


@app.command(epilog="Example: townlet runs runs/latest --json")
def runs(
    run: Annotated[Path | None, typer.Argument(help="A run directory to describe; lists all when absent.")] = None,
    runs_dir: RunsDirOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs in order of time, or describe one."""
    if run is not None:
        target = run.parent if run.name == "latest" else run
        found = RunDirectory.read(target)
        described = {"run_id": found.run_id, **found.manifest(), "results": _results(found)}
        if as_json:
            typer.echo(json.dumps(described, indent=2))
        else:
            for key in ("run_id", "status", "strategy", "started", "seed", "parent", "config_hash"):
                typer.echo(f"{key:12} {described.get(key)}")
            typer.echo(f"{'results':12} {', '.join(described['results']) or 'none'}")
        return
    rows: list[dict[str, Any]] = [{"run_id": found.run_id, **found.manifest()} for found in list_runs(runs_dir)]
    if as_json:
        keys = ("run_id", "status", "strategy", "started", "seed")
        typer.echo(json.dumps([{key: row.get(key) for key in keys} for row in rows], indent=2))
        return
    if not rows:
        typer.echo(f"no runs in {runs_dir}")
        return
    table = Table("run", "strategy", "status", "seed", "started")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*(str(row.get(key, "")) for key in ("run_id", "strategy", "status", "seed", "started")))
    Console().print(table)


def _results(run: RunDirectory) -> list[str]:
    return sorted(path.relative_to(run.path).as_posix() for path in run.results.rglob("*.json"))

"""``townlet report``: runs as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_training_core.runs import RunDirectory

__all__ = ["app"]

app = typer.Typer(help="Write a report of runs as one HTML file.")


@app.command(epilog="Examples:  townlet report runs   |   townlet report runs/one runs/two --output both.html")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories (a runs folder means its latest run), or folders of evaluation results."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; report.html in the first run when absent.")
    ] = None,
    verdicts: Annotated[
        list[Path] | None, typer.Option("--verdict", help="What `promote evaluate` wrote; repeatable.")
    ] = None,
) -> None:
    """Write what was run, how it learned, how it plays, and what the gate said, into one file for any browser."""
    from townlet_training_core.evaluation.report import write_report

    found = [_open(path) for path in runs]
    first = found[0] if isinstance(found[0], Path) else found[0].path
    target = write_report(found, output or first / "report.html", verdicts=verdicts or ())
    typer.echo(f"report: {target}")


def _open(path: Path) -> RunDirectory | Path:
    """Take a folder without ``run.json`` that holds JSON files for results of ``townlet evaluate --output``."""
    is_run = (path / "run.json").is_file() or (path / "latest").is_file()
    return path if not is_run and any(path.glob("*.json")) else RunDirectory.read(path)

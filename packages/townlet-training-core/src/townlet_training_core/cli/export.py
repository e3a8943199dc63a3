"""``townlet export``: take a policy out of a run, as two files that act wherever numpy is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from townlet_training_core.cli.options import JsonOption
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.policy.exported import ExportedPolicy

__all__ = ["app"]

app = typer.Typer(help="Take a policy out of a run.")


@app.command(epilog="Example: townlet export runs --output policies/best   |   townlet evaluate --policy policies/best")
def export(
    source: Annotated[Path, typer.Argument(help="A run, a runs folder (its latest run), a checkpoint or an export.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for policy.safetensors and policy.json.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a policy, checked against its checksums, into a folder of its own; torch is not needed to run it."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        msg = f"--output {str(output)!r} exists already and is not an empty folder; choose another"
        raise ConfigurationError(msg)
    policy = ExportedPolicy.load(source)
    policy.save(output)
    described = {"output": str(output), "policy_hash": policy.content_hash(), "kind": policy.description.kind}
    typer.echo(json.dumps(described) if as_json else f"{output}: {described['kind']}, {described['policy_hash'][:16]}")

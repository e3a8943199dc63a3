"""``townlet export``: take a policy out of a run, as files that act without torch."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from townlet_training_core.cli.options import JsonOption
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.files import atomic_write_text
from townlet_training_core.policy.exported import DESCRIPTION_FILE, ExportedPolicy
from townlet_training_core.policy.onnx import save_onnx

__all__ = ["Format", "app"]

app = typer.Typer(help="Take a policy out of a run.")


class Format(StrEnum):
    """What a policy is written as."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"


@app.command(
    epilog="Examples:  townlet export runs --output policies/best   |   townlet evaluate --policy policies/best   |   "
    "townlet export runs --output policies/onnx --format onnx"
)
def export(
    source: Annotated[Path, typer.Argument(help="A run, a runs folder (its latest run), a checkpoint or an export.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the policy's files.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="safetensors: policy.safetensors and policy.json, which --policy takes. "
            "onnx: policy.onnx and policy.json, for other runtimes.",
        ),
    ] = Format.SAFETENSORS,
    as_json: JsonOption = False,
) -> None:
    """Copy a policy, checked against its checksums, into a folder of its own; torch is not needed to run it."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        msg = f"--output {str(output)!r} exists already and is not an empty folder; choose another"
        raise ConfigurationError(msg)
    policy = ExportedPolicy.load(source)
    if form is Format.ONNX:
        save_onnx(policy, output)
        atomic_write_text(output / DESCRIPTION_FILE, policy.description.model_dump_json(indent=2) + "\n")
    else:
        policy.save(output)
    described = {
        "output": str(output),
        "format": form.value,
        "policy_hash": policy.content_hash(),
        "kind": policy.description.kind,
    }
    typer.echo(json.dumps(described) if as_json else f"{output}: {described['kind']}, {described['policy_hash'][:16]}")

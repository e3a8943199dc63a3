"""``townlet replay``: look into replay data, convert it, hand it on; the analysis commands join the group."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli import analysis
from townlet_training_core.cli.capture import Form
from townlet_training_core.cli.options import JsonOption

__all__ = ["ExportFormat", "app"]

app = typer.Typer(no_args_is_help=True, help="Look into replay data, convert it, compare it.")

SourceArgument = Annotated[
    Path, typer.Argument(help="Shard store, curation, manifest, capture folder or npz file.", show_default=False)
]


class ExportFormat(StrEnum):
    """What data is exported as."""

    PARQUET = "parquet"


@app.command(epilog="Example: townlet replay inspect captures/expert --json")
def inspect(
    source: SourceArgument,
    verify: Annotated[bool, typer.Option("--verify", help="Read everything: checksums, NaN.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a dataset holds."""
    from townlet_training_core.replay.curated import CuratedStores
    from townlet_training_core.replay.openers import open_transitions, replay_kind
    from townlet_training_core.replay.shards import ShardStore
    from townlet_training_core.replay.transitions import TransitionDataset, require_finite

    kind, path = replay_kind(source)
    dataset: TransitionDataset
    if kind == "store":
        dataset = ShardStore.open(path, verify=verify)
    elif kind == "curation":
        dataset = CuratedStores.open(path, verify=verify)
    else:
        dataset = open_transitions(path)
    if verify:
        require_finite(dataset)
    lengths = dataset.offsets[1:] - dataset.offsets[:-1]
    spec = dataset.spec
    described: dict[str, Any] = {
        "path": str(path),
        "kind": kind,
        "simulation": spec.simulation,
        "rules_hash": spec.rules_hash,
        "transitions": len(dataset),
        "trajectories": len(lengths),
        "trajectory_length": {
            "min": int(lengths.min(initial=len(dataset))),
            "mean": float(lengths.mean()) if len(lengths) else 0.0,
            "max": int(lengths.max(initial=0)),
        },
        "observations": {
            name: {"shape": list(item.shape), "dtype": item.dtype.name} for name, item in spec.observations.items()
        },
        "columns": list(dataset.columns),
        "actions": list(spec.action_names),
        "feature_names": list(spec.feature_names),
    }
    if isinstance(dataset, ShardStore):
        described["shards"] = len(dataset.shards)
        described["bytes"] = sum(shard.bytes for shard in dataset.shards)
        described["complete"] = dataset.complete
        described["metadata"] = dataset.metadata
    if as_json:
        typer.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, title=str(path))
    for key, value in described.items():
        table.add_row(key, _text(value))
    Console().print(table)


def _text(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(str(item) for item in value[:12])
        return f"{len(value)}: {shown}{', ...' if len(value) > 12 else ''}"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_inline(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in ([0, 0.0], {}, []))
    return str(value)


@app.command(epilog="Example: townlet replay convert old_captures/ store/ --to shards")
def convert(
    source: SourceArgument,
    target: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    to: Annotated[Form, typer.Option("--to", help="Form to write.")] = Form.SHARDS,
    shard_mib: Annotated[int, typer.Option("--shard-mib", min=1, help="Size at which a shard is sealed.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Convert between npz files and a shard store, without loss."""
    from townlet_training_core.replay import openers

    count = openers.convert(source, target, to=to.value, shard_bytes=shard_mib * 2**20)
    if as_json:
        typer.echo(json.dumps({"target": str(target), "form": to.value, "trajectories": count}))
    else:
        typer.echo(f"{count} trajectories written to {target}")


@app.command(epilog="Example: townlet replay export captures/expert expert.parquet --format parquet")
def export(
    source: SourceArgument,
    target: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
    form: Annotated[ExportFormat, typer.Option("--format", help="Form to write.")] = ExportFormat.PARQUET,
    observations: Annotated[
        bool, typer.Option("--observations/--no-observations", help="Also write observations and masks.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Export to a table for analysis, one row per transition."""
    from townlet_training_core.replay.openers import open_transitions
    from townlet_training_core.replay.parquet import export_parquet

    rows = export_parquet(open_transitions(source), target, observations=observations)
    if as_json:
        typer.echo(json.dumps({"target": str(target), "format": form.value, "rows": rows}))
    else:
        typer.echo(f"{rows:,} rows written to {target}")


analysis.register(app)

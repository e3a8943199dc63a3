"""``townlet replay stats | compare | audit | curate | merge | validate-log``: what is in the data.

:func:`register` adds these commands to the ``replay`` group.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli.options import JsonOption
from townlet_training_core.cli.outputs import require_file, require_picture
from townlet_training_core.cli.tables import interval_text
from townlet_training_core.dto.analysis import DatasetComparison, DatasetStats
from townlet_training_core.errors import ConfigurationError

__all__ = ["app", "register"]

DatasetArgument = Annotated[Path, typer.Argument(help="Manifest, capture folder, shard store or curation.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Draw it into this PNG.")]


def register(group: typer.Typer) -> None:
    """Add the analysis commands to a command group."""
    group.command(epilog="Example: townlet replay stats captures/ --plot actions.png")(stats)
    group.command(epilog="Example: townlet replay compare old/ new/ --json")(compare)
    group.command(epilog="Example: townlet replay audit data/versions.json")(audit)
    group.command(epilog="Example: townlet replay curate captures/ --output good_manifest.json --min-reward 1")(curate)
    group.command(epilog="Example: townlet replay merge one/ two/ --output both_manifest.json")(merge)
    group.command("validate-log", epilog="Example: townlet replay validate-log runs/my-run/telemetry.jsonl")(
        validate_log
    )


def stats(dataset: DatasetArgument, plot: PlotOption = None, as_json: JsonOption = False) -> None:
    """Summarise a dataset: rewards, returns, actions, by agent and together."""
    from townlet_training_core.replay.analysis import dataset_stats

    require_picture(plot)
    found = dataset_stats(dataset)
    if plot is not None:
        _draw_actions(found, plot)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    console = Console()
    table = Table("agent", "samples", "steps", "ended", "reward/step", "return [95%]", "action entropy")
    for group in (*found.agents, found.total):
        table.add_row(
            group.name,
            str(group.samples),
            str(group.steps),
            str(group.episodes_ended),
            f"{group.reward_mean:.4f}",
            interval_text(group.return_mean),
            f"{group.action_entropy:.3f}",
            end_section=group is found.agents[-1],
        )
    console.print(table)
    actions = Table("action", "count", "share")
    for name, count in found.total.actions.items():
        actions.add_row(name, str(count), f"{count / found.total.steps:.2%}")
    console.print(actions)
    for name, value in found.events.items():
        typer.echo(f"{name}: {value:g}")
    if found.rejected:
        typer.echo(f"{found.rejected} rejected entries were left out")


def compare(
    first: DatasetArgument,
    second: DatasetArgument,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, help="Effect size from which a shift counts.")
    ] = 0.2,
    fail_on_drift: Annotated[bool, typer.Option("--fail-on-drift", help="Exit with 1 when anything shifted.")] = False,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how the second dataset differs from the first, with effect sizes and intervals."""
    from townlet_training_core.replay.analysis import compare_datasets

    require_picture(plot)
    found = compare_datasets(first, second, threshold=threshold)
    if plot is not None:
        _draw_drift(found, plot)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        console = Console()
        table = Table("column", "first", "second", "difference [95%]", "effect (sd)", "shifted")
        for drift in found.drifts:
            table.add_row(
                drift.column,
                f"{drift.first_mean:.4g}",
                f"{drift.second_mean:.4g}",
                interval_text(drift.difference),
                f"{drift.effect_size:+.2f}",
                "yes" if drift.shifted else "",
            )
        console.print(table)
        typer.echo(f"action histograms: distance {found.action_distance:.3f} (0 the same, 1 disjoint)")
    if fail_on_drift and any(drift.shifted for drift in found.drifts):
        raise typer.Exit(1)


def audit(
    versions: Annotated[Path, typer.Argument(help="versions.json: dataset names and their files.")],
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="NAME=DATASET", help="Write checksums of a dataset and enter it first."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check datasets against their checksums; exit code 1 when one fails."""
    from townlet_training_core.replay.curation import audit as audit_versions
    from townlet_training_core.replay.curation import record_checksums

    if record is not None:
        name, separator, dataset = record.partition("=")
        if not separator or not name or not dataset:
            msg = f"--record {record!r}: expected NAME=DATASET"
            raise ConfigurationError(msg)
        record_checksums(versions, name, Path(dataset))
    report = audit_versions(versions)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        for dataset_report in report.datasets:
            typer.echo(f"{dataset_report.status} {dataset_report.name}: {dataset_report.sample_count} samples")
            for finding in dataset_report.findings:
                typer.echo(f"  {finding}")
    if report.failures:
        raise typer.Exit(1)


def curate(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Manifest to write.")],
    min_timesteps: Annotated[int, typer.Option("--min-timesteps", min=0, help="Fewer steps are rejected.")] = 10,
    min_reward: Annotated[
        float | None, typer.Option("--min-reward", help="A smaller summed reward is rejected.")
    ] = None,
    min_actions: Annotated[int, typer.Option("--min-actions", min=1, help="Fewer different actions are rejected.")] = 1,
    reject: Annotated[
        list[str] | None, typer.Option("--reject", help="Reject files (trajectories) of this pattern.")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="Accept files (trajectories) of this pattern.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Accept or reject samples, or the trajectories of a shard store; loaders leave rejected ones out."""
    from townlet_training_core.replay.curation import curate as curate_dataset

    require_file(output, "--output")
    report = curate_dataset(
        dataset,
        output,
        min_timesteps=min_timesteps,
        min_reward=min_reward,
        min_actions=min_actions,
        reject=reject or (),
        accept=accept or (),
    )
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    typer.echo(f"{report.accepted} of {report.total} samples accepted: {report.output}")
    for reason, count in report.reasons.items():
        typer.echo(f"  {count} {reason}")


def merge(
    datasets: Annotated[
        list[Path], typer.Argument(help="Manifests, or folders with one; or shard stores and curations.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Manifest to write.")],
    as_json: JsonOption = False,
) -> None:
    """Join datasets of one action and observation space into one manifest."""
    from townlet_training_core.replay.curation import merge as merge_datasets

    require_file(output, "--output")
    report = merge_datasets(datasets, output)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    typer.echo(f"{report.accepted} samples in {report.output}")


def validate_log(
    logs: Annotated[list[Path], typer.Argument(help="JSONL logs; continuations are read with them.")],
    baseline: Annotated[Path | None, typer.Option("--baseline", help="JSON to compare the last summary with.")] = None,
    drift_threshold: Annotated[
        float | None, typer.Option("--drift-threshold", min=0.0, help="Largest difference that is tolerated.")
    ] = None,
    relative: Annotated[bool, typer.Option("--relative", help="Judge differences relative to the baseline.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check training logs: whole lines, all keys, finite numbers, near a baseline."""
    from townlet_training_core.evaluation.logs import validate_logs

    reports = validate_logs(logs, baseline, drift_threshold, relative)
    if as_json:
        typer.echo(json.dumps([report.model_dump(mode="json") for report in reports], indent=2))
        return
    for report in reports:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
        typer.echo(f"{report.path}: {report.records} records ({kinds})")
        for key, value in (report.relative_drift or report.drift).items():
            typer.echo(f"  {key}: {value:+.4g}")


def _draw_actions(found: DatasetStats, target: Path) -> None:
    from townlet_training_core.cli.evaluate import require_plots

    names = list(found.total.actions)
    figure = require_plots()(figsize=(max(5.0, 0.5 * len(names)), 3.5), layout="constrained")
    axes = figure.add_subplot()
    for group in (found.total, *found.agents[:8]):
        shares = [group.actions[name] / group.steps for name in names]
        axes.plot(range(len(names)), shares, "o-" if group is found.total else ".", label=group.name, alpha=0.8)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("share of decisions")
    axes.legend(fontsize=7)
    figure.savefig(target, dpi=120)


def _draw_drift(found: DatasetComparison, target: Path) -> None:
    from townlet_training_core.cli.evaluate import require_plots

    shown = found.drifts[:20]
    figure = require_plots()(figsize=(6.0, 1.0 + 0.28 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    rows = range(len(shown))
    axes.barh(rows, [drift.effect_size for drift in shown], color=["C3" if d.shifted else "0.7" for d in shown])
    axes.set_yticks(rows, [drift.column for drift in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("second minus first, in deviations")
    figure.savefig(target, dpi=120)


app = typer.Typer(no_args_is_help=True, help="Summaries, drift, checksums, curation.")
register(app)

"""``townlet evaluate``: any policies on the same seeds, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from townlet_training_core.cli.options import ConfigOption, JsonOption, SetOption
from townlet_training_core.cli.outputs import require_folder, require_picture
from townlet_training_core.cli.tables import interval_text, results_table
from townlet_training_core.config.loader import load_config
from townlet_training_core.dto.evaluation import EvaluationResult, PairedComparison, SuiteAggregate
from townlet_training_core.errors import ConfigurationError, InterruptedRunError
from townlet_training_core.evaluation.compare import compare_paired
from townlet_training_core.evaluation.scenarios import aggregate, load_suites
from townlet_training_core.files import atomic_write_text

__all__ = ["app"]

app = typer.Typer(help="Evaluate policies on fixed seeds.")


@app.command(
    epilog="Examples:  townlet evaluate --policy scripted --policy random   |   "
    "townlet evaluate --policy runs --against scripted --json"
)
def evaluate(
    policies: Annotated[
        list[str],
        typer.Option("--policy", "-p", help="Registered name, exported policy, checkpoint or run; repeatable."),
    ],
    against: Annotated[
        str | None, typer.Option("--against", help="Compare every policy with this one, paired by seed.")
    ] = None,
    suites: Annotated[
        Path | None, typer.Option("--suites", help="YAML list of suites, one per scenario, that all policies play.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    episodes: Annotated[int | None, typer.Option("--episodes", help="Episodes per policy.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions instead of samples.")] = False,
    workers: Annotated[int, typer.Option("--workers", help="Processes that play.")] = 1,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of finished pieces, to go on later.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for one result file per policy.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw returns with intervals into this PNG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let policies play the same episodes and say how sure the differences are."""
    from townlet_training_core.evaluation.parallel import evaluate_spec

    specs = list(dict.fromkeys([*policies, *([against] if against else [])]))
    labels = _labels(specs)
    changes = [*(overrides or ())]
    changes += [f"evaluation.episodes={episodes}"] if episodes is not None else []
    changes += ["evaluation.greedy=true"] if greedy else []
    loaded = load_config(config, overrides=changes)
    settings = loaded.evaluation
    played = load_suites(suites, loaded)
    require_folder(output, "--output")
    require_folder(cache, "--cache")
    require_picture(plot)
    try:
        results = {
            spec: [
                evaluate_spec(
                    spec,
                    suite=suite,
                    label=labels[spec],
                    num_envs=settings.num_envs,
                    workers=workers,
                    directory=cache,
                    confidence=settings.confidence,
                    resamples=settings.resamples,
                )
                for suite in played
            ]
            for spec in specs
        }
    except KeyboardInterrupt:
        kept = f"finished pieces are in {cache}; run it again to go on" if cache else "give --cache to be able to go on"
        msg = f"the evaluation was stopped; {kept}"
        raise InterruptedRunError(msg) from None
    levels: dict[str, Any] = {"confidence": settings.confidence, "resamples": settings.resamples}
    comparisons = [
        (result.suite.name, compare_paired(result, other, **levels))
        for spec in specs
        if against is not None and spec != against
        for result, other in zip(results[spec], results[against], strict=True)
    ]
    aggregates = [
        aggregate(results[spec], results[against] if against and spec != against else (), **levels)
        for spec in specs
        if len(played) > 1
    ]
    everything = [result for spec in specs for result in results[spec]]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for result in everything:
            stem = result.label if len(played) == 1 else f"{result.label}-{result.suite.name}"
            atomic_write_text(output / f"{stem}.json", result.model_dump_json(indent=2) + "\n")
    if plot is not None:
        draw_returns(everything, plot)
    if as_json:
        payload = {
            "results": [result.model_dump(mode="json") for result in everything],
            "comparisons": [comparison.model_dump(mode="json") for _, comparison in comparisons],
            "aggregates": [item.model_dump(mode="json") for item in aggregates],
        }
        typer.echo(json.dumps(payload, indent=2))
        return
    console = Console()
    for at, suite in enumerate(played):
        if len(played) > 1:
            console.print(f"suite {suite.name}", markup=False)
        console.print(results_table([results[spec][at] for spec in specs]))
    for name, comparison in comparisons:
        scenario = f"{name}: " if len(played) > 1 else ""
        console.print(scenario + comparison_line(comparison), markup=False, soft_wrap=True)
    for item in aggregates:
        console.print(aggregate_line(item), markup=False, soft_wrap=True)


def comparison_line(comparison: PairedComparison) -> str:
    """Say in one line how two policies compare."""
    difference, better = comparison.difference, comparison.probability_of_improvement
    return (
        f"{comparison.candidate} minus {comparison.baseline}: {interval_text(difference)} over "
        f"{comparison.episodes} pairs, effect {comparison.effect_size:.2f} sd, P(better) {better.estimate:.2f}"
    )


def aggregate_line(item: SuiteAggregate) -> str:
    """Say in one line what a policy reached over all suites."""
    text = (
        f"{item.label} over {len(item.suites)} suites: mean {interval_text(item.mean)}, IQM {interval_text(item.iqm)}"
    )
    better = item.probability_of_improvement
    return text if better is None else f"{text}, P(better than {item.against}) {interval_text(better)}"


def require_plots() -> Any:
    """Import matplotlib's figure class, or say what to install."""
    from townlet_training_core.errors import MissingDependencyError

    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("--plot", install="pip install 'townlet-training-core[plots]'") from error
    return Figure


def draw_returns(results: list[EvaluationResult], target: Path) -> None:
    """Draw every episode's return and the mean with its interval, one policy a row."""
    figure = require_plots()(figsize=(7.0, 1.0 + 0.7 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for row, result in enumerate(results):
        mean = result.summary.mean
        axes.plot(result.returns, [row] * len(result.returns), "|", color="0.6", markersize=10)
        axes.plot([mean.low, mean.high], [row, row], color="C0", linewidth=3)
        axes.plot([mean.estimate], [row], "o", color="C0")
    several = len({result.suite.name for result in results}) > 1
    names = [f"{result.label}, {result.suite.name}" if several else result.label for result in results]
    axes.set_yticks(range(len(results)), names)
    axes.invert_yaxis()
    axes.set_xlabel("return of an episode, mean over agents")
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.savefig(target, dpi=120)


def _labels(specs: list[str]) -> dict[str, str]:
    """Name policies by the last part of their path, or by the whole path where that is not enough."""
    short = {spec: Path(spec).name or spec for spec in specs}
    labels = {
        spec: name if list(short.values()).count(name) == 1 else spec.strip("/").replace("/", "-")
        for spec, name in short.items()
    }
    if len(set(labels.values())) != len(labels):
        msg = f"policies {specs!r} cannot be told apart by name; give different paths"
        raise ConfigurationError(msg)
    return labels

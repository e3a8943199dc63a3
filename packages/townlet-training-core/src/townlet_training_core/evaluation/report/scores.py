"""The sections that show how policies did: returns, comparisons, events, confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pydantic import ValidationError

from townlet_training_core.dto.evaluation import EvaluationResult, IntervalDTO, PairedComparison
from townlet_training_core.evaluation.report.charts import interval_chart, number
from townlet_training_core.evaluation.report.gather import Confusion, RunRecord
from townlet_training_core.evaluation.report.tables import figure, table

__all__ = ["cloning_section", "events_section", "scores_section"]


def scores_section(runs: Sequence[RunRecord]) -> str:
    """Write returns of all evaluated policies with intervals, and the scoreboard's paired comparisons."""
    rows = [(_label(run, result, runs), result) for run in runs for result in run.evaluations]
    if not rows:
        return ""
    chart = interval_chart(
        "Mean return of an episode", [(label, result.summary.mean, result.returns) for label, result in rows]
    )
    kpis = list(dict.fromkeys(name for _, result in rows for name in result.kpis))
    headers = ["policy", "episodes", "mean return", "interval", "IQM", "interval", "median", "deviation", *kpis]
    cells = [
        [
            label,
            str(len(result.returns)),
            number(result.summary.mean.estimate),
            _interval(result.summary.mean),
            number(result.summary.iqm.estimate),
            _interval(result.summary.iqm),
            number(result.summary.median),
            number(result.summary.std),
            *(_mean(result.kpis.get(name, ())) for name in kpis),
        ]
        for label, result in rows
    ]
    first = rows[0][1]
    body = (
        f"<p>One episode per seed on {escape(first.simulation)}; the return of an episode is the mean over agents of "
        "their summed rewards. Intervals are bootstrap intervals over episodes at "
        f"{first.summary.mean.confidence:.0%}. Thin lines are single episodes.</p>"
    )
    if len({result.world_hash() for _, result in rows}) > 1:
        body += '<p class="bad">Not all rows were played on the same seeds and rules: do not compare them.</p>'
    body += f'<div class="charts">{figure("Mean return of an episode", chart)}</div>' if chart else ""
    body += table("Policies", headers, cells, header_column=True)
    comparisons = [(run, item) for run in runs for item in _comparisons(run)]
    if comparisons:
        body += table(
            "Compared seed by seed",
            ["policies", "mean difference", "interval", "effect (deviations)", "P(better)", "interval"],
            [
                [
                    f"{item.candidate} minus {item.baseline}" + (f" ({run.name})" if len(runs) > 1 else ""),
                    number(item.difference.estimate),
                    _interval(item.difference),
                    number(item.effect_size),
                    number(item.probability_of_improvement.estimate),
                    _interval(item.probability_of_improvement),
                ]
                for run, item in comparisons
            ],
            header_column=True,
        )
    return body


def events_section(runs: Sequence[RunRecord]) -> str:
    """Write the events per episode of every evaluated policy."""
    rows = [(_label(run, result, runs), result) for run in runs for result in run.evaluations if result.events]
    kinds = list(dict.fromkeys(kind for _, result in rows for kind in result.events))
    if not rows or not kinds:
        return ""
    cells = [
        [label, *(number(sum(result.events.get(kind, (0,))) / len(result.returns)) for kind in kinds)]
        for label, result in rows
    ]
    return table("Events of an episode, mean over episodes", ["policy", *kinds], cells, header_column=True)


def cloning_section(runs: Sequence[RunRecord]) -> str:
    """Write the confusion matrices on held-out trajectories."""
    return "".join(_confusion(run, item) for run in runs for item in run.confusions)


def _confusion(run: RunRecord, confusion: Confusion) -> str:
    caption = f"{run.name}, {confusion.title}: rows are the expert's action, columns the clone's"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in confusion.names)
    body = []
    for name, row in zip(confusion.names, confusion.counts, strict=True):
        total = max(1, sum(row))
        cells = "".join(f'<td class="heat" style="--share:{count / total:.3f}">{count}</td>' for count in row)
        body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    note = " Only one action occurs, so accuracy says nothing." if confusion.vacuous else ""
    return (
        f"<p>Held-out accuracy {confusion.accuracy:.2%} of {confusion.samples} decisions.{note}</p>"
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption, quote=True)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _comparisons(run: RunRecord) -> list[PairedComparison]:
    """Take the comparisons of the scoreboard and those between stages."""
    listed = run.results.get("scoreboard", {}).get("comparisons")
    payloads = [*(listed if isinstance(listed, list) else ())]
    payloads += [payload for name, payload in run.results.items() if name.startswith("comparisons/")]
    found = []
    for payload in payloads:
        try:
            found.append(PairedComparison.model_validate(payload))
        except ValidationError:
            continue  # of another version: the evaluations are shown anyway
    return found


def _label(run: RunRecord, result: EvaluationResult, runs: Sequence[RunRecord]) -> str:
    return f"{result.label} ({run.name})" if len(runs) > 1 else result.label


def _interval(interval: IntervalDTO) -> str:
    return f"{number(interval.low)} to {number(interval.high)}"


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return number(math.fsum(known) / len(known)) if known else ""

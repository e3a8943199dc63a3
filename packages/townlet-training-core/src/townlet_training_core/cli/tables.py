"""Tables that several commands print. Policies are columns, so that any number of indicators fits a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from townlet_training_core.dto.evaluation import EvaluationResult, IntervalDTO
from townlet_training_core.dto.scoreboard import Scoreboard

__all__ = ["interval_text", "results_table", "scoreboard_table"]


def interval_text(interval: IntervalDTO) -> str:
    """Write an estimate with its interval: ``1.23 [1.10, 1.36]``."""
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def scoreboard_table(scoreboard: Scoreboard) -> Table:
    """Lay the scoreboard of a run out: mean return with interval, final minus policy, indicators."""
    against = {comparison.baseline: comparison for comparison in scoreboard.comparisons}
    rows: dict[str, Sequence[str]] = {
        "mean return": [f"{score.mean.estimate:.3f}" for score in scoreboard.scores],
        f"  {scoreboard.scores[0].mean.confidence:.0%} interval": [_ends(score.mean) for score in scoreboard.scores],
        "interquartile mean": [f"{score.iqm.estimate:.3f}" for score in scoreboard.scores],
    }
    if against:
        paired = [against.get(score.label) for score in scoreboard.scores]
        rows["final minus policy"] = [f"{pair.difference.estimate:.3f}" if pair else "" for pair in paired]
        rows["  paired interval"] = [_ends(pair.difference) if pair else "" for pair in paired]
    rows |= _kpi_rows([score.kpis for score in scoreboard.scores])
    title = f"{scoreboard.simulation}, {scoreboard.episodes} episodes each on the same seeds"
    return _transposed([score.label for score in scoreboard.scores], rows, title=title)


def results_table(results: Sequence[EvaluationResult]) -> Table:
    """Lay evaluations out: mean return and IQM with intervals, length, indicators."""
    first = results[0]
    level = f"  {first.summary.mean.confidence:.0%} interval"
    rows: dict[str, Sequence[str]] = {
        "mean return": [f"{result.summary.mean.estimate:.3f}" for result in results],
        level: [_ends(result.summary.mean) for result in results],
        "interquartile mean": [f"{result.summary.iqm.estimate:.3f}" for result in results],
        f"{level} ": [_ends(result.summary.iqm) for result in results],
        "length": [f"{math.fsum(result.lengths) / len(result.lengths):.0f}" for result in results],
    }
    rows |= _kpi_rows([{name: _mean(column) for name, column in result.kpis.items()} for result in results])
    title = f"{first.simulation}, {len(first.returns)} episodes each on the same seeds"
    return _transposed([result.label for result in results], rows, title=title)


def _transposed(labels: Sequence[str], rows: Mapping[str, Sequence[str]], *, title: str) -> Table:
    table = Table("", *labels, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _kpi_rows(kpis: Sequence[Mapping[str, float]]) -> dict[str, Sequence[str]]:
    names = dict.fromkeys(name for column in kpis for name in column)
    return {name: [_number(column.get(name, math.nan)) for column in kpis] for name in names}


def _ends(interval: IntervalDTO) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _mean(column: Sequence[float]) -> float:
    known = [value for value in column if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"

"""Tables that several commands print: returns with a policy a row, indicators with a policy a column.

Both fit a terminal of 80 columns for the four policies of a training run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table

from townlet_training_core.dto.evaluation import EvaluationResult, IntervalDTO
from townlet_training_core.dto.scoreboard import Scoreboard

__all__ = ["interval_text", "results_table", "scoreboard_table"]


def interval_text(interval: IntervalDTO) -> str:
    """Write an estimate with its interval: ``1.23 [1.10, 1.36]``."""
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def scoreboard_table(scoreboard: Scoreboard) -> Group:
    """Lay the scoreboard of a run out: mean return, the final policy against each other one, indicators."""
    against = {comparison.baseline: comparison.difference for comparison in scoreboard.comparisons}
    level = f"{scoreboard.scores[0].mean.confidence:.0%}"
    title = f"{scoreboard.simulation}, {scoreboard.episodes} episodes each on the same seeds"
    table = Table("policy", f"mean return [{level} interval]", "final minus policy, paired", title=title)
    for score in scoreboard.scores:
        difference = against.get(score.label)
        table.add_row(score.label, interval_text(score.mean), interval_text(difference) if difference else "")
    return Group(table, *_indicators({score.label: score.kpis for score in scoreboard.scores}))


def results_table(results: Sequence[EvaluationResult]) -> Group:
    """Lay evaluations out: mean and interquartile mean of the returns, indicators."""
    first = results[0]
    level = f"{first.summary.mean.confidence:.0%}"
    title = f"{first.simulation}, {len(first.returns)} episodes each on the same seeds"
    table = Table("policy", f"mean return [{level} interval]", "interquartile mean [interval]", title=title)
    for result in results:
        table.add_row(result.label, interval_text(result.summary.mean), interval_text(result.summary.iqm))
    kpis = {
        result.label: {
            "length": _mean(result.lengths),
            **{name: _mean(column) for name, column in result.kpis.items()},
        }
        for result in results
    }
    return Group(table, *_indicators(kpis))


def _indicators(kpis: Mapping[str, Mapping[str, float]]) -> list[Table]:
    names = list(dict.fromkeys(name for column in kpis.values() for name in column))
    if not names:
        return []
    table = Table("mean per episode", *kpis)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in names:
        table.add_row(name, *(_number(column.get(name, math.nan)) for column in kpis.values()))
    return [table]


def _mean(column: Sequence[float]) -> float:
    known = [value for value in column if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"

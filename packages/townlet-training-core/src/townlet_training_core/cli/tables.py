"""Tables that several commands print."""

from __future__ import annotations

from rich.table import Table

from townlet_training_core.dto.evaluation import IntervalDTO
from townlet_training_core.dto.scoreboard import Scoreboard

__all__ = ["interval_text", "scoreboard_table"]


def interval_text(interval: IntervalDTO) -> str:
    """Write an estimate with its interval: ``1.23 [1.10, 1.36]``."""
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def scoreboard_table(scoreboard: Scoreboard) -> Table:
    """Lay the scoreboard of a run out: policy, mean return, interval, indicators, final minus policy."""
    level = f"{scoreboard.scores[0].mean.confidence:.0%}"
    kpis = list(dict.fromkeys(name for score in scoreboard.scores for name in score.kpis))
    table = Table(
        "policy",
        f"mean return [{level} interval]",
        "final minus policy (paired)",
        *kpis,
        title=f"{scoreboard.simulation}, {scoreboard.episodes} episodes each on the same seeds",
    )
    against = {comparison.baseline: comparison for comparison in scoreboard.comparisons}
    for score in scoreboard.scores:
        paired = against.get(score.label)
        table.add_row(
            score.label,
            interval_text(score.mean),
            interval_text(paired.difference) if paired else "",
            *(f"{score.kpis[name]:.3g}" if name in score.kpis else "" for name in kpis),
        )
    return table

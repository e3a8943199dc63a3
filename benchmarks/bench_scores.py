"""Scores of the scripted policies in the default town, and how often each event happens under them.

Run: ``python benchmarks/bench_scores.py``; writes ``benchmarks/results/scores.json``.
"""

from __future__ import annotations

import numpy as np
from _results import Report

from townlet_sim import make_simulation
from townlet_sim.scores import normalised, reference_ceiling
from townlet_sim.spaces import SCRIPTED_POLICIES

TOWNS = 100
FIRST_SEED = 0


def main() -> None:
    report = Report("scores", threads=1)
    welfare: dict[str, float] = {}
    town = make_simulation(TOWNS, {})
    rows = town.allocate()
    kinds = town.spec.event_kinds
    for policy in SCRIPTED_POLICIES:
        town.reset(seed=FIRST_SEED, out=rows)
        counts = np.zeros(len(kinds), np.int64)
        for _ in range(town.config.horizon):
            town.step(town.scripted_actions(policy), rows)
            counts += np.bincount(town.events["kind"], minlength=len(kinds))
        kpis = town.kpis()
        welfare[policy] = float(kpis["welfare"].mean())
        note = ", ".join(f"{kpi} {values.mean():.3f}" for kpi, values in kpis.items())
        report.add(f"{policy}: welfare", value=welfare[policy], unit="return per day", note=note)
        steps = TOWNS * town.config.agents * town.config.horizon
        for kind, count in zip(kinds, counts.tolist(), strict=True):
            report.add(f"{policy}: {kind}", value=1000 * count / steps, unit="per 1,000 agent-steps")
    ceiling = reference_ceiling(town.config)
    report.add("reference ceiling", value=ceiling, unit="return per day")
    for name, value in welfare.items():
        score = normalised(value, random=welfare["random"], ceiling=ceiling)
        report.add(f"{name}: normalised score", value=score, unit="random 0, ceiling 1")
    report.write()


if __name__ == "__main__":
    main()

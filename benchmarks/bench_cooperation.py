"""Does cooperation pay? Towns of hand-written policies, in the default town and in a poor one.

``selfish`` is the scripted expert, but takes over shifts of late colleagues; ``expert`` ignores its neighbours;
``polite`` gives way to the needier and chats. ``helper`` gives way, shares what it has cooked, covers late colleagues,
chats, and spends its idle time at a table, where it meets the others; ``silent`` is a helper that chats only where the
expert would, so that what is gained is gained by food, shifts and meeting.

In the poor town agents start hungry and with little money, and who is not at work soon after the start is absent. The
bounds say that helpers must beat the selfish in both: the least difference in welfare (mean return of a slot per day)
that the 95 % interval of the paired differences over towns admits must be above 0.

Run: ``python benchmarks/bench_cooperation.py``; writes ``benchmarks/results/cooperation.json``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _results import Report
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim import make_simulation
from townlet_sim.engine import TownBatch

TOWNS = 192
FIRST_SEED = 900
DEFAULT: dict[str, Any] = {"episode_days": 2}
POOR: dict[str, Any] = {
    "episode_days": 2,
    "economy": {"start_wallet": 0.5},
    "needs": {"initial_low": 0.1, "initial_high": 0.9},
    "employment": {"absent_cutoff": 10},
}
POLICIES = ("selfish", "expert", "polite", "silent", "helper")


def silent(town: TownBatch) -> NDArray[np.int64]:
    """Helpers that talk no more than the expert does."""
    actions, expert = town.scripted_actions("helper"), town.expert_actions()
    return np.where(actions == c.CHAT, expert, actions).astype(np.int64)


def play(policy: str, options: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Play one episode in every town and return its indicators."""
    town = make_simulation(TOWNS, options)
    rows = town.allocate()
    town.reset(seed=FIRST_SEED, out=rows)
    for _ in range(town.config.horizon):
        actions = silent(town) if policy == "silent" else town.scripted_actions(policy)  # type: ignore[arg-type]
        town.step(actions, rows)
    return town.kpis()


def interval(values: NDArray[Any]) -> float:
    """Half the width of the 95 % interval of the mean."""
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def main() -> None:
    report = Report("cooperation", threads=1)
    for label, options in (("default town", DEFAULT), ("poor town", POOR)):
        found = {policy: play(policy, options) for policy in POLICIES}
        for policy, kpis in found.items():
            note = (
                f"+- {interval(kpis['welfare']):.2f}; Gini {kpis['gini'].mean():.3f}, chats {kpis['chats'].mean():.1f} "
                f"and conflicts {kpis['conflicts'].mean():.2f} per agent-day, exits {kpis['exits'].mean():.2f} per town"
            )
            report.add(
                f"{label}, {policy}: welfare", value=float(kpis["welfare"].mean()), unit="return per day", note=note
            )
        for policy in ("polite", "silent", "helper"):
            gain = found[policy]["welfare"] - found["selfish"]["welfare"]
            report.add(
                f"{label}, {policy} over selfish: least gain in welfare",
                value=float(gain.mean()) - interval(gain),
                unit="return per day",
                bound=0.0 if policy == "helper" else None,
                note=f"mean gain {gain.mean():.2f} +- {interval(gain):.2f} over {TOWNS} towns",
            )
    report.write()


if __name__ == "__main__":
    main()

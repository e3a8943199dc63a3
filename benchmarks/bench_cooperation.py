"""Does cooperation pay? Towns of hand-written policies, in the default town and in a poor one.

``selfish`` is the scripted expert, but takes over shifts of late colleagues; ``expert`` ignores its neighbours;
``helper`` gives way to the needier, shares what it has cooked, covers late colleagues and chats. ``gather`` is a town
of helpers with a convention: who has nothing to do goes to the cafe, where it meets the others.

In the poor town agents start hungry and with little money, and who is not at work soon after the start is absent. The
bound says that helpers must beat the selfish there: the least difference in welfare (mean return of a slot per day)
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
from townlet_sim.engine import StepRows, TownBatch
from townlet_sim.spaces import feature_names

TOWNS = 192
FIRST_SEED = 900
DEFAULT: dict[str, Any] = {"episode_days": 2}
POOR: dict[str, Any] = {
    "episode_days": 2,
    "economy": {"start_wallet": 0.5},
    "needs": {"initial_low": 0.1, "initial_high": 0.9},
    "employment": {"absent_cutoff": 10},
}
COLUMN = {name: number for number, name in enumerate(feature_names())}


def gather(town: TownBatch, rows: StepRows) -> NDArray[np.int64]:
    """Helpers that meet at the cafe when they have nothing to do."""
    actions = town.scripted_actions("helper")
    seen = rows.observations["features"]
    busy = rows.action_mask[:, c.LEAVE]
    idle = (seen[:, COLUMN["errand_idle"]] == 1) & ~busy & (actions <= c.WEST)
    dx, dy = seen[:, COLUMN["fridge_dx"]], seen[:, COLUMN["fridge_dy"]]
    step = np.select([dy < 0, dy > 0, dx > 0, dx < 0], [c.NORTH, c.SOUTH, c.EAST, c.WEST], c.STAY)
    step[seen[:, COLUMN["fridge_dist"]] * 64 <= 3] = c.STAY
    step[~rows.action_mask[np.arange(len(step)), step]] = c.STAY
    return np.where(idle, step, actions).astype(np.int64)


def play(policy: str, options: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Play one episode in every town and return its indicators."""
    town = make_simulation(TOWNS, options)
    rows = town.allocate()
    town.reset(seed=FIRST_SEED, out=rows)
    for _ in range(town.config.horizon):
        actions = gather(town, rows) if policy == "gather" else town.scripted_actions(policy)  # type: ignore[arg-type]
        town.step(actions, rows)
    return town.kpis()


def interval(values: NDArray[Any]) -> float:
    """Half the width of the 95 % interval of the mean."""
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def main() -> None:
    report = Report("cooperation", threads=1)
    for label, options in (("default town", DEFAULT), ("poor town", POOR)):
        found = {policy: play(policy, options) for policy in ("selfish", "expert", "helper", "gather")}
        for policy, kpis in found.items():
            note = (
                f"+- {interval(kpis['welfare']):.2f}; Gini {kpis['gini'].mean():.3f}, chats {kpis['chats'].mean():.1f} "
                f"and conflicts {kpis['conflicts'].mean():.2f} per agent-day, exits {kpis['exits'].mean():.2f} per town"
            )
            report.add(
                f"{label}, {policy}: welfare", value=float(kpis["welfare"].mean()), unit="return per day", note=note
            )
        for policy in ("helper", "gather"):
            gain = found[policy]["welfare"] - found["selfish"]["welfare"]
            report.add(
                f"{label}, {policy} over selfish: least gain in welfare",
                value=float(gain.mean()) - interval(gain),
                unit="return per day",
                bound=0.0 if label == "poor town" else None,
                note=f"mean gain {gain.mean():.2f} +- {interval(gain):.2f} over {TOWNS} towns",
            )
    report.write()


if __name__ == "__main__":
    main()

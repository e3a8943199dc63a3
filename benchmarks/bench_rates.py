"""How often things happen in the town: events per 1,000 agent-steps under random, greedy and expert play.

No speed is measured here; the numbers tell whether a world is worth learning in, and they are the same on every
machine. They belong to one rules hash, which stands in the notes.
"""

from __future__ import annotations

import argparse
from collections import Counter

from _results import Report

import townlet_sim
from townlet_sim.spaces import EVENT_KINDS, ScriptedPolicy

POLICIES: tuple[ScriptedPolicy, ...] = ("random", "greedy", "expert")


def count(policy: ScriptedPolicy, *, towns: int, ticks: int) -> tuple[Counter[str], str]:
    """Play towns of the default options, seeds 0 and up; return events by kind, and the rules hash."""
    batch = townlet_sim.make_simulation(towns, {})
    rows = batch.allocate()
    batch.reset(seed=0, out=rows)
    found: Counter[str] = Counter()
    for _ in range(ticks):
        batch.step(batch.scripted_actions(policy), rows)
        found.update(EVENT_KINDS[kind].name for kind in batch.events["kind"].tolist())
    batch.close()
    return found, batch.spec.rules_hash


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--towns", type=int, default=25)
    parser.add_argument("--ticks", type=int, default=4000)
    arguments = parser.parse_args()
    report = Report("rates", threads=1)
    for policy in POLICIES:
        found, rules = count(policy, towns=arguments.towns, ticks=arguments.ticks)
        steps = arguments.towns * 8 * arguments.ticks
        note = f"{arguments.towns} default towns, {arguments.ticks} ticks each, rules {rules}"
        for kind in EVENT_KINDS:
            value = 1000.0 * found[kind.name] / steps
            report.add(
                f"{policy}.{kind.name}",
                value=value,
                unit="per 1,000 agent-steps",
                note=note if kind is EVENT_KINDS[0] else None,
            )
    report.write()


if __name__ == "__main__":
    main()

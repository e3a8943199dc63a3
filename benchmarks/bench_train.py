"""Training beside its peers: PPO's update, CartPole, the town, behaviour cloning, advantages.

Run: ``python benchmarks/bench_train.py [--only update,cartpole,...] [--repeats N] [--quick]``; every section prints a
table and writes ``benchmarks/results/train_<section>.json``. Contestants are processes of their own on the same
problem (``peers/problem.py``), they take turns, and every number is a median. Peers with dependencies of their own are
made by ``make peers``; one that is not there is skipped, which is said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _contest import NAMES, OURS, Contestant, Series, alternated, choose, installed, turn
from _results import Report

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import problem as p

THREADS = 2
TOWN = {"towns": 32, "steps": 64}
CARTPOLE_ITERATIONS, CARTPOLE_SEEDS = 98, 5


class Bench:
    """What all sections share."""

    def __init__(self, report: Report, *, repeats: int, quick: bool, compare: bool, peers: Sequence[str]) -> None:
        self.report, self.repeats, self.quick, self._compare, self._peers = report, repeats, quick, compare, peers

    @contextmanager
    def contestants(
        self, *names: str, job: str, options: Mapping[str, Any], one_thread: bool = False
    ) -> Iterator[list[Contestant]]:
        """Start whoever is there, and end them."""
        started = []
        invited = [name for name in names if not self._peers or name in self._peers]
        for name in installed((OURS, *invited)):
            started.append(choose(name, job, options, threads=THREADS, compare=self._compare, one_thread=one_thread))
        for contestant in started:
            self.report.peers[contestant.label] = {
                **contestant.versions,
                "threads": str(contestant.threads),
                "idle threads": contestant.waiting or "default",
            }
        try:
            yield started
        finally:
            for contestant in started:
                contestant.close()

    def compare(
        self,
        name: str,
        ours: Series,
        others: Mapping[str, Series],
        bounds: Mapping[str, float | None],
        *,
        amount: float,
        unit: str,
        note: str,
    ) -> None:
        """Add an entry for each peer: ``amount`` per second of ours beside theirs."""
        for other, bound in bounds.items():
            if other in others:
                self.report.add(
                    f"{name} against {NAMES[other]}",
                    value=amount / ours.seconds,
                    unit=unit,
                    peer=others[other].contestant.titled,
                    peer_value=amount / others[other].seconds,
                    bound=bound,
                    note=note,
                )


def update(bench: Bench) -> None:
    """PPO's update alone."""
    amount = p.STEPS * p.SLOTS * p.EPOCHS
    bounds: dict[str, float | None] = {"cleanrl": 1.4, "sb3": 1.7, "torchrl": 2.6, "tianshou": 2.6}
    with bench.contestants(*bounds, job="update", options={}) as everyone:
        ours, cleanrl = everyone[0], [one for one in everyone if one.name == "cleanrl"]
        found = alternated(everyone, "update", {}, repeats=bench.repeats)
        note = "16 x 256 transitions, 4 passes in mini-batches of 256, advantages included; rows count once a pass"
        bench.compare("update.fp32", found[OURS], found, bounds, amount=amount, unit="rows/s", note=note)
        same = "the rounds of update.fp32: the default path of this network needs no compiler"
        bench.compare(
            "update.without_compiler", found[OURS], found, {"cleanrl": 1.15}, amount=amount, unit="rows/s", note=same
        )
        limit = alternated([ours], "products", {}, repeats=bench.repeats)[OURS]
        bench.report.add(
            "update.share_of_matrix_products",
            value=limit.seconds / found[OURS].seconds,
            unit="share",
            bound=0.5,
            note=f"the update's matrix products alone, written in place: {amount / limit.seconds:,.0f} rows/s",
        )
        variants: dict[str, tuple[dict[str, bool], float | None, str]] = {
            "update.bf16": ({"bf16": True}, 1.7, "compute.bf16"),
            "update.autograd": ({"handwritten": False}, None, "compute.handwritten off, as for networks with memory"),
        }
        for name, (compute, bound, note) in variants.items():
            series = {OURS: Series(ours), **{one.name: Series(one) for one in cleanrl}}
            for number in range(bench.repeats + 1):
                told = ours.ask("update", compute)
                if number and told:
                    series[OURS].rounds.append(told)
                    turn(cleanrl, "update", {}, series)
            if series[OURS].rounds and cleanrl:
                bench.compare(name, series[OURS], series, {"cleanrl": bound}, amount=amount, unit="rows/s", note=note)


def cartpole(bench: Bench) -> None:
    """CartPole from scratch: steps per second, and what was learnt."""
    iterations = 4 if bench.quick else CARTPOLE_ITERATIONS
    steps = iterations * p.CARTPOLE_ENVS * p.CARTPOLE_STEPS
    names = ("cleanrl", "sb3", "torchrl", "tianshou", "skrl", "rllib")
    trial = {"seed": 99, "iterations": 4}
    with bench.contestants(*names, job="cartpole", options=trial, one_thread=True) as everyone:
        found = {one.name: Series(one) for one in everyone}
        for seed in range(min(CARTPOLE_SEEDS, bench.repeats)):
            turn(everyone, "cartpole", {"seed": seed, "iterations": iterations}, found)
        found = {name: series for name, series in found.items() if series.rounds}
        others = sorted((name for name in found if name != OURS), key=lambda name: found[name].seconds)
        bounds = dict.fromkeys(others, 2.5)
        note = f"{steps:,} steps, 8 environments x 128 steps, 4 passes, 2 x 64 units; all of gymnasium.make, one by one"
        note += "; each with as many threads as suit it"
        bench.compare("cartpole", found[OURS], found, bounds, amount=steps, unit="steps/s", note=note)
        for name in others:
            returns = {who: [row["return"] for row in found[who].rounds] for who in (OURS, name)}
            bench.report.add(
                f"cartpole.return against {NAMES[name]}",
                value=sum(returns[OURS]) / len(returns[OURS]),
                unit="return",
                peer=found[name].contestant.titled,
                peer_value=sum(returns[name]) / len(returns[name]),
                bound=1.0,
                note=f"mean of 20 greedy episodes after each of {len(returns[OURS])} seeds: ours "
                f"{', '.join(f'{one:.1f}' for one in returns[OURS])}; theirs "
                f"{', '.join(f'{one:.1f}' for one in returns[name])}",
            )


def town(bench: Bench) -> None:
    """Measure the town: acting beside the bare forward pass, and whole iterations beside a PettingZoo loop."""
    options = {**TOWN, "iterations": 1 if bench.quick else 3, "batch": p.MINI_BATCH}
    with bench.contestants("cleanrl", job="town", options={**TOWN, "iterations": 1, "batch": p.MINI_BATCH}) as everyone:
        ours = everyone[0]
        alive, bare = ({**TOWN, "bare": flag} for flag in (False, True))
        rounds: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * bench.repeats + 1):
            for flag, asked in ((False, alive), (True, bare)):
                told = ours.ask("acting", asked)
                if number and told:
                    rounds[flag].append(told["seconds"])
        rows = TOWN["towns"] * TOWN["steps"] * 8
        seconds = {flag: sorted(found)[len(found) // 2] for flag, found in rounds.items()}
        bench.report.add(
            "town.rollout",
            value=rows / seconds[False],
            unit="agent-steps/s",
            peer="forward pass alone",
            peer_value=rows / seconds[True],
            bound=0.6,
            note="32 towns of eight, hybrid observations; the same 256 rows a call, without gradients",
        )
        found = alternated(everyone, "town", options, repeats=bench.repeats)
        amount = rows * options["iterations"]
        note = f"{options['iterations']} iterations of {rows:,} transitions, 4 passes in mini-batches of 256"
        bench.compare("town", found[OURS], found, {"cleanrl": 1.5}, amount=amount, unit="agent-steps/s", note=note)
        bench.report.add(
            "town.iteration_over_update",
            value=found[OURS].seconds,
            unit="s",
            peer="the updates alone",
            peer_value=found[OURS].median("updates"),
            bound=1.25,
            better="lower",
            note=f"run directory and checkpoints included; captures {found[OURS].median('captures'):.2f} s",
        )


def cloning(bench: Bench) -> None:
    """Behaviour cloning."""
    bounds = {"cleanrl": 1.4, "imitation": 2.3}
    with bench.contestants(*bounds, job="cloning", options={}) as everyone:
        found = alternated(everyone, "cloning", {}, repeats=bench.repeats)
        note = f"{p.CLONING_ROWS:,} rows in shuffled mini-batches of {p.CLONING_BATCH}, cross-entropy alone"
        amount = float(p.CLONING_ROWS)
        bench.compare("cloning.fp32", found[OURS], found, bounds, amount=amount, unit="rows/s", note=note)


def advantages(bench: Bench) -> None:
    """Generalised advantage estimates on the CPU."""
    with bench.contestants("cleanrl", job="advantages", options={}) as everyone:
        _advantages(bench, everyone, "cleanrl", [{}])
    if installed(("torchrl",)):
        with bench.contestants("torchrl", job="advantages", options={"vectorised": False}) as everyone:
            if len(everyone) > 1:
                _advantages(bench, everyone, "torchrl", [{"vectorised": False}, {"vectorised": True}])


def _advantages(bench: Bench, everyone: list[Contestant], other: str, ways: list[dict[str, bool]]) -> None:
    """Beside the faster of the peer's ways."""
    if len(everyone) < 2:
        return
    ours, peer = everyone
    series = {"ours": Series(ours)}
    theirs = [Series(peer) for _ in ways]
    for number in range(bench.repeats + 1):
        told = ours.ask("advantages", {})
        answers = [peer.ask("advantages", way) for way in ways]
        if number:
            series["ours"].rounds.append(told)
            for row, answer in zip(theirs, answers, strict=True):
                row.rounds.append(answer)
    if peer.failed:
        return
    best = min(theirs, key=lambda row: row.seconds)
    bench.report.add(
        f"advantages against {NAMES[other]}",
        value=1000 * series["ours"].seconds,
        unit="ms",
        peer=peer.titled,
        peer_value=1000 * best.seconds,
        bound=1 / 5,
        better="lower",
        note="256 trajectories of 2,048 steps; ours tells truncation from termination; TorchRL's faster way of two",
    )


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "update": update,
    "cloning": cloning,
    "advantages": advantages,
    "town": town,
    "cartpole": cartpole,
}


def main() -> None:
    """Measure; every section writes a file of its own, so that one can be measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    parser.add_argument("--peers", default="", help="peers to invite, comma-separated; their names join the file's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--passive", action="store_true", help="do not try which way of waiting suits a peer best")
    parser.add_argument("--quick", action="store_true", help="short runs; prints without writing")
    arguments = parser.parse_args()
    failed, peers = False, [name for name in arguments.peers.split(",") if name]
    for name in arguments.only.split(","):
        report = Report("_".join(["train", name, *peers]), threads=THREADS)
        bench = Bench(
            report, repeats=arguments.repeats, quick=arguments.quick, compare=not arguments.passive, peers=peers
        )
        try:
            SECTIONS[name](bench)
        except RuntimeError as error:  # ours does not do its job: the rest is measured all the same
            failed = True
            print(f"train: {name}: {error}", flush=True)
            continue
        report.show()
        if not arguments.quick:
            report.write()
    sys.exit(int(failed))


if __name__ == "__main__":
    main()

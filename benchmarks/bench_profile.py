"""Where the time of a PPO iteration goes, beside what the machine could do; and what `townlet doctor --tune` finds.

One run of the packaged default (town, network, rollout) is timed from outside: the town's steps, the policy's forward
passes, advantages and the update; the rest is what is left. Writes ``results/profile.json`` and ``results/tune.json``.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the torch package does, before torch is loaded

import numpy as np
import torch
from _results import Report, alternate, median

import townlet_training_torch.sources as sources
from townlet_training_core.cli.tune import choose, cores, override_line, tune
from townlet_training_core.config.loader import load_config
from townlet_training_core.orchestrator import TrainingOrchestrator
from townlet_training_core.registry import make_simulation
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_torch.networks import PolicyValueNetwork, build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.ppo import PPOStrategy
from townlet_training_torch.seeding import torch_generator

THREADS = cores()
ITERATIONS = 6  # the first warms up
CONFIG = load_config(overrides=[f"simulation.threads={THREADS}", f"compute.threads={THREADS}", "checkpoint.every=100"])


class Clock:
    """Seconds spent in named parts."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, timed as ``part``."""

        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[part] += time.perf_counter() - begun

        return wrapped


class Iterations:
    """Keeps what a run logs, and how far the clock stood at each iteration."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.records = clock, list[tuple[dict[str, float], dict[str, Any]]]()

    def log(self, kind: str, record: Any) -> None:
        """Note an iteration."""
        if kind == "ppo.iteration":
            self.records.append((dict(self.clock.seconds), dict(record)))

    def close(self) -> None:
        """Keep everything."""


def network(config: Any = CONFIG) -> tuple[PolicyValueNetwork, Any]:
    """Make the default network, and the town that it is made for."""
    simulation = make_simulation(config.simulation)
    made = build_network(describe(simulation.spec, config.network), generator=torch_generator(0, "bench"))
    return made, simulation


def parts_of_an_iteration() -> tuple[dict[str, float], float]:
    """Return the median seconds of each part of an iteration, and the transitions of an iteration."""
    clock = Clock()
    kept = Iterations(clock)
    patches: list[tuple[Any, str, str]] = [
        (TorchPolicy, "act", "inference"),
        (TorchPolicy, "values", "inference"),
        (sources, "estimate_advantages", "advantages"),
        (PPOStrategy, "_update", "update"),
    ]
    before = [getattr(owner, name) for owner, name, _ in patches]
    for (owner, name, part), function in zip(patches, before, strict=True):
        setattr(owner, name, clock.timed(part, function))
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = TrainingOrchestrator(CONFIG, runs_dir=Path(folder), telemetry=lambda _run, _config: kept)
            make = trainer.services.make_simulation

            def timed_town(**options: Any) -> Any:
                made: Any = make(**options)
                made.step = clock.timed("town", made.step)
                return made

            object.__setattr__(trainer.services, "make_simulation", timed_town)
            trainer.run("ppo", iterations=ITERATIONS)
    finally:
        for (owner, name, _), function in zip(patches, before, strict=True):
            setattr(owner, name, function)
    found: defaultdict[str, list[float]] = defaultdict(list)
    for (earlier, _), (later, record) in zip(kept.records, kept.records[1:], strict=False):
        for part in ("town", "inference", "advantages", "update"):
            found[part].append(later[part] - earlier[part])
        found["total"].append(float(record["epoch_duration_sec"]))
    seconds = {part: statistics.median(values) for part, values in found.items()}
    return seconds, float(kept.records[-1][1]["transitions"])


def products(net: PolicyValueNetwork) -> tuple[float, float]:
    """Return the floating point operations in matrix products of one row: of a forward pass, of a training step.

    A training step also multiplies for the gradient of every weight, and for that of every input that is not data.
    """
    weights = {name: p.numel() for name, p in net.named_parameters() if p.ndim == 2}
    first = sum(count for name, count in weights.items() if "encoder" in name)
    everything = sum(weights.values())
    return 2.0 * everything, 2.0 * (3 * everything - first)


def limits(rows: int, wide: int) -> tuple[float, float]:
    """Return GFLOP/s of matrix products of an update's shape, and GB/s of copying in memory, read and written."""
    left, right = torch.randn(rows, wide), torch.randn(wide, 256)
    out = torch.empty(rows, 256)
    seconds = median(lambda: _seconds(lambda: torch.mm(left, right, out=out), 20))
    source = np.ones(1 << 25, np.float32)
    target = np.empty_like(source)
    copied = median(lambda: _seconds(lambda: np.copyto(target, source), 2))
    return 2e-9 * rows * wide * 256 / seconds, 2e-9 * source.nbytes / copied


def _seconds(job: Callable[[], object], times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        job()
    return (time.perf_counter() - begun) / times


def bench_iteration(report: Report) -> None:
    """Measure the parts of an iteration and the machine's limits."""
    seconds, transitions = parts_of_an_iteration()
    total = seconds.pop("total")
    net, simulation = network()
    simulation.close()
    report.add(
        "iteration",
        value=total,
        unit="s",
        note=f"{transitions:,.0f} agent-steps, {CONFIG.ppo.num_epochs} passes: {transitions / total:,.0f} a second",
    )
    for part, taken in {**seconds, "rest": total - sum(seconds.values())}.items():
        report.add(f"part.{part}", value=100 * taken / total, unit="% of an iteration", note=f"{1000 * taken:.1f} ms")
    multiplied, copied = limits(CONFIG.ppo.mini_batch_size, 484)
    forward, step = products(net)
    shapes = {item: net.description.inputs[item].shape for item in net.description.inputs}
    report.add(
        "inference.matrix_products",
        value=1e-9 * forward * transitions / seconds["inference"],
        unit="GFLOP/s",
        peer="torch.mm of a mini-batch",
        peer_value=multiplied,
        note=f"{forward / 1e3:,.0f} kFLOP a row; inputs {shapes}",
    )
    report.add(
        "update.matrix_products",
        value=1e-9 * step * transitions * CONFIG.ppo.num_epochs / seconds["update"],
        unit="GFLOP/s",
        peer="torch.mm of a mini-batch",
        peer_value=multiplied,
        note=f"{step / 1e3:,.0f} kFLOP a row",
    )
    spec = net.description.inputs.values()
    written = sum(int(np.prod(item.shape)) * np.dtype(item.dtype).itemsize for item in spec)
    report.add(
        "town.written",
        value=1e-9 * written * transitions / seconds["town"],
        unit="GB/s",
        peer="copying in memory",
        peer_value=copied,
        note=f"{written} bytes of observations a transition",
    )


def bench_rollout(report: Report) -> None:
    """Measure rollouts with the acting policy beside the bare forward pass at the same batch."""
    for towns in (32, 128, 256):
        config = CONFIG.model_copy(update={"simulation": CONFIG.simulation.model_copy(update={"num_envs": towns})})
        net, simulation = network(config)
        steps = 2048 // towns
        collector = RolloutCollector(simulation, TorchPolicy(net), steps=steps, seed=0)
        seen = collector.buffer.views[0]
        names = tuple(net.description.inputs)

        def bare(net: Any = net, seen: Any = seen, names: Any = names, steps: int = steps) -> None:
            with torch.inference_mode():
                for _ in range(steps):
                    net({name: torch.from_numpy(seen[name]) for name in names})

        ours, theirs = alternate([collector.collect, bare], repeats=7)
        simulation.close()
        rows = steps * towns * simulation.spec.agents_per_env
        report.add(
            f"rollout.{towns}_towns",
            value=rows / ours,
            unit="agent-steps/s",
            peer="the network's forward pass alone",
            peer_value=rows / theirs,
            bound=0.6,
        )


def bench_tune() -> None:
    """Write what ``townlet doctor --tune`` finds here."""
    report = Report("tune", threads=THREADS)
    results = tune(CONFIG, agents=8, on_each=lambda _: None)
    best = choose(results)
    for result in results:
        report.add(
            f"{result.num_envs}_towns.{result.rollout_steps}_steps.{result.threads}_threads",
            value=result.trained,
            unit="agent-steps/s",
            note=f"rollout {result.captured:,.0f}/s, one pass {result.updated:,.0f}/s"
            + (f"; chosen: {override_line(best)}" if result is best else ""),
        )
    report.write()


def main() -> None:
    """Measure everything."""
    torch.set_num_threads(THREADS)
    report = Report("profile", threads=THREADS)
    bench_iteration(report)
    bench_rollout(report)
    report.write()
    bench_tune()


if __name__ == "__main__":
    main()

"""Which B, T and threads suit this machine: short PPO runs of the configured simulation and network, measured."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.orchestrator import TrainingOrchestrator
from townlet_training_core.runs import RunDirectory

__all__ = ["Measured", "candidates", "choose", "cores", "measure", "override_line", "tune"]

_ENVS, _STEPS = (8, 32, 128), (32, 128)
_LARGEST = 65_536  # transitions of a rollout that is tried: a try takes a second or two
_ITERATIONS = 3  # the first of them warms up
_WITHIN = 0.97  # of the best is as good as the best


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one choice of B, T and threads reached, in agent-steps per second.

    Attributes
    ----------
    num_envs, rollout_steps, threads:
        B, T, and the threads of simulation and learner.
    captured:
        Of the rollout alone, the acting policy included.
    updated:
        Of one pass of the update alone.
    trained:
        Of both, with the configured number of passes.
    """

    num_envs: int
    rollout_steps: int
    threads: int
    captured: float
    updated: float
    trained: float


class _Records:
    """Keeps what a run logs."""

    def __init__(self) -> None:
        self.iterations: list[Mapping[str, Any]] = []

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        if kind == "ppo.iteration":
            self.iterations.append(record)

    def close(self) -> None:
        """Keep everything."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def candidates(agents: int, *, available: int) -> Iterator[tuple[int, int, int]]:
    """Yield the choices (B, T, threads) that are tried.

    Parameters
    ----------
    agents:
        N, agents of one environment.
    available:
        Cores.
    """
    threads = sorted({1, max(1, available // 2), available})
    for count, steps in itertools.product(_ENVS, _STEPS):
        if count * agents * steps <= _LARGEST:
            yield from ((count, steps, number) for number in threads)


def measure(config: TrainingConfig, *, num_envs: int, rollout_steps: int, threads: int) -> Measured:
    """Train a few iterations with one choice; nothing is kept on disk.

    Raises
    ------
    TownletError
        Whatever keeps the configuration from being trained (torch is not installed, unknown options, ...).
    """
    passes = config.ppo.num_epochs
    changed = config.model_copy(
        update={
            "simulation": config.simulation.model_copy(update={"num_envs": num_envs, "threads": threads}),
            "compute": config.compute.model_copy(update={"threads": threads}),
            "ppo": config.ppo.model_copy(
                update={"rollout_steps": rollout_steps, "num_epochs": 1, "value_warmup_iterations": 0}
            ),
            "evaluation": config.evaluation.model_copy(update={"every": 0}),
            "checkpoint": config.checkpoint.model_copy(update={"every": 10 * _ITERATIONS}),
        }
    )
    records = _Records()

    def keep(_run: RunDirectory, _config: TrainingConfig) -> _Records:
        return records

    with tempfile.TemporaryDirectory(prefix="townlet-tune-") as folder:
        TrainingOrchestrator(changed, runs_dir=Path(folder), telemetry=keep).run("ppo", iterations=_ITERATIONS)
    settled = records.iterations[1:]
    rows = statistics.median(float(record["transitions"]) for record in settled)
    capture, update = (
        statistics.median(float(record["health"][name]) for record in settled) for name in ("capture_sec", "update_sec")
    )
    return Measured(
        num_envs=num_envs,
        rollout_steps=rollout_steps,
        threads=threads,
        captured=rows / capture,
        updated=rows / update,
        trained=rows / (capture + passes * update),
    )


def tune(
    config: TrainingConfig,
    *,
    agents: int,
    available: int | None = None,
    on_each: Callable[[Measured], None] | None = None,
) -> tuple[Measured, ...]:
    """Measure every candidate; ``on_each`` is told each result."""
    found = []
    for count, steps, threads in candidates(agents, available=available or cores()):
        found.append(measure(config, num_envs=count, rollout_steps=steps, threads=threads))
        if on_each is not None:
            on_each(found[-1])
    return tuple(found)


def choose(results: Sequence[Measured]) -> Measured:
    """Return the fastest; among those that are as good, the one with the smallest rollout, then the fewest threads.

    A small rollout means fresher data: the policy moves after fewer steps.
    """
    best = max(result.trained for result in results)
    good = [result for result in results if result.trained >= _WITHIN * best]
    return min(good, key=lambda result: (result.num_envs * result.rollout_steps, result.threads, -result.trained))


def override_line(chosen: Measured) -> str:
    """Return the flags that set a choice on any command."""
    return (
        f"--set simulation.num_envs={chosen.num_envs} --set simulation.threads={chosen.threads} "
        f"--set ppo.rollout_steps={chosen.rollout_steps} --set compute.threads={chosen.threads}"
    )

"""Evaluate over several processes: pieces of a suite, played anywhere, joined in order.

An episode depends on its seed alone, so the joined result equals the one of a single process to the last digit.
Workers are handed names and JSON, never objects: each makes its own policy and simulation.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from townlet_training_core.config.models import SimulationChoice
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.evaluation.suite import merge_results
from townlet_training_core.registry import make_policy, make_simulation

__all__ = ["evaluate_spec", "simulation_maker"]

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def simulation_maker(choice: SimulationChoice, /, *, num_envs: int) -> Any:
    """Make a registered simulation, in the form that the evaluation service takes."""
    return make_simulation(choice, num_envs=num_envs)


def evaluate_spec(
    policy: str,
    *,
    suite: EvaluationSuite,
    label: str | None = None,
    num_envs: int = 32,
    workers: int = 1,
    directory: Path | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    advance: Callable[[int], None] | None = None,
) -> EvaluationResult:
    """Evaluate a policy given by name or path (:func:`~townlet_training_core.registry.make_policy`).

    Parameters
    ----------
    num_envs:
        Environments stepped together in every process; a piece of the suite has as many episodes.
    workers:
        Processes; 1 plays in this one.
    directory:
        Cache of finished pieces: an evaluation that was stopped goes on where it was.
    advance:
        Called with the number of episodes after every piece.
    """
    if workers < 1:
        msg = f"workers must be at least 1, found {workers!r}"
        raise ConfigurationError(msg)
    seeds = suite.seeds
    pieces = [
        suite.model_copy(update={"seeds": seeds[start : start + num_envs]}) for start in range(0, len(seeds), num_envs)
    ]
    tasks = [(policy, piece.model_dump_json(), None if directory is None else str(directory)) for piece in pieces]
    parts = []
    for text in _results(tasks, workers=min(workers, len(tasks))):
        parts.append(EvaluationResult.model_validate_json(text))
        if advance is not None:
            advance(len(parts[-1].returns))
    return merge_results(parts, suite=suite, label=label or parts[0].policy, confidence=confidence, resamples=resamples)


def _results(tasks: Sequence[tuple[str, str, str | None]], *, workers: int) -> Any:
    if workers <= 1:
        yield from map(_play_piece, tasks)
        return
    # Spawned, not forked: threads of the parent (numba, BLAS) do not survive a fork.
    with _shared_cores(workers), ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_play_piece, tasks)


@contextmanager
def _shared_cores(workers: int) -> Iterator[None]:
    """Let processes that start inside the block share the cores: more BLAS threads than cores wait for one another.

    Numbers of threads that the environment gives already stay.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = [name for name in _THREAD_VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(given, str(max(1, cores // workers))))
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)


def _play_piece(task: tuple[str, str, str | None]) -> str:
    policy, text, directory = task
    suite = EvaluationSuite.model_validate_json(text)
    simulation = _simulation(suite.simulation, json.dumps(suite.options, sort_keys=True), len(suite.seeds))
    service = EvaluationService(
        lambda _choice, /, *, num_envs: simulation,  # noqa: ARG005  # the protocol names it
        suite,
        num_envs=len(suite.seeds),
        directory=None if directory is None else Path(directory),
        resamples=1,
    )
    return service.evaluate(make_policy(policy), label=policy).model_dump_json()


@functools.lru_cache(maxsize=2)
def _simulation(name: str, options: str, num_envs: int) -> Any:
    """Keep the simulation of a worker between pieces: making one may cost more than playing it."""
    choice = SimulationChoice(name=name, num_envs=num_envs, options=json.loads(options))
    return make_simulation(choice, num_envs=num_envs)

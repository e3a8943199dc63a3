"""The rollout service: any simulation × any policy, into memory or onto disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from townlet_training_core.errors import ConfigurationError, InterruptedRunError
from townlet_training_core.policy.port import Policy
from townlet_training_core.replay.convert import samples_from_transitions
from townlet_training_core.replay.openers import write_samples
from townlet_training_core.replay.shardwriter import SHARD_BYTES, ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions, transitions_from_rollout
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.rollout.progress import STATE_FILE, CaptureTotals, load_progress, save_progress
from townlet_training_core.simulation.port import Simulation, SimulationSpec

__all__ = ["CaptureResult", "MakeSimulation", "RolloutCaptureService"]


class MakeSimulation(Protocol):
    """Makes the simulation of a configuration."""

    def __call__(self, *, num_envs: int | None = None) -> Simulation:
        """Make it with ``num_envs`` environments (default: as configured)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureResult:
    """What a capture wrote.

    ``episodes`` counts those that ended; ``mean_return`` is ``None`` when none did. ``events`` maps a kind to its
    count and the sum of its values.
    """

    path: Path
    form: Literal["shards", "npz"]
    simulation: str
    policy: str
    seed: int
    ticks: int
    transitions: int
    trajectories: int
    episodes: int
    mean_return: float | None
    mean_length: float | None
    events: dict[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class RolloutCaptureService:
    """Captures rollouts of one configured simulation.

    Parameters
    ----------
    make_simulation:
        Makes the simulation; every capture makes and closes its own.
    """

    make_simulation: MakeSimulation

    def collect(
        self,
        policy: Policy,
        *,
        steps: int,
        seed: int,
        num_envs: int | None = None,
        expert_share: float = 0.0,
        label_expert: bool = False,
        greedy: bool = False,
        label: str = "rollout",
    ) -> Transitions:
        """Capture ``steps`` steps of every slot into memory.

        See :class:`~townlet_training_core.rollout.capture.RolloutCollector` for the parameters and errors.
        """
        simulation = self.make_simulation(num_envs=num_envs)
        try:
            collector = RolloutCollector(
                simulation,
                policy,
                steps=steps,
                seed=seed,
                expert_share=expert_share,
                label_expert=label_expert,
                greedy=greedy,
                keep_final=True,
            )
            return _cut(collector, steps, label=label)
        finally:
            simulation.close()

    def capture(
        self,
        policy: Policy,
        *,
        ticks: int,
        seed: int,
        output: Path,
        form: Literal["shards", "npz"] = "shards",
        num_envs: int | None = None,
        label_expert: bool = False,
        greedy: bool = False,
        shard_bytes: int = SHARD_BYTES,
        resume: bool = False,
        stop: threading.Event | None = None,
        on_ticks: Callable[[int], None] | None = None,
    ) -> CaptureResult:
        """Capture ``ticks`` steps of every slot onto disk.

        A shard store is sealed shard by shard, so that an interrupted capture keeps what was sealed. A trajectory
        that spans two shards is cut in two; the observation and value after the cut are kept, so nothing is lost
        for a learner.

        Parameters
        ----------
        output:
            Folder to write; it must not hold a capture.
        form:
            ``"shards"``, or ``"npz"`` files with a manifest, which are held in memory until the end.
        resume:
            Go on with a capture into shards that was interrupted, whatever interrupted it; the result is the same
            to the byte as without an interruption. Everything else must be as it was.
        stop:
            Asks a capture into shards to stop after the shard in hand.
        on_ticks:
            Told how many ticks were added.

        Raises
        ------
        ConfigurationError
            When ``ticks`` is not positive, the folder is taken, or ``resume`` does not fit the capture there.
        MissingFileError
            When there is nothing to go on with.
        InterruptedRunError
            When ``stop`` was set; what was captured is kept.
        """
        if ticks < 1:
            msg = f"ticks must be positive, not {ticks!r}"
            raise ConfigurationError(msg)
        if resume and form == "npz":
            msg = "only a capture into shards can be gone on with; npz files are written at the end"
            raise ConfigurationError(msg)
        simulation = self.make_simulation(num_envs=num_envs)
        try:
            chunk = ticks if form == "npz" else min(ticks, _steps_for(simulation.spec, shard_bytes))
            collector = RolloutCollector(
                simulation,
                policy,
                steps=chunk,
                seed=seed,
                label_expert=label_expert,
                greedy=greedy,
                keep_final=True,
            )
            request = {
                "simulation": simulation.spec.name,
                "rules_hash": simulation.spec.rules_hash,
                "policy": policy.name,
                "policy_hash": policy.content_hash(),
                "seed": seed,
                "ticks": ticks,
                "num_envs": simulation.spec.num_envs,
                "greedy": greedy,
                "label_expert": label_expert,
            }
            if form == "shards":
                totals = _into_shards(collector, request, output, shard_bytes, resume, stop, on_ticks)
            else:
                totals = CaptureTotals()
                block = _cut(collector, ticks, label=output.name)
                totals.add(collector, block, ticks=ticks)
                metadata = {**request, "episodes": totals.episodes, "events": totals.events}
                write_samples(samples_from_transitions(block), output, metadata=metadata)
                _tell(on_ticks, ticks)
        finally:
            simulation.close()
        return CaptureResult(
            path=output,
            form=form,
            simulation=simulation.spec.name,
            policy=policy.name,
            seed=seed,
            ticks=ticks,
            transitions=totals.transitions,
            trajectories=totals.trajectories,
            episodes=totals.episodes,
            mean_return=totals.return_sum / totals.episodes if totals.episodes else None,
            mean_length=totals.length_sum / totals.episodes if totals.episodes else None,
            events=totals.events,
        )


def _into_shards(
    collector: RolloutCollector,
    request: dict[str, Any],
    output: Path,
    shard_bytes: int,
    resume: bool,
    stop: threading.Event | None,
    on_ticks: Callable[[int], None] | None,
) -> CaptureTotals:
    """Capture chunk by chunk; each becomes a shard, after which the capture can be gone on with."""
    spec = DataSpec.from_simulation(collector.simulation.spec)
    request = {**request, "steps_of_a_shard": collector.buffer.steps}
    totals = CaptureTotals()
    if resume:
        state, totals = load_progress(output, request)
        collector.load_state(state)
        _tell(on_ticks, totals.ticks)
    keep = totals.shards if resume else None
    with ShardWriter(output, spec, shard_bytes=shard_bytes, metadata=request, append=resume, keep=keep) as writer:
        while totals.ticks < request["ticks"]:
            steps = min(request["ticks"] - totals.ticks, collector.buffer.steps)
            block = _cut(collector, steps, label=output.name)
            writer.add(block)
            writer.seal()  # a chunk is as large as a shard should be
            totals.add(collector, block, ticks=steps)
            totals.shards = len(writer.shards)
            saved = save_progress(output, collector, totals, request)
            _tell(on_ticks, steps)
            if stop is not None and stop.is_set() and totals.ticks < request["ticks"]:
                what = "go on with --resume" if saved else "the simulation cannot be saved, so it must begin anew"
                msg = f"capture stopped after {totals.ticks} of {request['ticks']} ticks, which are kept; {what}"
                raise InterruptedRunError(msg)
        writer.metadata |= {"episodes": totals.episodes, "events": totals.events}
    (output / STATE_FILE).unlink(missing_ok=True)
    return totals


def _tell(on_ticks: Callable[[int], None] | None, ticks: int) -> None:
    if on_ticks is not None:
        on_ticks(ticks)


def _cut(collector: RolloutCollector, steps: int, *, label: str) -> Transitions:
    arrays = collector.collect(steps)
    return transitions_from_rollout(
        arrays,
        DataSpec.from_simulation(collector.simulation.spec),
        final=collector.buffer.observations_after,
        label=label,
    )


def _steps_for(spec: SimulationSpec, shard_bytes: int) -> int:
    """Return how many steps of every slot fill a shard."""
    row = sum(
        int(np.prod(item.shape, dtype=np.int64)) * np.dtype(item.dtype).itemsize for item in spec.observations.values()
    )
    row += 32 + (len(spec.action_names) if spec.masked else 0)
    return max(1, int(shard_bytes // (row * spec.num_envs * spec.agents_per_env)))

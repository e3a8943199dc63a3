"""The rollout service: any simulation × any policy, into memory or onto disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from townlet_training_core.errors import ConfigurationError
from townlet_training_core.policy.port import Policy
from townlet_training_core.replay.convert import samples_from_transitions
from townlet_training_core.replay.openers import write_samples
from townlet_training_core.replay.shards import SHARD_BYTES, ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions, transitions_from_rollout
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation.port import Simulation, SimulationSpec

__all__ = ["CaptureResult", "MakeSimulation", "RolloutCaptureService"]


class MakeSimulation(Protocol):
    """Makes the simulation of a configuration."""

    def __call__(self, *, num_envs: int | None = None) -> Simulation:
        """Make it with ``num_envs`` environments (default: as configured)."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Running totals of a capture."""

    transitions: int = 0
    trajectories: int = 0
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    events: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, collector: RolloutCollector, block: Transitions) -> None:
        self.transitions += len(block)
        self.trajectories += len(block.slots)
        self.returns += collector.episodes.returns.tolist()
        self.lengths += collector.episodes.lengths.tolist()
        for name, (count, total) in collector.buffer.events.totals(
            tuple(collector.simulation.spec.event_kinds)
        ).items():
            before = self.events.get(name, (0, 0.0))
            self.events[name] = (before[0] + count, before[1] + total)


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
        on_ticks:
            Told how many ticks were added.

        Raises
        ------
        ConfigurationError
            When ``ticks`` is not positive or the folder is taken.
        """
        if ticks < 1:
            msg = f"ticks must be positive, not {ticks!r}"
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
            metadata = {
                "simulation": simulation.spec.name,
                "rules_hash": simulation.spec.rules_hash,
                "policy": policy.name,
                "policy_hash": policy.content_hash(),
                "seed": seed,
                "ticks": ticks,
                "num_envs": simulation.spec.num_envs,
                "greedy": greedy,
            }
            tally = _Tally()
            if form == "shards":
                self._into_shards(collector, ticks, output, shard_bytes, metadata, tally, on_ticks)
            else:
                block = _cut(collector, ticks, label=output.name)
                tally.add(collector, block)
                metadata |= {"episodes": len(tally.returns), "events": tally.events}
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
            transitions=tally.transitions,
            trajectories=tally.trajectories,
            episodes=len(tally.returns),
            mean_return=float(np.mean(tally.returns)) if tally.returns else None,
            mean_length=float(np.mean(tally.lengths)) if tally.lengths else None,
            events=tally.events,
        )

    @staticmethod
    def _into_shards(
        collector: RolloutCollector,
        ticks: int,
        output: Path,
        shard_bytes: int,
        metadata: dict[str, Any],
        tally: _Tally,
        on_ticks: Callable[[int], None] | None,
    ) -> None:
        spec = DataSpec.from_simulation(collector.simulation.spec)
        with ShardWriter(output, spec, shard_bytes=shard_bytes, metadata=metadata) as writer:
            left = ticks
            while left:
                steps = min(left, collector.buffer.steps)
                block = _cut(collector, steps, label=output.name)
                tally.add(collector, block)
                writer.add(block)
                writer.seal()  # a chunk is as large as a shard should be
                left -= steps
                _tell(on_ticks, steps)
            writer.metadata |= {"episodes": len(tally.returns), "events": tally.events}


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

"""The predecessor's rollout buffer: frames by agent, written as one npz per agent.

New code collects columns (:mod:`~townlet_training_core.rollout.buffer`); this serves loops that drive their own
policy and hand out frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from townlet_training_core.errors import DataError
from townlet_training_core.files import atomic_write_json, atomic_write_text
from townlet_training_core.replay.dataset import InMemoryReplayDataset, InMemoryReplayDatasetConfig
from townlet_training_core.replay.metrics import compute_sample_metrics
from townlet_training_core.replay.npz import save_replay_sample, to_builtins
from townlet_training_core.replay.sample import ReplaySample, frames_to_replay_sample
from townlet_training_core.replay.transitions import TransitionDataset

__all__ = ["AgentRollout", "Frame", "FrameRolloutBuffer", "build_dto_rollout_artifact", "frames_from_transitions"]

Frame: TypeAlias = dict[str, Any]
"""What one agent saw, did and earned in one tick, by the contract's keys."""

_DTO_SCHEMA_VERSION = "0.2.0"

_COUNTED = {
    "queue_conflict": "queue_conflict_count",
    "shared_meal": "shared_meal_count",
    "employment_helped_when_late": "late_help_count",
    "employment_took_my_shift": "shift_takeover_count",
    "chat_success": "chat_success_count",
    "chat_failure": "chat_failure_count",
}
"""Event names and the counter of the in-memory dataset that they raise."""


@dataclass
class AgentRollout:
    """The frames of one agent in order of time."""

    agent_id: str
    frames: list[dict[str, Any]]

    def to_replay_sample(self) -> ReplaySample:
        """Join the frames into a sample."""
        return frames_to_replay_sample(self.frames)

    def to_dto_artifact(self) -> dict[str, Any]:
        """Return the frames with everything in them, for JSON."""
        return build_dto_rollout_artifact(self.frames)


def build_dto_rollout_artifact(frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return schema version, agent, tick range and frames of one agent as plain JSON values.

    Raises
    ------
    DataError
        When there are no frames, or they belong to several agents.
    """
    if not frames:
        msg = "frames cannot be empty"
        raise DataError(msg)
    agents = sorted({str(frame.get("agent_id")) for frame in frames})
    if len(agents) > 1:
        msg = f"frames carry mixed agent identifiers {agents}; expected those of one agent"
        raise DataError(msg)
    dto = (frames[-1].get("metadata") or {}).get("dto") or {}
    ticks = [int(frame.get("tick") or 0) for frame in frames]
    return {
        "schema_version": dto.get("schema_version") or _DTO_SCHEMA_VERSION,
        "agent_id": agents[0],
        "frame_count": len(frames),
        "tick_first": ticks[0],
        "tick_last": ticks[-1],
        "frames": [to_builtins(frame) for frame in frames],
    }


def frames_from_transitions(dataset: TransitionDataset, trajectories: Iterable[int] | None = None) -> Iterator[Frame]:
    """Yield the decisions of captured columns as frames, trajectory by trajectory: a view for those who read frames.

    A frame has ``tick`` (step of the trajectory), ``agent_id`` (``slot_<n>``), ``map``, ``features``, ``action``,
    ``action_id``, ``rewards``, ``dones``, ``metadata``, ``anneal_context``, and ``log_prob``, ``value_pred`` and
    ``bootstrap_value`` where the acting policy gave them.
    """
    spec, offsets = dataset.spec, dataset.offsets
    slots = getattr(dataset, "slots", None)
    metadata = {
        "feature_names": list(spec.feature_names),
        "action_names": list(spec.action_names),
        "action_dim": spec.action_dim,
        "map_channels": list(spec.map_channels),
        "simulation": spec.simulation,
    }
    for item in range(len(offsets) - 1) if trajectories is None else trajectories:
        rows = dataset.gather(np.arange(offsets[item], offsets[item + 1]))
        agent_id = f"slot_{int(slots[item])}" if slots is not None else f"trajectory_{item}"
        for step in range(int(offsets[item + 1] - offsets[item])):
            action = int(rows["actions"][step])
            frame: Frame = {
                "tick": step,
                "agent_id": agent_id,
                "map": rows["map"][step] if "map" in rows else np.zeros((0, 0, 0), np.float32),
                "features": rows["features"][step] if "features" in rows else np.zeros(0, np.float32),
                "action": {"kind": spec.action_names[action]},
                "action_id": action,
                "rewards": [float(rows["rewards"][step])],
                "dones": [bool(rows["terminated"][step] or rows["truncated"][step])],
                "metadata": metadata,
                "anneal_context": {},
            }
            for name, key in (("log_probs", "log_prob"), ("values", "value_pred"), ("next_values", "bootstrap_value")):
                if name in rows:
                    frame[key] = float(rows[name][step])
            yield frame


class FrameRolloutBuffer:
    """Gathers frames and events of a rollout, then writes or batches them by agent."""

    def __init__(self) -> None:
        self._frames: list[dict[str, Any]] = []
        self._counts: dict[str, float] = dict.fromkeys(_COUNTED.values(), 0.0)
        self._intensity_sum = 0.0
        self._qualities: list[float] = []
        self._ticks = 0

    def extend(self, frames: Iterable[Mapping[str, Any]]) -> None:
        """Add frames."""
        self._frames.extend(dict(frame) for frame in frames)

    def record_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Count social events; kinds that nothing counts are ignored."""
        for event in events:
            name = str(event.get("event") or event.get("type") or event.get("name") or "")
            counter = _COUNTED.get(name)
            if counter is None:
                continue
            self._counts[counter] += 1.0
            if name == "queue_conflict":
                self._intensity_sum += float(event.get("intensity") or 0.0)
            elif name == "chat_success" and event.get("quality") is not None:
                self._qualities.append(float(event["quality"]))

    def set_tick_count(self, n: int) -> None:
        """Note how many ticks the rollout took."""
        self._ticks = max(0, int(n))

    def __len__(self) -> int:
        return len(self._frames)

    def is_empty(self) -> bool:
        """Whether there are no frames."""
        return not self._frames

    def by_agent(self) -> dict[str, AgentRollout]:
        """Return the frames of each agent, in order of first appearance."""
        rollouts: dict[str, AgentRollout] = {}
        for frame in self._frames:
            agent_id = str(frame.get("agent_id", "agent"))
            rollouts.setdefault(agent_id, AgentRollout(agent_id, [])).frames.append(frame)
        return rollouts

    def to_samples(self) -> dict[str, ReplaySample]:
        """Return each agent's sample."""
        return {agent_id: rollout.to_replay_sample() for agent_id, rollout in self.by_agent().items()}

    def save(self, output_dir: Path, prefix: str = "rollout_sample", compress: bool = True) -> None:
        """Write, per agent, ``{prefix}_{agent}_{number:03d}`` ``.npz``, ``.json`` and ``_dto.json``.

        ``{prefix}_manifest.json`` is a list of their file names and ``{prefix}_metrics.json`` maps npz names to
        metrics. The manifest is written last, so that it never names what is not there.
        """
        output_dir = Path(output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        entries: list[dict[str, str]] = []
        metrics: dict[str, dict[str, float]] = {}
        for number, (agent_id, rollout) in enumerate(self.by_agent().items(), start=1):
            stem = f"{prefix}_{agent_id}_{number:03d}"
            sample = rollout.to_replay_sample()
            metrics[f"{stem}.npz"] = compute_sample_metrics(sample)
            metadata = {
                **sample.metadata,
                "agent_id": agent_id,
                "frame_count": len(rollout.frames),
                "metrics": metrics[f"{stem}.npz"],
            }
            save_replay_sample(sample, output_dir / f"{stem}.npz", metadata=metadata, compress=compress)
            atomic_write_json(output_dir / f"{stem}_dto.json", rollout.to_dto_artifact())
            entries.append({"sample": f"{stem}.npz", "meta": f"{stem}.json", "dto": f"{stem}_dto.json"})
        atomic_write_text(output_dir / f"{prefix}_metrics.json", json.dumps(metrics, indent=2))
        atomic_write_json(output_dir / f"{prefix}_manifest.json", entries)

    def build_dataset(self, batch_size: int = 1, drop_last: bool = False) -> InMemoryReplayDataset:
        """Batch the samples in memory, with the counted events.

        Raises
        ------
        DataError
            When there are no frames.
        """
        if self.is_empty():
            msg = "Rollout buffer contains no frames; cannot build dataset"
            raise DataError(msg)
        samples = list(self.to_samples().values())
        dataset = InMemoryReplayDataset(
            InMemoryReplayDatasetConfig(
                entries=samples,
                batch_size=batch_size,
                drop_last=drop_last,
                rollout_ticks=self._ticks,
                label="rollout_buffer",
            )
        )
        for counter, count in self._counts.items():
            setattr(dataset, counter, count)
        dataset.queue_conflict_intensity_sum = self._intensity_sum
        dataset.chat_quality_mean = sum(self._qualities) / len(self._qualities) if self._qualities else 0.0
        return dataset

"""From the pages of a shard to the learner: one copy, and the rows that it should be."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.config.requests import BCRequest, PPORequest
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.shardwriter import ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions
from townlet_training_torch.bc import BCStrategy
from townlet_training_torch.experience import stored
from townlet_training_torch.minibatches import rows_of
from townlet_training_torch.ppo import PPOStrategy

CPU = torch.device("cpu")


def _store(folder: Path, *, rows: int = 6000, trajectories: int = 7) -> ShardStore:
    """Write ragged trajectories of large observations into several shards; every row shows its own number."""
    rng = np.random.default_rng(0)
    spec = DataSpec(
        simulation="made-v1",
        observations={
            "map": ArraySpec((4, 11, 11), np.dtype(np.uint8)),
            "features": ArraySpec((68,), np.dtype(np.float32)),
        },
        action_names=("a", "b", "c"),
    )
    cuts = np.sort(rng.choice(np.arange(1, rows), trajectories - 1, replace=False))
    offsets = np.concatenate([[0], cuts, [rows]]).astype(np.int64)
    ended = np.zeros(rows, np.bool_)
    ended[offsets[1:] - 1] = True
    features = rng.normal(size=(rows, 68)).astype(np.float32)
    features[:, 0] = np.arange(rows)
    table = Transitions(
        spec=spec,
        data={
            "map": rng.integers(0, 2, (rows, 4, 11, 11)).astype(np.uint8),
            "features": features,
            "actions": np.arange(rows) % 3,
            "rewards": np.arange(rows, dtype=np.float32),
            "terminated": ended,
            "truncated": np.zeros(rows, np.bool_),
        },
        offsets=offsets,
        slots=np.zeros(trajectories, np.int64),
    )
    with ShardWriter(folder, spec) as writer:
        for number in range(trajectories):
            writer.add(table.select([number]))
            writer.seal()
    store = ShardStore.open(folder)
    assert len(store.shards) > 3
    return store


def test_a_mini_batch_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(tmp_path)
    arrays, _ = stored(store)
    rows = rows_of(arrays, {"rewards": arrays.rewards}, inputs=("map", "features"), device=CPU)
    handed_out: list[dict[str, Any]] = []
    gather = ShardStore.gather

    def watched(self: ShardStore, *arguments: Any) -> Any:
        handed_out.append(gather(self, *arguments))
        return handed_out[-1]

    monkeypatch.setattr(ShardStore, "gather", watched)
    units = np.random.default_rng(1).permutation(rows.units)[:512]
    rows.gather(units)
    tracemalloc.start()
    batch = rows.gather(units)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # What the store wrote is what the learner reads, and nothing of that size was made beside it.
    for name, tensor in batch.observations.items():
        assert np.shares_memory(tensor.numpy(), handed_out[-1][name])
    wanted = sum(tensor.numpy().nbytes for tensor in batch.observations.values())
    assert wanted < peak < 1.2 * wanted

    # Every column of the batch belongs to the same rows, and they are the ones that were asked for.
    numbers = batch.observations["features"][:, 0].numpy().astype(np.int64)
    assert (batch["actions"].numpy() == numbers % 3).all()
    assert (batch["rewards"].numpy() == numbers).all()
    asked = arrays.rewards.reshape(-1)[rows.indices[units]].astype(np.int64)
    assert (np.sort(numbers) == np.sort(asked)).all()
    np.testing.assert_array_equal(batch.observations["map"].numpy(), store.gather(numbers, ["map"])["map"])


@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_strategies_train_on_a_store(workshop: Any, tmp_path: Path, recurrent: str, normalise: bool) -> None:
    workshop.use(task="identity", with_map=True)
    config = workshop.config(
        network={"recurrent": recurrent}, ppo={"normalize_observations": normalise, "iterations": 2}
    )
    service = workshop.services(config).rollout
    captured = service.capture(RandomPolicy(), ticks=40, seed=1, output=tmp_path / "store", shard_bytes=4000)
    cloned = BCStrategy().run(workshop.context(config, name="bc"), BCRequest(manifest=captured.path))
    assert cloned.accuracy is not None
    request = PPORequest(mode="replay", manifest=captured.path, recompute_log_probs=True)
    assert np.isfinite(PPOStrategy().run(workshop.context(config, name="ppo"), request).loss_total)
    request = PPORequest(mode="mixed", manifest=captured.path, recompute_log_probs=True)
    assert np.isfinite(PPOStrategy().run(workshop.context(config, name="mixed"), request).loss_total)

"""Stored trajectories of unequal length, and the smallest rollouts: every row counts once, padding never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_training_core.config.requests import PPORequest
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.ppo import PPOStrategy
from townlet_training_torch.session import Session, check_start
from townlet_training_torch.sources import PPOSource


def _rows_of_files(folder: Any, *, gamma: float, lam: float) -> list[tuple[float, ...]]:
    """Compute action, old log-probability, advantage and return of every stored step, file by file in float64."""
    found: list[tuple[float, ...]] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as archive:
            column = {name: archive[name].astype(np.float64) for name in archive.files if name != "map"}
        rewards, values = column["rewards"], column["value_preds"]
        running, rows = 0.0, []
        for step in reversed(range(len(rewards))):
            bootstrap = 0.0 if column["terminated"][step] else values[step + 1]
            ended = column["terminated"][step] or column["truncated"][step]
            delta = rewards[step] + gamma * bootstrap - values[step]
            running = delta + (0.0 if ended else gamma * lam * running)
            rows.append((column["actions"][step], column["old_log_probs"][step], running, running + values[step]))
        found += reversed(rows)
    return found


@pytest.mark.parametrize("task", ["masked", "memory"])  # cut off, terminated
@pytest.mark.parametrize("steps", [1, 13])
def test_stored_trajectories_of_unequal_length_give_the_rows_of_their_files(
    workshop: Any, task: str, steps: int
) -> None:
    workshop.use(task=task, ticks=5)
    config = workshop.config()
    network = build_network(describe(workshop.make().spec, config.network))
    manifest = workshop.write(TorchPolicy(network), name="ragged", steps=steps)
    expected = _rows_of_files(manifest.parent, gamma=config.ppo.gamma, lam=config.ppo.gae_lambda)
    assert len(expected) == 4 * steps
    request = PPORequest(mode="replay", manifest=manifest)
    context = workshop.context(config)
    with PPOSource.open(context, request) as source:
        session = Session(
            context,
            check_start(context, source.spaces, None),
            init_from=None,
            learning_rate=config.ppo.learning_rate,
            eps=config.ppo.adam_eps,
            max_grad_norm=config.ppo.max_grad_norm,
        )
        source.start(session)
        rows = source.collect(0, expert_share=0.0).rows
    assert rows.units == len(expected)
    names = ("actions", "log_probs", "advantages", "returns")
    found = np.stack([rows.columns[name].numpy()[rows.indices].astype(np.float64) for name in names], axis=1)
    order = [np.lexsort(np.round(table, 4).T) for table in (found, np.array(expected))]
    np.testing.assert_allclose(found[order[0]], np.array(expected)[order[1]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize(("steps", "environments"), [(1, 1), (1, 3), (2, 1)])
def test_the_smallest_rollouts_train(workshop: Any, recurrent: str, steps: int, environments: int) -> None:
    workshop.use(task="masked")
    ppo = {"rollout_steps": steps, "iterations": 3, "sequence_length": 4}
    config = workshop.config(ppo=ppo, num_envs=environments, network={"recurrent": recurrent})
    result = PPOStrategy().run(workshop.context(config), PPORequest())
    assert result.transitions == steps * environments
    assert result.steps == 3 * steps * environments
    assert all(np.isfinite(value) for value in result.model_dump().values() if isinstance(value, float))

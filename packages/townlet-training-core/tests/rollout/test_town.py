"""The real town through the same port, service and kit as everything else; skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from townlet_training_core.config.models import SimulationChoice
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.registry import make_simulation
from townlet_training_core.replay.openers import convert, open_transitions
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.rollout.service import RolloutCaptureService
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.testing.policies import check_policy
from townlet_training_core.testing.simulations import check_simulation

pytest.importorskip("townlet_sim")


def town(*, num_envs: int | None = None) -> Simulation:
    choice = SimulationChoice(name="town", num_envs=2, options={"episode_ticks": 25})
    made: Simulation = make_simulation(choice, num_envs=num_envs)
    return made


def test_the_town_keeps_its_port() -> None:
    check_simulation(lambda count: town(num_envs=count), steps=60)


def test_policies_keep_theirs_in_the_town() -> None:
    check_policy(RandomPolicy, town())
    check_policy(ScriptedPolicy, town(), samples=False)


def test_a_capture_of_the_town_survives_every_form(tmp_path: Path) -> None:
    service = RolloutCaptureService(town)
    result = service.capture(RandomPolicy(), ticks=60, seed=3, output=tmp_path / "store", label_expert=True)
    assert result.transitions > 0
    assert result.episodes > 0
    assert sum(count for count, _ in result.events.values()) > 0
    table = open_transitions(tmp_path / "store")
    rows = np.arange(len(table))
    mask = table.column("action_mask")
    assert mask[rows, table.column("actions")].all()
    assert mask[rows, table.column("expert_actions")].all()
    assert "rivalry_max" in table.spec.feature_names
    convert(tmp_path / "store", tmp_path / "npz", to="npz")
    convert(tmp_path / "npz", tmp_path / "again", to="shards")
    again = open_transitions(tmp_path / "again")
    assert set(again.columns) == set(table.columns)
    for name in table.columns:
        np.testing.assert_array_equal(again.column(name), table.column(name), err_msg=name)


def test_a_resumed_rollout_of_the_town_is_the_same() -> None:
    def collector(seed: int) -> RolloutCollector:
        return RolloutCollector(town(), RandomPolicy(), steps=40, seed=seed)

    first = collector(1)
    first.collect()
    state = first.save_state()
    expected = {name: array.copy() for name, array in first.collect().observations.items()}
    resumed = collector(2)
    resumed.load_state(state)
    found = resumed.collect()
    for name, array in expected.items():
        np.testing.assert_array_equal(found.observations[name], array)
    np.testing.assert_array_equal(resumed.buffer.events.records, first.buffer.events.records)
    np.testing.assert_array_equal(resumed.episodes.returns, first.episodes.returns)

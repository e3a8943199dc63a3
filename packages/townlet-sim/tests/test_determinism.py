"""The same seed gives the same bits: alone or in a batch, on one thread or two, in any process, saved or not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from townlet_sim import make_simulation
from townlet_sim.config import TownConfig
from townlet_sim.engine import StepRows, TownBatch
from townlet_sim.spaces import SCRIPTED_POLICIES

OPTIONS: dict[str, Any] = {"episode_ticks": 180, "random_start": True, "layouts": 3, "centralised_state": True}


def actions_of(rows: StepRows, tick: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """An allowed action for each slot from the slot's own features: the same wherever the town stands."""
    noise = np.abs(np.sin(1e4 * (rows.observations["features"][:, :16].sum(axis=1) + tick)))
    order = (noise[:, None] * np.arange(1, 17) * 7.31) % 1.0
    return np.asarray((order * rows.action_mask).argmax(axis=1), np.int64)


def snapshot(town: TownBatch, rows: StepRows) -> list[np.ndarray[Any, Any]]:
    arrays = [*rows.observations.values(), rows.action_mask, rows.alive, rows.rewards, rows.terminated, rows.truncated]
    arrays += [*rows.final_observation.values(), town.reward_terms, town.expert_actions()]
    return [array.copy() for array in arrays]


def test_a_town_does_not_depend_on_its_neighbours() -> None:
    alone, batch = make_simulation(1, OPTIONS), make_simulation(64, OPTIONS, threads=2)
    rows, many = alone.allocate(), batch.allocate()
    alone.reset(seed=37, out=rows)
    batch.reset(seed=0, out=many)
    slots = slice(37 * 8, 38 * 8)
    for tick in range(400):
        alone.step(actions_of(rows, tick), rows)
        batch.step(actions_of(many, tick), many)
        assert (rows.rewards == many.rewards[slots]).all()
        assert (rows.terminated == many.terminated[slots]).all()
        assert (rows.action_mask == many.action_mask[slots]).all()
        for name, array in rows.observations.items():
            assert array.tobytes() == many.observations[name][slots].tobytes()
        for name, array in rows.final_observation.items():
            assert array.tobytes() == many.final_observation[name][slots].tobytes()
    batch.close()
    batch.close()


def test_threads_change_nothing() -> None:
    towns = [make_simulation(64, OPTIONS, threads=threads) for threads in (1, 2, 3)]
    rows = [town.allocate() for town in towns]
    for town, out in zip(towns, rows, strict=True):
        town.reset(seed=9, out=out)
    for tick in range(200):
        for town, out in zip(towns, rows, strict=True):
            town.step(actions_of(out, tick), out)
        first = snapshot(towns[0], rows[0])
        for town, out in zip(towns[1:], rows[1:], strict=True):
            assert all((a == b).all() for a, b in zip(first, snapshot(town, out), strict=True))
            assert (town.events == towns[0].events).all()
    for town in towns:
        town.close()


def test_saving_and_restoring_in_mid_episode_changes_nothing() -> None:
    town = make_simulation(3, OPTIONS)
    rows = town.allocate()
    town.reset(seed=4, out=rows)
    for tick in range(100):
        town.step(actions_of(rows, tick), rows)
    saved = town.save_state()
    other = make_simulation(3, OPTIONS)
    restored = other.allocate()
    other.load_state(saved, out=restored)
    for name, array in rows.observations.items():
        assert (array == restored.observations[name]).all()
    assert (rows.action_mask == restored.action_mask).all()
    for tick in range(100, 300):
        town.step(actions_of(rows, tick), rows)
        other.step(actions_of(restored, tick), restored)
        assert (rows.rewards == restored.rewards).all()
        assert (rows.observations["features"] == restored.observations["features"]).all()
        assert (rows.observations["map"] == restored.observations["map"]).all()
    assert all((a == other.save_state()[name]).all() for name, a in town.save_state().items())


def test_a_state_of_other_rules_or_another_size_is_refused() -> None:
    town = make_simulation(2, {})
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    saved = town.save_state()
    other = make_simulation(2, {"needs": {"hunger_decay": 0.003}})
    with pytest.raises(ValueError, match="state of rules"):
        other.load_state(saved, out=other.allocate())
    three = make_simulation(3, {})
    with pytest.raises(ValueError, match="state array 'agent_i'"):
        three.load_state(saved, out=three.allocate())
    with pytest.raises(ValueError, match=r"state array 'town_f'.*found nothing"):
        town.load_state({name: array for name, array in saved.items() if name != "town_f"}, out=rows)


_SCRIPT = """
import hashlib
from townlet_sim import make_simulation
town = make_simulation(2, {"episode_ticks": 150})
rows = town.allocate()
town.reset(seed=11, out=rows)
digest = hashlib.sha256()
for _ in range(300):
    town.step(town.scripted_actions("random"), rows)
    for array in (rows.observations["map"], rows.observations["features"], rows.rewards, rows.action_mask):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_another_process_plays_the_same_game() -> None:
    found = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=280)
    town = make_simulation(2, {"episode_ticks": 150})
    rows = town.allocate()
    town.reset(seed=11, out=rows)
    digest = hashlib.sha256()
    for _ in range(300):
        town.step(town.scripted_actions("random"), rows)
        for array in (rows.observations["map"], rows.observations["features"], rows.rewards, rows.action_mask):
            digest.update(array.tobytes())
    assert found.stdout.strip() == digest.hexdigest()


def test_seeds_and_episodes_differ() -> None:
    town = make_simulation(2, {"episode_ticks": 10})
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    first = rows.observations["features"].copy()
    assert (first[:8] != first[8:]).any()
    for _ in range(10):
        town.step(np.zeros(16, np.int64), rows)
    assert rows.truncated.all()
    assert (rows.observations["features"] != first).any()  # the next episode
    town.reset(seed=[0, 1], out=rows)
    assert (rows.observations["features"] == first).all()


def test_asking_the_expert_changes_nothing() -> None:
    town = make_simulation(2, {})
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    before = town.save_state()
    for policy in SCRIPTED_POLICIES:
        town.scripted_actions(policy)
    assert all((array == before[name]).all() for name, array in town.save_state().items())


def test_bad_calls_are_refused_with_what_was_expected() -> None:
    town = make_simulation(2, {})
    rows = town.allocate()
    with pytest.raises(RuntimeError, match="reset"):
        town.step(np.zeros(16, np.int64), rows)
    with pytest.raises(ValueError, match="2 seeds"):
        town.reset(seed=[1], out=rows)
    town.reset(seed=0, out=rows)
    with pytest.raises(ValueError, match=r"expected shape \(16,\)"):
        town.step(np.zeros(3, np.int64), rows)
    with pytest.raises(ValueError, match="scripted policy"):
        town.scripted_actions(["expert"])
    wrong = town.allocate()
    wrong.observations["features"] = np.zeros((16, 3), np.float32)
    with pytest.raises(ValueError, match="out array 'features'"):
        town.step(np.zeros(16, np.int64), wrong)
    with pytest.raises(ValueError, match="num_envs"):
        TownBatch(TownConfig(), 0)

"""Gymnasium vector environments behind the simulation port."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_training_core.arrays import allocate
from townlet_training_core.errors import CapabilityError, ConfigurationError, DataError, SpaceMismatchError
from townlet_training_core.simulation.vector import VectorSimulation
from townlet_training_core.testing.simulations import check_simulation

gymnasium = pytest.importorskip("gymnasium")


def make(count: int, env: str = "CartPole-v1", mode: str = "SAME_STEP", **kwargs: Any) -> VectorSimulation:
    from gymnasium.vector import AutoresetMode

    vector = gymnasium.make_vec(
        env,
        num_envs=count,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode[mode]},
        **kwargs,
    )
    return VectorSimulation(vector, name=f"vector:{env}")


def test_it_conforms() -> None:
    check_simulation(make, steps=60, saved_state=False)


def test_final_observations_are_kept() -> None:
    simulation = make(2, max_episode_steps=4)
    out = allocate(simulation.spec.observations, slots=2, actions=2)
    simulation.reset(seed=[3, 4], out=out)
    for step in range(4):
        before = out.observations["features"].copy()
        simulation.step(np.array([step % 2, step % 2]), out)
    assert out.truncated.all()
    final = out.final_observation["features"]
    np.testing.assert_allclose(final[:, 0], before[:, 0] + 0.02 * before[:, 1], rtol=1e-5)
    assert not np.allclose(out.observations["features"], final)


def test_what_it_cannot_do() -> None:
    simulation = make(2)
    out = allocate(simulation.spec.observations, slots=2, actions=2)
    with pytest.raises(CapabilityError, match="cannot be saved"):
        simulation.save_state()
    with pytest.raises(CapabilityError, match="cannot be saved"):
        simulation.load_state({}, out=out)
    with pytest.raises(DataError, match="1 seeds for 2"):
        simulation.reset(seed=[1], out=out)
    with pytest.raises(ConfigurationError, match=r"expected AutoresetMode.SAME_STEP"):
        make(1, mode="NEXT_STEP")
    with pytest.raises(SpaceMismatchError, match="expected Box and Discrete"):
        make(1, env="Pendulum-v1")

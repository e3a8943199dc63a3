"""The PettingZoo and Gymnasium views pass the suites that those libraries ship."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import townlet_sim
from townlet_sim.env import TownParallelEnv
from townlet_sim.vector import TownVectorEnv

SHORT: dict[str, Any] = {"episode_ticks": 300, "agents": 4}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_api_and_seeds() -> None:
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    parallel_api_test(townlet_sim.parallel_env(SHORT), num_cycles=1000)
    parallel_api_test(townlet_sim.parallel_env({**SHORT, "respawn": False}), num_cycles=1000)
    parallel_seed_test(lambda: townlet_sim.parallel_env(SHORT), num_cycles=100)


def test_observations_lie_in_their_spaces_over_an_episode() -> None:
    env = townlet_sim.parallel_env({**SHORT, "needs": {"hunger_decay": 0.02}})
    observations, infos = env.reset(seed=1)
    rng = np.random.default_rng(0)
    exits = 0
    for tick in range(1, 301):
        assert set(observations) == set(env.possible_agents) == set(infos)
        for agent, observation in observations.items():
            assert env.observation_space(agent).contains(observation)
        assert env.state_space.contains(env.state())
        actions = {agent: int(rng.choice(np.flatnonzero(observations[agent]["action_mask"]))) for agent in env.agents}
        observations, rewards, terminations, truncations, infos = env.step(actions)
        exits += sum(info["exited"] for info in infos.values())
        assert not any(terminations.values())
        assert all(truncations.values()) == (tick == 300)
        assert rewards["agent_0"] == pytest.approx(infos["agent_0"]["reward_terms"]["total"])
    assert exits > 0
    assert env.agents == []
    assert set(infos["agent_0"]["kpis"]) == set(env.batch.spec.kpi_names)
    assert env.step({}) == ({}, {}, {}, {}, {})
    env.close()


def test_in_strict_mode_who_leaves_stays_away() -> None:
    env = townlet_sim.parallel_env({**SHORT, "respawn": False, "needs": {"hunger_decay": 0.02}})
    env.reset(seed=1)
    left: set[str] = set()
    while env.agents:
        observations, _, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 0))
        for agent, over in terminations.items():
            assert agent not in left
            if over:
                left.add(agent)
                assert observations[agent]["features"][0] == 0.0  # the true last observation: hunger
                assert not truncations[agent]
    assert left == set(env.possible_agents)


def test_an_episode_without_seed_follows_from_the_last_seed() -> None:
    runs = []
    for _ in range(2):
        env = townlet_sim.parallel_env(SHORT)
        env.reset(seed=3)
        first, _ = env.reset()
        second, _ = env.reset()
        runs.append((first["agent_0"]["features"], second["agent_0"]["features"]))
    assert (runs[0][0] == runs[1][0]).all()
    assert (runs[0][1] == runs[1][1]).all()
    assert (runs[0][0] != runs[0][1]).any()


def test_an_unknown_render_mode_or_option_is_refused() -> None:
    with pytest.raises(ValueError, match="render_mode 'human'"):
        townlet_sim.parallel_env(render_mode="human")
    with pytest.raises(ValueError, match="hunger_decai"):
        townlet_sim.parallel_env({"needs": {"hunger_decai": 0.1}})
    assert TownParallelEnv.metadata["is_parallelizable"]


def test_the_vector_view_resets_in_the_same_step() -> None:
    env = TownVectorEnv(3, {"episode_ticks": 20, "agents": 4})
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.num_envs == 12
    observations, _ = env.reset(seed=5)
    assert env.observation_space.contains(observations)
    for tick in range(1, 41):
        observations, rewards, terminated, truncated, infos = env.step(np.zeros(12, np.int64))
        assert env.observation_space.contains(observations)
        assert rewards.shape == terminated.shape == (12,)
        assert truncated.all() == (tick % 20 == 0)
        if tick % 20 == 0:
            assert infos["_final_obs"].all()
            assert (infos["final_obs"]["features"][:, 17] == 1.0).all()  # episode_progress
            assert (observations["features"][:, 17] == 0.0).all()
    again, _ = env.reset(seed=[5, 6, 7])
    same, _ = env.reset(seed=[5, 6, 7])
    assert (again["features"] == same["features"]).all()
    assert env.action_space.contains(env.action_space.sample())
    env.close()


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, townlet_sim; "
        "heavy = {'numba', 'gymnasium', 'pettingzoo', 'rich', 'PIL', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

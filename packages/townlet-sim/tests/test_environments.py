"""The PettingZoo and Gymnasium views pass the suites that those libraries ship."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

import townlet_sim
from townlet_sim import columns as c
from townlet_sim.engine import GivenTown
from townlet_sim.env import TownParallelEnv
from townlet_sim.scenarios import load_scenario
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


def test_gymnasiums_own_wrappers_accept_the_vector_view() -> None:
    env = DictInfoToList(RecordEpisodeStatistics(TownVectorEnv(2, {"episode_ticks": 20, "agents": 4})))
    env.reset(seed=5)
    returns = np.zeros(8)
    for _ in range(20):
        _, rewards, _, truncated, infos = env.step(env.action_space.sample())
        returns += rewards
    assert truncated.all()
    assert [info["episode"]["l"] for info in infos] == [20] * 8
    assert [info["episode"]["r"] for info in infos] == pytest.approx(returns.tolist())


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, townlet_sim; "
        "heavy = {'numba', 'gymnasium', 'pettingzoo', 'rich', 'PIL', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_scenario_is_played_by_name_path_or_content(tmp_path: Path) -> None:
    kitchen = load_scenario("kitchen_breakfast")
    file = tmp_path / "mine.yaml"
    file.write_text("scenario: {ticks: 9, agents: [{id: ann}]}\n", encoding="utf-8")
    for source, ticks, position in (
        ("kitchen_breakfast", kitchen.ticks, None),
        (str(file), 9, None),
        ({"scenario": {"ticks": 7, "agents": [{"id": "a", "position": [2, 5]}], "map": ["." * 12] * 12}}, 7, (5, 2)),
    ):
        env = townlet_sim.parallel_env(scenario=source)
        env.reset(seed=1)
        count = 0
        while env.agents:
            if count == 0 and position is not None:
                assert tuple(env.batch.arrays.agent_i[0, 0, c.Y : c.X + 1]) == position
            env.step(dict.fromkeys(env.agents, 0))
            count += 1
        assert count == ticks
    vector = TownVectorEnv(3, scenario="kitchen_breakfast")
    assert vector.num_envs == 6
    assert vector.batch.spec.rules_hash == townlet_sim.make_simulation(1, {"scenario": kitchen.name}).spec.rules_hash


def test_who_arrives_in_a_scenario_is_among_the_agents_from_then_on() -> None:
    env = townlet_sim.parallel_env(scenario="story_arc")
    env.reset(seed=3)
    assert env.agents == ["agent_0", "agent_1", "agent_2"]
    for _ in range(40):
        observations, rewards, *_ = env.step(dict.fromkeys(env.agents, 0))
    assert env.agents == env.possible_agents
    assert observations["agent_3"]["features"][16] == 1.0  # ctx_reset_flag
    assert rewards["agent_3"] == 0.0


def test_a_scenario_and_a_start_of_ones_own_exclude_one_another() -> None:
    with pytest.raises(ValueError, match="scenario and given"):
        townlet_sim.parallel_env(scenario="story_arc", given=GivenTown())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_scenario_passes_the_api_test() -> None:
    from pettingzoo.test import parallel_api_test

    parallel_api_test(townlet_sim.parallel_env(scenario="queue_conflict"), num_cycles=200)

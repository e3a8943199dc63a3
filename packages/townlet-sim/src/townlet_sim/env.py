"""The town as a PettingZoo ``ParallelEnv``: one town, N agents, dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv  # type: ignore[import-untyped]  # ships no py.typed

from townlet_sim import make_simulation
from townlet_sim.config import TownConfig
from townlet_sim.engine import GivenTown, TownBatch
from townlet_sim.spaces import ACTIONS, REWARD_TERMS

__all__ = ["TownParallelEnv", "parallel_env"]

AgentObservation = dict[str, NDArray[Any]]


def parallel_env(
    options: Mapping[str, Any] | None = None,
    *,
    render_mode: str | None = None,
    scenario: str | Path | Mapping[str, Any] | None = None,
    given: GivenTown | None = None,
) -> TownParallelEnv:
    """Make the PettingZoo environment of one town.

    Parameters
    ----------
    options:
        Fields of :class:`~townlet_sim.config.TownConfig`.
    render_mode:
        ``"ansi"``, ``"rgb_array"`` or ``None``.
    scenario:
        Name of a packaged scenario, path of a file, or what such a file holds (:mod:`townlet_sim.scenarios`); it may
        also stand in ``options``.
    given:
        A map and a start of one's own, instead of a scenario.

    Raises
    ------
    FileNotFoundError
        When there is no such scenario.
    ValueError
        When an option or the scenario is wrong, or when both ``scenario`` and ``given`` are there.
    """
    chosen = {**(options or {}), "centralised_state": True}
    if scenario is not None:
        chosen["scenario"] = scenario
    if given is None:
        return TownParallelEnv(make_simulation(1, chosen), render_mode=render_mode)
    if chosen.get("scenario") is not None:
        msg = "scenario and given: a town begins in one way; leave one of them out"
        raise ValueError(msg)
    return TownParallelEnv(TownBatch(TownConfig.model_validate(chosen), 1, given=given), render_mode=render_mode)


class TownParallelEnv(ParallelEnv[str, AgentObservation, int]):  # type: ignore[misc]  # untyped base
    """One town, made by :func:`parallel_env`; agents are ``agent_0 .. agent_{N-1}``.

    Observations are dictionaries: ``map`` (C, W, W) uint8, ``features`` (F,) float32, ``action_mask`` (A,) int8.

    An agent that leaves the town is followed by a new one under the same name, marked by ``infos[...]["exited"]``
    and by the feature ``ctx_reset_flag``: PettingZoo knows no revival, so this is not a termination. With the
    option ``respawn: false`` the exit terminates the agent, which then leaves ``agents`` until the next reset. Who
    arrives by a scenario's timeline is in ``agents`` from then on.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "townlet_v1",
        "render_modes": ["ansi", "rgb_array"],
        "is_parallelizable": True,
        "render_fps": 8,
    }

    def __init__(self, batch: TownBatch, *, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            msg = f"render_mode {render_mode!r}: expected None or one of {self.metadata['render_modes']}"
            raise ValueError(msg)
        self.render_mode = render_mode
        self.batch, config = batch, batch.config
        self.possible_agents = [f"agent_{n}" for n in range(config.agents)]
        self.agents: list[str] = []
        self._slot = {agent: n for n, agent in enumerate(self.possible_agents)}
        self._rows = self.batch.allocate()
        self._seeds = np.random.default_rng()
        self._respawn = config.respawn
        self._observations = dict.fromkeys(self.possible_agents, self._space())
        self._actions = {agent: spaces.Discrete(len(ACTIONS)) for agent in self.possible_agents}
        self.state_space = spaces.Box(-1.0, 1.0, self.batch.spec.observations["state"].shape, np.float32)
        self._state = np.zeros(self.state_space.shape, np.float32)

    def _space(self) -> spaces.Dict:
        spec = self.batch.spec.observations
        return spaces.Dict(
            {
                "map": spaces.Box(0, 255, spec["map"].shape, np.uint8),
                "features": spaces.Box(-1.0, 1.0, spec["features"].shape, np.float32),
                "action_mask": spaces.Box(0, 1, (len(ACTIONS),), np.int8),
            }
        )

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the observation space of an agent; the same object every time."""
        return self._observations[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the action space of an agent; the same object every time."""
        return self._actions[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, AgentObservation], dict[str, dict[str, Any]]]:
        """Begin an episode; without a seed, the next one of the last seed's sequence."""
        del options  # part of the interface; an episode has none
        if seed is not None:
            self._seeds = np.random.default_rng(seed)
        self.batch.reset(seed=int(self._seeds.integers(1 << 63)), out=self._rows)
        self.agents = [agent for agent in self.possible_agents if self._rows.alive[self._slot[agent]]]
        self._state = self._rows.observations["state"][0].copy()
        return self._observe(final=False), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, AgentObservation],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Play one tick; infos hold the reward terms, and whether the action was outside the mask."""
        if not self.agents:
            return {}, {}, {}, {}, {}
        vector = np.zeros(len(self.possible_agents), np.int64)
        for agent, action in actions.items():
            vector[self._slot[agent]] = action
        rows = self._rows
        self.batch.step(vector, rows)
        over = bool(rows.truncated.any()) or int(self.batch.arrays.town_i[0, 0]) == 0
        exited, invalid, terms = rows.terminated, self.batch.invalid_actions, self.batch.reward_terms[0]
        observations = self._observe(final=over)
        rewards, terminations, truncations, infos = {}, {}, {}, {}
        for agent in self.agents:
            n = self._slot[agent]
            left = bool(exited[n])
            rewards[agent] = float(rows.rewards[n])
            terminations[agent] = left and not self._respawn
            truncations[agent] = over and not terminations[agent]
            infos[agent] = {
                "exited": left,
                "invalid_action": bool(invalid[n]),
                "reward_terms": dict(zip(REWARD_TERMS, terms[n].tolist(), strict=True)),
            }
            if terminations[agent] and not over:
                observations[agent] = self._row(n, rows.final_observation)
        source = rows.final_observation if over else rows.observations
        self._state = source["state"][0].copy()
        if over:
            kpis = {name: float(value[0]) for name, value in self.batch.kpis().items()}
            for info in infos.values():
                info["kpis"] = kpis
            self.agents = []
        else:
            staying = {agent for agent in self.agents if not terminations[agent]}
            arrived = [agent for agent, n in self._slot.items() if rows.alive[n] and agent not in terminations]
            for agent in arrived:  # by a scenario's timeline
                observations[agent] = self._row(self._slot[agent], rows.observations)
                rewards[agent], terminations[agent], truncations[agent] = 0.0, False, False
                infos[agent] = {}
            self.agents = [agent for agent in self.possible_agents if agent in staying or agent in arrived]
        return observations, rewards, terminations, truncations, infos

    def _row(self, n: int, source: Mapping[str, NDArray[Any]]) -> AgentObservation:
        return {
            "map": source["map"][n].copy(),
            "features": source["features"][n].copy(),
            "action_mask": self._rows.action_mask[n].astype(np.int8),
        }

    def _observe(self, *, final: bool) -> dict[str, AgentObservation]:
        source = self._rows.final_observation if final else self._rows.observations
        return {agent: self._row(self._slot[agent], source) for agent in self.agents}

    def state(self) -> NDArray[np.float32]:
        """Return the centralised state ``(9 N + 6,)`` for a critic."""
        return self._state.copy()

    def render(self) -> str | NDArray[np.uint8] | None:
        """Return a text or ``(H, W, 3)`` picture of the town, by ``render_mode``."""
        if self.render_mode is None:
            return None
        from townlet_sim import render

        if self.render_mode == "ansi":
            return render.render_ansi(self.batch, 0)
        return render.render_rgb(self.batch, 0)

    def close(self) -> None:
        """Release what the town holds."""
        self.batch.close()

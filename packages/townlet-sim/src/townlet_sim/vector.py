"""The towns as one Gymnasium ``VectorEnv``: agents flattened, same-step reset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from townlet_sim import make_simulation
from townlet_sim.spaces import ACTIONS

__all__ = ["TownVectorEnv"]


class TownVectorEnv(VectorEnv[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[Any]]):
    """S = B x N agents as S environments; slot ``b * N + n``.

    Parameters
    ----------
    num_towns:
        B.
    options:
        Fields of :class:`~townlet_sim.config.TownConfig`.
    scenario:
        Name of a packaged scenario, path of a file, or what such a file holds; it may also stand in ``options``.
    threads:
        Worker threads.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # an instance variable in the base class
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        num_towns: int,
        options: Mapping[str, Any] | None = None,
        *,
        threads: int = 1,
        scenario: str | Path | Mapping[str, Any] | None = None,
    ) -> None:
        chosen = dict(options or {})
        if scenario is not None:
            chosen["scenario"] = scenario
        self.batch = make_simulation(num_towns, chosen, threads=threads)
        spec = self.batch.spec
        self.num_envs = num_towns * spec.agents_per_env
        self.single_observation_space = spaces.Dict(
            {
                "map": spaces.Box(0, 255, spec.observations["map"].shape, np.uint8),
                "features": spaces.Box(-1.0, 1.0, spec.observations["features"].shape, np.float32),
                "action_mask": spaces.Box(0, 1, (len(ACTIONS),), np.int8),
            }
        )
        self.single_action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rows = self.batch.allocate()
        self._seeds = np.random.default_rng()

    def _observe(self) -> dict[str, NDArray[Any]]:
        rows = self._rows
        return {
            "map": rows.observations["map"].copy(),
            "features": rows.observations["features"].copy(),
            "action_mask": rows.action_mask.astype(np.int8),
        }

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin new episodes everywhere; a list of seeds gives one for each town."""
        del options  # part of the interface; an episode has none
        if isinstance(seed, list):
            seeds = [int(self._seeds.integers(1 << 63)) if value is None else value for value in seed]
            self.batch.reset(seed=seeds, out=self._rows)
        else:
            if seed is not None:
                self._seeds = np.random.default_rng(seed)
            self.batch.reset(seed=int(self._seeds.integers(1 << 62)), out=self._rows)
        return self._observe(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Play one tick; ``infos["final_obs"]`` holds true last observations where ``infos["_final_obs"]``."""
        rows = self._rows
        self.batch.step(np.asarray(actions), rows)
        ended = rows.terminated | rows.truncated
        infos: dict[str, Any] = {"invalid_action": self.batch.invalid_actions}
        if ended.any():
            infos["final_obs"] = {name: array.copy() for name, array in rows.final_observation.items()}
            infos["_final_obs"] = ended.copy()
        return self._observe(), rows.rewards.copy(), rows.terminated.copy(), rows.truncated.copy(), infos

    def close_extras(self, **kwargs: Any) -> None:
        """Release the worker threads."""
        del kwargs
        self.batch.close()

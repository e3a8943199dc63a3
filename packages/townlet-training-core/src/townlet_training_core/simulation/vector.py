"""A Gymnasium vector environment behind the simulation port: many slots, stepped by the vector environment itself.

Faster than copies where the environment has a vectorised implementation of its own; in exchange its episodes after
the first are seeded by the environment, and its state cannot be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, ArraySpec, IntArray
from townlet_training_core.errors import CapabilityError, ConfigurationError, DataError, SpaceMismatchError
from townlet_training_core.simulation.environments import EnvironmentSpec, environment_hash
from townlet_training_core.simulation.port import StepOut

__all__ = ["VectorSimulation"]


class VectorSimulation:
    """The simulation port over a vector environment with vector or image observations and discrete actions.

    Parameters
    ----------
    environment:
        A ``gymnasium.vector.VectorEnv`` made with ``autoreset_mode=AutoresetMode.SAME_STEP``.
    name:
        For the spec.

    Raises
    ------
    ConfigurationError
        When the environment resets in another way: its final observations would be lost.
    SpaceMismatchError
        When the action space is not discrete, or the observations are no single array.
    """

    def __init__(self, environment: Any, *, name: str) -> None:
        from gymnasium import spaces
        from gymnasium.vector import AutoresetMode

        mode = environment.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            msg = f"vector environment {name!r} has autoreset_mode {mode}, expected AutoresetMode.SAME_STEP"
            raise ConfigurationError(msg)
        seen, choice = environment.single_observation_space, environment.single_action_space
        if not isinstance(choice, spaces.Discrete) or not isinstance(seen, spaces.Box):
            msg = f"vector environment {name!r} has the spaces {seen} and {choice}; expected Box and Discrete"
            raise SpaceMismatchError(msg)
        self._environment, self._first_action = environment, int(choice.start)
        self._target = "features" if len(seen.shape) == 1 else "map"
        dtype = np.dtype(np.uint8 if seen.dtype == np.uint8 else np.float32)
        shape = seen.shape if len(seen.shape) != 2 else (1, *seen.shape)
        self.spec = EnvironmentSpec(
            name=name,
            num_envs=int(environment.num_envs),
            agents_per_env=1,
            observations={self._target: ArraySpec(tuple(shape), dtype)},
            action_names=tuple(f"action_{index}" for index in range(int(choice.n))),
            feature_names=tuple(f"observation_{index}" for index in range(shape[0])) if len(shape) == 1 else (),
            map_channels=tuple(f"channel_{index}" for index in range(shape[0])) if len(shape) == 3 else (),
            rules_hash=environment_hash(env=name),
        )
        self.events: NDArray[Any] = np.empty(0, EVENT_DTYPE)

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        """Begin new episodes everywhere."""
        count = self.spec.num_envs
        seeds = [seed + number for number in range(count)] if isinstance(seed, int) else [int(one) for one in seed]
        if len(seeds) != count:
            msg = f"{len(seeds)} seeds for {count} environments; expected one each"
            raise DataError(msg)
        seen, _ = self._environment.reset(seed=[one % 2**32 for one in seeds])
        self._show(seen, out)

    def step(self, actions: IntArray, out: StepOut) -> None:
        """Advance every environment; ended ones begin their next episode in the same step."""
        seen, rewards, terminated, truncated, infos = self._environment.step(actions + self._first_action)
        out.rewards[...] = rewards
        out.terminated[...] = terminated
        out.truncated[...] = truncated & ~terminated
        for slot in np.nonzero(terminated | truncated)[0]:
            out.final_observation[self._target][slot] = np.reshape(infos["final_obs"][slot], self._shape)
        self._show(seen, out)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.spec.observations[self._target].shape

    def _show(self, seen: Any, out: StepOut) -> None:
        out.observations[self._target][...] = np.reshape(seen, (-1, *self._shape))
        out.action_mask[...] = True
        out.alive[...] = True

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Raise ``CapabilityError``: a vector environment does not say how its episodes were seeded."""
        msg = f"vector environment {self.spec.name!r} cannot be saved; use copies (simulation 'gymnasium') instead"
        raise CapabilityError(msg)

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        """Raise ``CapabilityError``; see :meth:`save_state`."""
        del state, out
        self.save_state()

    def close(self) -> None:
        """Close the environment."""
        if not getattr(self._environment, "closed", False):
            self._environment.close()

"""Any Gymnasium environment behind the simulation port: one slot a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from townlet_training_core.arrays import IntArray
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.simulation.environments import EnvironmentSimulation, environment_hash
from townlet_training_core.simulation.options import environment_options, require
from townlet_training_core.simulation.port import StepOut

__all__ = ["GymnasiumSimulation", "OneAgent", "make_simulation"]


class OneAgent:
    """A Gymnasium environment in the clothes of a parallel environment with the one agent ``"agent"``."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.one_step = environment.step
        self.possible_agents = ["agent"]
        self.agents = ["agent"]

    def reset(self, seed: int | None = None) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Begin an episode."""
        seen, info = self._environment.reset(seed=seed)
        self.agents = ["agent"]
        return {"agent": seen}, {"agent": info}

    def step(
        self, actions: dict[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], dict[Any, Any]]:
        """Advance; the agent leaves when its episode ends."""
        seen, reward, terminated, truncated, info = self._environment.step(actions["agent"])
        if terminated or truncated:
            self.agents = []
        return (
            {"agent": seen},
            {"agent": float(reward)},
            {"agent": bool(terminated)},
            {"agent": bool(truncated)},
            {"agent": info},
        )

    def observation_space(self, agent: Any) -> Any:
        """Return the environment's observation space."""
        del agent
        return self._environment.observation_space

    def action_space(self, agent: Any) -> Any:
        """Return the environment's action space."""
        del agent
        return self._environment.action_space

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()


class GymnasiumSimulation(EnvironmentSimulation):
    """Copies of a Gymnasium environment: :class:`EnvironmentSimulation` without the work that many agents need.

    Parameters
    ----------
    environments, name, rules_hash, versions:
        As there.
    """

    def __init__(
        self,
        environments: Sequence[OneAgent],
        *,
        name: str,
        rules_hash: str,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(environments, name=name, rules_hash=rules_hash, versions=versions)
        self._steps = [environment.one_step for environment in environments]

    def step(self, actions: IntArray, out: StepOut) -> None:
        """Advance every copy by one step; an ended one begins its next episode in the same step."""
        if self.spec.masked:  # a mask comes with each observation
            super().step(actions, out)
            return
        out.terminated[...] = False
        out.truncated[...] = False
        out.alive[...] = True
        out.action_mask[...] = True
        layout, first = self._layouts["agent"], self._first_action["agent"]
        history, rewards = actions.copy(), []
        for slot, (copy, advance) in enumerate(zip(self._copies, self._steps, strict=True)):
            copy.history.append(history[slot : slot + 1])
            seen, reward, terminated, truncated, _ = advance(history[slot] + first)
            rewards.append(reward)
            if terminated or truncated:
                out.terminated[slot], out.truncated[slot] = terminated, truncated
                layout.write(seen, out.final_observation, slot)
                copy.episode += 1
                self._begin(copy, out)
            else:
                layout.write(seen, out.observations, slot)
        out.rewards[...] = rewards


def make_simulation(num_envs: int, options: Mapping[str, Any], *, threads: int = 1) -> GymnasiumSimulation:
    """Make ``num_envs`` copies of a Gymnasium environment.

    Parameters
    ----------
    num_envs:
        B, copies stepped together; each is one slot.
    options:
        ``env``: a registered id, e.g. ``"CartPole-v1"``; ``kwargs``: keyword arguments of ``gymnasium.make``
        (``max_episode_steps`` among them).
    threads:
        Accepted for the sake of the port; Python environments are stepped by one thread.

    Raises
    ------
    ConfigurationError
        When the options are wrong or the id is not registered.
    MissingDependencyError
        When Gymnasium is not installed.
    SpaceMismatchError
        When the spaces are not supported.
    """
    del threads
    require("gymnasium", simulation="gymnasium")
    import gymnasium

    env, kwargs = environment_options(options, simulation="gymnasium", example="CartPole-v1")
    try:
        copies = [OneAgent(gymnasium.make(env, **kwargs)) for _ in range(num_envs)]
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        msg = f"simulation.options of 'gymnasium': {env!r} cannot be made with {kwargs!r}: {error}"
        raise ConfigurationError(msg) from error
    return GymnasiumSimulation(
        copies,
        name=f"gymnasium:{env}",
        rules_hash=environment_hash(env=env, kwargs=kwargs, version=gymnasium.__version__),
        versions={"gymnasium": gymnasium.__version__},
    )

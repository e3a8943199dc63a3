"""The kit for policies passes what keeps the port and catches what breaks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_training_core.arrays import BoolArray, FloatArray, IntArray, Observations
from townlet_training_core.policy.port import ActionStep, UniformSource
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.simulation.port import Simulation, StepOut
from townlet_training_core.testing.counting import CountingPolicy, CountingSimulation
from townlet_training_core.testing.policies import check_policy
from townlet_training_core.testing.simulations import check_simulation


def simulation() -> CountingSimulation:
    return CountingSimulation(3, agents_per_env=2, masked=True, leaves_after=2)


def test_our_own_policies_conform() -> None:
    check_policy(RandomPolicy, simulation())
    check_policy(CountingPolicy, simulation())
    check_policy(ScriptedPolicy, simulation(), samples=False)


class Memory(CountingPolicy):
    """Its value is the number of steps it remembers."""

    def bind(self, simulation: Simulation) -> None:
        self.steps = np.zeros(simulation.spec.num_envs * simulation.spec.agents_per_env, np.int64)

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        decision = super().act(observations, rng, greedy=greedy)
        self.steps = self.steps + 1
        return decision

    def values(self, observations: Observations) -> FloatArray:
        return self.steps.astype(np.float32)

    def reset(self, ended: BoolArray | None = None) -> None:
        self.steps = np.where(True if ended is None else ended, 0, self.steps)

    def recurrent_state(self) -> dict[str, Any]:
        return {"steps": self.steps.copy()}

    def load_recurrent_state(self, state: Any) -> None:
        self.steps = np.array(state["steps"])


class Moving(Memory):
    def values(self, observations: Observations) -> FloatArray:
        self.steps = self.steps + 1
        return super().values(observations)


class Forgetful(Memory):
    def load_recurrent_state(self, state: Any) -> None:
        self.steps = self.steps * 0


class Blind(RandomPolicy):
    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        drawn = rng.random(len(observations["features"]))
        return ActionStep(actions=(drawn * 3).astype(np.int64))


class Greedy(RandomPolicy):
    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        return super().act(observations, rng)


class Thirsty(RandomPolicy):
    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        rng.random(1)
        return super().act(observations, rng, greedy=greedy)


class Fickle(CountingPolicy):
    def values(self, observations: Observations) -> FloatArray | None:
        return super().values(observations) if observations["features"][0, 2] < 2 else None


class Certain(CountingPolicy):
    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        decision = super().act(observations, rng, greedy=greedy)
        return ActionStep(actions=decision.actions, log_probs=np.ones(len(decision.actions), np.float32))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Moving, "moved the recurrent state"),
        (Forgetful, "does not restore"),
        (Blind, "a masked action was chosen"),
        (Greedy, "greedy depends on the stream"),
        (Thirsty, "uniforms drawn"),
        (Fickle, "at every step or at none"),
        (Certain, "above 0"),
    ],
)
def test_policies_that_break_the_port_are_caught(policy: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_policy(policy, simulation())


def test_a_policy_with_memory_conforms() -> None:
    check_policy(Memory, simulation())


class SideEffect(CountingSimulation):
    """Asking its expert moves the clock."""

    def expert_actions(self) -> IntArray:
        actions = super().expert_actions()
        self._ticks += 1
        return actions


class Unsaved(CountingSimulation):
    """Forgets the episode when it is saved."""

    def save_state(self) -> dict[str, Any]:
        return {**super().save_state(), "ticks": self._ticks * 0}


class Crowded(CountingSimulation):
    """What an environment does depends on the number of others."""

    def step(self, actions: IntArray, out: StepOut) -> None:
        super().step(actions, out)
        out.rewards[...] += self.spec.num_envs


class Undead(CountingSimulation):
    """Ends episodes of slots that are dead."""

    def step(self, actions: IntArray, out: StepOut) -> None:
        super().step(actions, out)
        out.terminated[...] = True


class Shuttered(CountingSimulation):
    """Forbids everything."""

    def _show(self, out: StepOut) -> None:
        super()._show(out)
        out.action_mask[...] = False


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (SideEffect, "asking the expert twice"),
        (Unsaved, "after load_state"),
        (Crowded, "another number of environments"),
        (Undead, "dead cannot end"),
        (Shuttered, "no allowed action"),
    ],
)
def test_simulations_that_break_the_port_are_caught(kind: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_simulation(lambda count: kind(count, agents_per_env=2, leaves_after=2, masked=True), steps=37)

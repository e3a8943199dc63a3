"""The simulation's own expert as a policy."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from townlet_training_core.arrays import BoolArray, FloatArray, Observations
from townlet_training_core.errors import CapabilityError
from townlet_training_core.policy.port import ActionStep, UniformSource

if TYPE_CHECKING:  # a type only: policies and simulations are neighbours
    from townlet_training_core.simulation.port import Simulation

__all__ = ["ScriptedPolicy"]


class ScriptedPolicy:
    """Asks the bound simulation for ``expert_actions()``.

    It is deterministic given the state of the simulation, draws nothing, and has neither log-probabilities
    nor values: they are absent, not zero.
    """

    name = "scripted"

    def __init__(self) -> None:
        self._simulation: Simulation | None = None

    def bind(self, simulation: Simulation) -> None:
        """Take the simulation whose expert decides.

        Raises
        ------
        CapabilityError
            When the simulation has no ``expert_actions()``.
        """
        if not callable(getattr(simulation, "expert_actions", None)):
            msg = (
                f"simulation {simulation.spec.name!r} has no expert_actions(), so policy 'scripted' cannot "
                "decide in it; choose another policy or a simulation with a scripted expert"
            )
            raise CapabilityError(msg)
        self._simulation = simulation

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Return the expert's actions for the current state of the bound simulation."""
        del observations, rng, greedy  # the expert looks at the state itself and draws nothing
        if self._simulation is None:
            msg = "policy 'scripted' acts only after bind(simulation)"
            raise CapabilityError(msg)
        return ActionStep(actions=self._simulation.expert_actions())  # type: ignore[attr-defined]  # checked in bind

    def values(self, observations: Observations) -> FloatArray | None:
        """Return ``None``: there is no value function."""
        del observations
        return None

    def reset(self, ended: BoolArray | None = None) -> None:
        """Forget nothing: the state is the simulation's."""

    def content_hash(self) -> str:
        """Hash of the expert: that of the rules it lives by, since it is part of them."""
        rules = "" if self._simulation is None else self._simulation.spec.rules_hash
        return hashlib.sha256(f"townlet scripted policy 1 {rules}".encode()).hexdigest()

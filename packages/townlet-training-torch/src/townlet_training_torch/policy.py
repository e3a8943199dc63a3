"""A network as a policy: acts in rollouts without copies, and exports itself for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_core.arrays import ACTION_MASK, BoolArray, FloatArray, Observations
from townlet_training_core.policy.exported import ExportedPolicy, check_fit
from townlet_training_core.policy.port import ActionStep, UniformSource, sample_actions
from townlet_training_core.simulation.port import Simulation
from townlet_training_torch.acting import DenseForward
from townlet_training_torch.handwritten import covers
from townlet_training_torch.networks import Memory, NetworkOutput, PolicyValueNetwork

__all__ = ["TorchPolicy"]


class TorchPolicy:
    """Acts with a network that a learner goes on training: its weights are shared, not copied.

    On the CPU observations are read where the simulation wrote them. Evaluations use :meth:`exported`, whose
    numbers are the same in every process, with torch or without.
    """

    name = "torch"

    def __init__(self, network: PolicyValueNetwork) -> None:
        self.network = network
        self._slots, self._masked = 0, True
        self._memory: Memory = {}
        self._dense: DenseForward | None = None

    def bind(self, simulation: Simulation) -> None:
        """Check the fit and forget everything.

        Raises
        ------
        SpaceMismatchError
            When observations or actions differ from those that the network was made for.
        """
        check_fit(self.network.description, simulation.spec)
        self._slots = simulation.spec.num_envs * simulation.spec.agents_per_env
        self._masked = simulation.spec.masked
        self.reset()

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Decide for all slots by one uniform each."""
        dense = self._dense_for(observations)
        if dense is not None:
            logits, values = dense(observations)
        else:
            with torch.inference_mode():
                output = self._forward(observations)
                logits, values = output.logits.cpu().numpy(), output.values.cpu().numpy()
                self._memory = output.memory
        # Action-major: sums over actions then run along contiguous rows.
        table = np.ascontiguousarray(logits.T)
        if self._masked:
            np.copyto(table, np.finfo(np.float32).min, where=~observations[ACTION_MASK].T)
        table -= table.max(axis=0)
        weights = np.exp(table)
        slots = np.arange(table.shape[1])
        actions = table.argmax(axis=0) if greedy else sample_actions(weights.T, rng.random(len(slots)))
        log_probs = table[actions, slots] - np.log(weights.sum(axis=0))
        return ActionStep(actions=actions, log_probs=log_probs, values=values.copy())

    def values(self, observations: Observations) -> FloatArray | None:
        """Return the value of each row; the memory stays where it is."""
        dense = self._dense_for(observations)
        if dense is not None:
            return dense(observations)[1].copy()
        with torch.inference_mode():
            values: FloatArray = self._forward(observations).values.cpu().numpy()
        return values

    def reset(self, ended: BoolArray | None = None) -> None:
        """Forget the memory of slots whose episode ended, or of all."""
        if ended is None or not self._memory:
            self._memory = self.network.initial_memory(self._slots)
        elif self._memory:
            kept = self._tensor(~ended).unsqueeze(-1)
            self._memory = {name: array * kept for name, array in self._memory.items()}

    def recurrent_state(self) -> dict[str, NDArray[Any]]:
        """Return copies of the memory, ``(S, hidden_dim)`` each; empty when there is none."""
        return {name: array.cpu().numpy().copy() for name, array in self._memory.items()}

    def load_recurrent_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore :meth:`recurrent_state`."""
        self._memory = {name: self._tensor(np.array(array)) for name, array in state.items()}

    def content_hash(self) -> str:
        """Hash of the exported policy."""
        return self.exported().content_hash()

    def exported(self) -> ExportedPolicy:
        """Copy the weights into a policy that needs no torch; later training does not change it."""
        tensors = {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.network.state_dict().items()}
        return ExportedPolicy(tensors, self.network.description)

    def _dense_for(self, observations: Observations) -> DenseForward | None:
        """Return the quick forward pass for so many rows, where the network and its device allow it."""
        rows = len(observations[ACTION_MASK])
        if self._slots and rows != self._slots:  # a few final observations: arrays for all slots are kept
            return None
        if self._dense is None or self._dense.rows != rows:
            here = self.network.policy_head.weight.device.type == "cpu"
            self._dense = DenseForward(self.network, rows=rows) if here and covers(self.network.description) else None
        return self._dense

    def _forward(self, observations: Observations) -> NetworkOutput:
        inputs = {name: self._tensor(observations[name]) for name in self.network.description.inputs}
        output: NetworkOutput = self.network(inputs, self._tensor(observations[ACTION_MASK]), self._memory)
        return output

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.network.policy_head.weight.device)

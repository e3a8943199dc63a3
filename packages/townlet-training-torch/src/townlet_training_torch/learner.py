"""The learner: one network, its optimiser, and the step that both algorithms take."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_core.config.models import ComputeConfig
from townlet_training_core.errors import CheckpointError
from townlet_training_torch import gradients, kernels
from townlet_training_torch.device import alone
from townlet_training_torch.flat import FlatAdam, FlatParameters
from townlet_training_torch.gradients import CloningGradients, PPOGradients
from townlet_training_torch.handwritten import HandwrittenNetwork, covers
from townlet_training_torch.minibatches import MiniBatch
from townlet_training_torch.networks import NetworkOutput, PolicyValueNetwork

__all__ = ["Learner"]


class Learner:
    """Steps a network by Adam; nothing in a step waits for the device.

    Attributes
    ----------
    handwritten:
        Computes outputs and gradients without autograd; ``None`` where the network is not covered or
        ``compute.handwritten`` is off.
    ppo_gradients, cloning_gradients:
        Those of :mod:`~townlet_training_torch.gradients`, or on the CPU of :mod:`~townlet_training_torch.kernels`; the
        first by torch's compiler where ``compute.compile`` says so.

    Parameters
    ----------
    network:
        Already on its device. Its parameters become views of one tensor.
    learning_rate, eps, weight_decay:
        Of Adam; the decay is decoupled (Loshchilov and Hutter 2019) and 0 gives plain Adam.
    max_grad_norm:
        Global gradient norm limit; 0 disables it.
    compute:
        ``handwritten``, ``bf16`` and ``compile`` are honoured here.
    """

    def __init__(
        self,
        network: PolicyValueNetwork,
        *,
        learning_rate: float,
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.5,
        compute: ComputeConfig | None = None,
    ) -> None:
        compute = compute or ComputeConfig()
        self.network = network
        self.device = network.policy_head.weight.device
        self._max_grad_norm, self._bf16 = max_grad_norm, compute.bf16
        self._flat = FlatParameters(network, value_only=network.value_parameters())
        self._adam = FlatAdam(self._flat, learning_rate=learning_rate, eps=eps, weight_decay=weight_decay)
        self._value_only = False
        self.handwritten: HandwrittenNetwork | None = None
        source = kernels if self.device.type == "cpu" else gradients
        self.ppo_gradients: Callable[..., PPOGradients] = source.ppo_gradients
        self.cloning_gradients: Callable[..., CloningGradients] = source.cloning_gradients
        self._forward: Any = network
        if compute.handwritten and covers(network.description):
            self.handwritten = HandwrittenNetwork(network, self._flat, bf16=compute.bf16)
            if compute.compile:
                self.ppo_gradients = _compiled(
                    gradients.ppo_gradients,
                    partial(_try_gradients, actions=len(network.description.action_names), device=self.device),
                )
        elif compute.compile:
            self._forward = _compiled(network, partial(_try_forward, network=network))

    def forward(self, batch: MiniBatch) -> NetworkOutput:
        """Compute logits and values of a mini-batch of rows, or of sequences, for autograd."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext():
            if batch.episode_starts is not None:
                return self.network.forward_sequence(
                    batch.observations, batch.action_mask, batch.memory, batch.episode_starts
                )
            output: NetworkOutput = self._forward(batch.observations, batch.action_mask)
            return output

    def step(self, loss: Tensor) -> Tensor:
        """Differentiate; return the global gradient norm before clipping, a scalar tensor."""
        self._flat.gradients.zero_()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return self.clip()

    def clip(self) -> Tensor:
        """Scale the gradients down to the limit; return their norm before, a scalar tensor."""
        part = self._flat.gradients[self._flat.split if self._value_only else 0 :]
        with alone(part.numel()):
            norm: Tensor = torch.linalg.vector_norm(part)
            if self._max_grad_norm > 0.0 and self.device.type == "cpu":  # where to look is to wait for nothing
                share = np.float32(1.0) / (np.float32(norm.item()) + np.float32(1e-6)) * np.float32(self._max_grad_norm)
                if share < 1.0:
                    part.mul_(float(share))
            elif self._max_grad_norm > 0.0:
                part.mul_((self._max_grad_norm / (norm + 1e-6)).clamp_max_(1.0))
        return norm

    def apply(self) -> None:
        """Let the optimiser use the gradients."""
        self._adam.step(value_only=self._value_only)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use ``learning_rate`` from the next step on."""
        self._adam.learning_rate = learning_rate

    def train_value_only(self, value_only: bool) -> None:
        """Freeze (or free) every parameter that the policy depends on."""
        self._value_only = value_only
        free = {id(parameter) for parameter in self.network.value_parameters()}
        for parameter in self.network.parameters():
            parameter.requires_grad_(not value_only or id(parameter) in free)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return copies of the network's tensors by name."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.network.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, NDArray[Any]], *, source: str) -> None:
        """Restore :meth:`tensors`; see :meth:`PolicyValueNetwork.load_tensors` for what is raised."""
        self.network.load_tensors(
            {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}, source=source
        )

    def optimizer_arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of the optimiser's moments and step counts as ``optimizer/<parameter>/<moment>``."""
        return {f"optimizer/{name}": array for name, array in self._adam.arrays().items()}

    def load_optimizer_arrays(self, arrays: Mapping[str, NDArray[Any]], *, source: str) -> None:
        """Restore :meth:`optimizer_arrays`; arrays of other names are ignored.

        Raises
        ------
        CheckpointError
            When a moment has another shape than its parameter.
        """
        for path, array in arrays.items():
            if not path.startswith("optimizer/"):
                continue
            _, name, key = path.split("/")
            if not self._adam.load(name, key, array):
                msg = f"{source}: optimiser state {path!r} {array.shape} fits no parameter of this network"
                raise CheckpointError(msg)


def _compiled(function: Any, attempt: Callable[[Any], None]) -> Any:
    """Compile a function, or fall back to it with one warning where there is no compiler."""
    try:
        made = torch.compile(function)
        attempt(made)
    except Exception as error:  # whatever the compiler's backend raises
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"compute.compile: torch.compile does not work here ({text}); going on without", stacklevel=3)
        return function
    return made


def _try_forward(made: Any, network: PolicyValueNetwork) -> None:
    """Call a compiled network once."""
    device = network.policy_head.weight.device
    made({name: torch.zeros(2, *item.shape, device=device) for name, item in network.description.inputs.items()})


def _try_gradients(made: Any, *, actions: int, device: torch.device) -> None:
    """Call compiled gradients once."""
    rows, columns = torch.zeros(actions, 2, device=device), torch.zeros(2, device=device)
    made(
        rows,
        columns,
        actions=torch.zeros(2, dtype=torch.int64, device=device),
        **dict.fromkeys(("old_log_probs", "advantages", "returns", "old_values"), columns),
        **dict.fromkeys(("mask", "everyone", "acting", "labels")),
        **dict.fromkeys(("clip_param", "value_clip", "value_loss_coef", "entropy_coef", "bc_weight"), 0.1),
        normalize=True,
    )

"""The learner: one network, its optimiser, and the step that both algorithms take."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_core.config.models import ComputeConfig
from townlet_training_core.errors import CheckpointError
from townlet_training_torch.minibatches import MiniBatch
from townlet_training_torch.networks import NetworkOutput, PolicyValueNetwork

__all__ = ["Learner"]


class Learner:
    """Steps a network by Adam; nothing in a step waits for the device.

    Parameters
    ----------
    network:
        Already on its device.
    learning_rate, eps, weight_decay:
        Of Adam; the decay is decoupled (Loshchilov and Hutter 2019) and 0 gives plain Adam.
    max_grad_norm:
        Global gradient norm limit; 0 disables it.
    compute:
        ``bf16`` and ``compile`` are honoured here.
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
        self.network = network
        self.device = network.policy_head.weight.device
        self._max_grad_norm = max_grad_norm
        self._bf16 = compute is not None and compute.bf16
        self._forward = _compiled(network) if compute is not None and compute.compile else network
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, eps=eps, weight_decay=weight_decay, fused=True
        )

    def forward(self, batch: MiniBatch) -> NetworkOutput:
        """Compute logits and values of a mini-batch of rows, or of sequences."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext():
            if batch.episode_starts is not None:
                return self.network.forward_sequence(
                    batch.observations, batch.action_mask, batch.memory, batch.episode_starts
                )
            output: NetworkOutput = self._forward(batch.observations, batch.action_mask)
            return output

    def step(self, loss: Tensor) -> Tensor:
        """Descend once; return the global gradient norm before clipping, a scalar tensor."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        limit = self._max_grad_norm if self._max_grad_norm > 0.0 else float("inf")
        return torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)

    def apply(self) -> None:
        """Let the optimiser use the gradients of :meth:`step`."""
        self.optimizer.step()

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use ``learning_rate`` from the next step on."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def train_value_only(self, value_only: bool) -> None:
        """Freeze (or free) every parameter that the policy depends on."""
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
        return {
            f"optimizer/{name}/{key}": value.detach().cpu().numpy().copy()
            for name, parameter in self.network.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def load_optimizer_arrays(self, arrays: Mapping[str, NDArray[Any]], *, source: str) -> None:
        """Restore :meth:`optimizer_arrays`; arrays of other names are ignored.

        Raises
        ------
        CheckpointError
            When a moment has another shape than its parameter.
        """
        parameters = dict(self.network.named_parameters())
        for path, array in arrays.items():
            if not path.startswith("optimizer/"):
                continue
            _, name, key = path.split("/")
            if name not in parameters or (key != "step" and array.shape != parameters[name].shape):
                msg = f"{source}: optimiser state {path!r} {array.shape} fits no parameter of this network"
                raise CheckpointError(msg)
            device = torch.device("cpu") if key == "step" and self.device.type == "cpu" else self.device
            self.optimizer.state[parameters[name]][key] = torch.from_numpy(np.array(array)).to(device)


def _compiled(network: PolicyValueNetwork) -> Any:
    """Compile the forward pass, or fall back with one warning where there is no compiler."""
    try:
        made = torch.compile(network)
        first = network.description.inputs
        made(
            {
                name: torch.zeros(2, *item.shape, device=network.policy_head.weight.device)
                for name, item in first.items()
            }
        )
    except Exception as error:  # whatever the compiler's backend raises
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"compute.compile: torch.compile does not work here ({text}); going on without", stacklevel=2)
        return network
    return made

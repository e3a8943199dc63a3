"""The forward pass of dense feed-forward networks for acting on a CPU: into arrays made once, without copies.

Weights are read where the learner changes them. Few rows are multiplied by numpy, whose calls cost less; many by
torch, whose threads are the run's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from townlet_training_core.arrays import FloatArray, Observations
from townlet_training_core.policy.forward import NORMALISER_CLIP, NORMALISER_EPS
from townlet_training_torch.networks import PolicyValueNetwork

__all__ = ["DenseForward"]

_FEW = 4096
"""Rows times width of a layer below which numpy multiplies."""


@dataclass(slots=True)
class _Layer:
    """Transposed weights ``(in, out)`` and biases, as tensors and as arrays of the same memory."""

    weight: Tensor
    bias: Tensor
    weight_array: NDArray[np.float32]
    bias_array: NDArray[np.float32]

    @classmethod
    def of(cls, linear: nn.Module) -> _Layer:
        weight, bias = linear.get_parameter("weight").detach().t(), linear.get_parameter("bias").detach()
        return cls(weight, bias, weight.numpy(), bias.numpy())


class DenseForward:
    """Computes logits and values of a fixed number of rows.

    Parameters
    ----------
    network:
        A network that :func:`~townlet_training_torch.handwritten.covers`, on the CPU.
    rows:
        R.
    """

    def __init__(self, network: PolicyValueNetwork, *, rows: int) -> None:
        self._network, self.rows = network, rows
        description = network.description
        self._names: list[str] = [name for name in ("map", "features") if name in description.inputs]
        self._few = rows * description.hidden_dim <= _FEW
        hidden, joined = description.hidden_dim, description.hidden_dim * len(self._names)
        self._joined, self._latent = (torch.empty(rows, width) for width in (joined, hidden))
        self._logits, self._values = torch.empty(rows, len(description.action_names)), torch.empty(rows, 1)
        self._arrays = {id(t): t.numpy() for t in (self._joined, self._latent, self._logits, self._values)}
        self._cast: dict[str, NDArray[np.float32]] = {}
        self._place = 0

    def _bind(self) -> None:
        """Take the layers' tensors; a learner that was made in between has moved them."""
        encoder = {"map": "map_encoder.1", "features": "feature_encoder.0"}
        network, hidden = self._network, self._latent.shape[1]
        columns = [self._joined[:, hidden * k : hidden * (k + 1)] for k in range(len(self._names))]
        self._trunks = []
        for prefix in ("", "value_") if network.description.separate_trunks else ("",):
            encoders = [
                (name, _Layer.of(network.get_submodule(f"{prefix}{encoder[name]}")), part, part.numpy())
                for name, part in zip(self._names, columns, strict=True)
            ]
            self._trunks.append((encoders, _Layer.of(network.get_submodule(f"{prefix}shared.0"))))
        self._policy, self._value = _Layer.of(network.policy_head), _Layer.of(network.value_head)
        self._place = network.policy_head.weight.data_ptr()

    def __call__(self, observations: Observations) -> tuple[FloatArray, FloatArray]:
        """Return unmasked logits ``(R, A)`` and values ``(R,)``: arrays that the next call overwrites."""
        if self._network.policy_head.weight.data_ptr() != self._place:
            self._bind()
        inputs = {name: self._input(name, observations[name]) for name in self._names}
        if self._few:
            return self._by_numpy(inputs)
        with torch.inference_mode():
            return self._by_torch({name: torch.from_numpy(array) for name, array in inputs.items()})

    def _input(self, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
        description = self._network.description
        values: NDArray[np.float32] = array.reshape(len(array), -1)
        if values.dtype != np.float32:
            target = self._cast.setdefault(name, np.empty(values.shape, np.float32))
            np.copyto(target, values, casting="unsafe")
            values = target
        scale = description.inputs[name].scale
        if scale != 1.0:
            values = values * np.float32(scale)
        if name in description.normalised:
            moments = (self._network.normaliser.get_buffer(f"{name}_{part}").numpy() for part in ("mean", "var"))
            mean, variance = (moment.reshape(-1) for moment in moments)
            inverse = (1.0 / np.sqrt(variance + NORMALISER_EPS)).astype(np.float32)
            values = np.clip((values - mean.astype(np.float32)) * inverse, -NORMALISER_CLIP, NORMALISER_CLIP)
        return values

    def _by_numpy(self, inputs: dict[str, NDArray[np.float32]]) -> tuple[FloatArray, FloatArray]:
        joined, latent, logits, values = (
            self._arrays[id(tensor)] for tensor in (self._joined, self._latent, self._logits, self._values)
        )
        for number, (encoders, shared) in enumerate(self._trunks):
            for name, layer, _, part in encoders:
                np.matmul(inputs[name], layer.weight_array, out=part)
                part += layer.bias_array
            np.maximum(joined, 0.0, out=joined)
            np.matmul(joined, shared.weight_array, out=latent)
            latent += shared.bias_array
            np.maximum(latent, 0.0, out=latent)
            if number == 0:
                np.matmul(latent, self._policy.weight_array, out=logits)
                logits += self._policy.bias_array
        np.matmul(latent, self._value.weight_array, out=values)
        values += self._value.bias_array
        return logits, values[:, 0]

    def _by_torch(self, inputs: dict[str, Tensor]) -> tuple[FloatArray, FloatArray]:
        for number, (encoders, shared) in enumerate(self._trunks):
            for name, layer, part, _ in encoders:
                torch.addmm(layer.bias, inputs[name], layer.weight, out=part)
            torch.relu_(self._joined)
            torch.addmm(shared.bias, self._joined, shared.weight, out=self._latent)
            torch.relu_(self._latent)
            if number == 0:
                torch.addmm(self._policy.bias, self._latent, self._policy.weight, out=self._logits)
        torch.addmm(self._value.bias, self._latent, self._value.weight, out=self._values)
        return self._arrays[id(self._logits)], self._arrays[id(self._values)][:, 0]

"""The forward pass of the library's networks in numpy: what an exported policy computes.

Tensor names are those of the networks' ``state_dict``; linear weights are ``(out, in)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray

from townlet_training_core.dto.policy import PolicyDescription
from townlet_training_core.errors import CheckpointError

__all__ = ["NORMALISER_CLIP", "NORMALISER_EPS", "Memory", "NumpyNetwork", "expected_shapes"]

Array: TypeAlias = NDArray[np.floating[Any]]
Memory: TypeAlias = dict[str, Array]

NORMALISER_CLIP = 10.0
"""Standardised inputs are limited to this many deviations."""
NORMALISER_EPS = 1e-8
"""Added to the variance of standardised inputs."""

_CONV_CHANNELS = (32, 64)


def expected_shapes(description: PolicyDescription) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that a network of this description has."""
    hidden, actions = description.hidden_dim, len(description.action_names)
    inputs, shapes = description.inputs, dict[str, tuple[int, ...]]()

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    for trunk in ("", "value_") if description.separate_trunks else ("",):
        width = 0
        if "map" in inputs:
            channels, height, breadth = inputs["map"].shape
            if description.kind == "convolutional":
                for layer, (out, into) in enumerate(zip(_CONV_CHANNELS, (channels, _CONV_CHANNELS[0]), strict=True)):
                    shapes[f"{trunk}map_encoder.{2 * layer}.weight"] = (out, into, 3, 3)
                    shapes[f"{trunk}map_encoder.{2 * layer}.bias"] = (out,)
                linear(f"{trunk}map_encoder.5", hidden, _CONV_CHANNELS[1] * height * breadth)
            else:
                linear(f"{trunk}map_encoder.1", hidden, channels * height * breadth)
            width += hidden
        if "features" in inputs:
            linear(f"{trunk}feature_encoder.0", hidden, inputs["features"].shape[0])
            width += hidden
        linear(f"{trunk}shared.0", hidden, width)
    gates = {"none": 0, "gru": 3, "lstm": 4}[description.recurrent]
    if gates:
        for part in ("ih", "hh"):
            shapes[f"memory.weight_{part}"], shapes[f"memory.bias_{part}"] = (gates * hidden, hidden), (gates * hidden,)
    if description.centralised_critic:
        linear("state_encoder.0", hidden, inputs["state"].shape[0])
        linear("critic.0", hidden, 2 * hidden)
    linear("policy_head", actions, hidden)
    linear("value_head", 1, hidden)
    for name in description.normalised:
        for part in ("mean", "var"):
            shapes[f"normaliser.{name}_{part}"] = inputs[name].shape
        shapes[f"normaliser.{name}_count"] = ()
    return shapes


class NumpyNetwork:
    """One network's weights, ready to be multiplied.

    Parameters
    ----------
    tensors, description:
        Weights by name, and the network that they belong to.
    dtype:
        Precision of the arithmetic.

    Raises
    ------
    CheckpointError
        When tensors are missing, left over or of another shape than the description says.
    """

    def __init__(
        self, tensors: Mapping[str, NDArray[Any]], description: PolicyDescription, *, dtype: DTypeLike = np.float64
    ) -> None:
        expected = expected_shapes(description)
        found = {name: tuple(array.shape) for name, array in tensors.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                msg = (
                    f"policy tensor {name!r} has shape {found.get(name, 'none: it is missing')}, its description says "
                    f"{expected.get(name, 'that there is no such tensor')}; the weights belong to another network"
                )
                raise CheckpointError(msg)
        self.description = description
        self._dtype = np.dtype(dtype)
        # Transposed copies, so that the product is row-major times row-major.
        self._weights = {
            name: np.ascontiguousarray(array.astype(self._dtype).T)
            if array.ndim == 2
            else np.asarray(array, self._dtype)
            for name, array in tensors.items()
        }
        self._moments = {
            name: (
                np.asarray(tensors[f"normaliser.{name}_mean"], self._dtype),
                np.asarray(1.0 / np.sqrt(tensors[f"normaliser.{name}_var"] + NORMALISER_EPS), self._dtype),
            )
            for name in description.normalised
        }

    def initial_memory(self, slots: int) -> Memory:
        """Return the memory before anything was seen: zeros ``(S, hidden_dim)``, or nothing."""
        names = {"none": (), "gru": ("hidden",), "lstm": ("hidden", "cell")}[self.description.recurrent]
        return {name: np.zeros((slots, self.description.hidden_dim), self._dtype) for name in names}

    def forward(self, observations: Mapping[str, NDArray[Any]], memory: Memory) -> tuple[Array, Array, Memory]:
        """Return unmasked logits ``(R, A)``, values ``(R,)`` and the next memory for R rows."""
        inputs = {name: self._input(name, observations[name]) for name in self.description.inputs}
        latent = self._trunk("", inputs)
        memory = self._remember(latent, memory)
        latent = memory.get("hidden", latent)
        critic = self._trunk("value_", inputs) if self.description.separate_trunks else latent
        if self.description.centralised_critic:
            state = self._dense("state_encoder.0", inputs["state"])
            critic = self._dense("critic.0", np.concatenate([critic, state], axis=1))
        logits = self._linear("policy_head", latent)
        return logits, self._linear("value_head", critic)[:, 0], memory

    def _input(self, name: str, array: NDArray[Any]) -> Array:
        values: Array = np.asarray(array, self._dtype)
        scale = self.description.inputs[name].scale
        if scale != 1.0:
            values = values * scale
        if name in self._moments:
            mean, inverse = self._moments[name]
            values = np.clip((values - mean) * inverse, -NORMALISER_CLIP, NORMALISER_CLIP)
        return values

    def _linear(self, name: str, values: Array) -> Array:
        product: Array = values @ self._weights[f"{name}.weight"]
        product += self._weights[f"{name}.bias"]
        return product

    def _dense(self, name: str, values: Array) -> Array:
        product = self._linear(name, values)
        return np.maximum(product, 0.0, out=product)

    def _trunk(self, prefix: str, inputs: Mapping[str, Array]) -> Array:
        parts = []
        if "map" in inputs:
            if self.description.kind == "convolutional":
                planes = self._convolve(f"{prefix}map_encoder.0", inputs["map"])
                planes = self._convolve(f"{prefix}map_encoder.2", planes)
                parts.append(self._dense(f"{prefix}map_encoder.5", planes.reshape(len(planes), -1)))
            else:
                flat = inputs["map"].reshape(len(inputs["map"]), -1)
                parts.append(self._dense(f"{prefix}map_encoder.1", flat))
        if "features" in inputs:
            parts.append(self._dense(f"{prefix}feature_encoder.0", inputs["features"]))
        return self._dense(f"{prefix}shared.0", parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    def _convolve(self, name: str, planes: Array) -> Array:
        """3 x 3, padding 1, rectified: ``(R, C, H, W)`` to ``(R, out, H, W)`` as one matrix product."""
        weight = self._weights[f"{name}.weight"]
        rows, channels, height, width = planes.shape
        padded = np.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = sliding_window_view(padded, (3, 3), axis=(2, 3))  # (R, C, H, W, 3, 3)
        columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(rows * height * width, channels * 9)
        product = columns @ weight.reshape(len(weight), -1).T
        product += self._weights[f"{name}.bias"]
        np.maximum(product, 0.0, out=product)
        return np.ascontiguousarray(product.reshape(rows, height, width, -1).transpose(0, 3, 1, 2))

    def _remember(self, latent: Array, memory: Memory) -> Memory:
        kind = self.description.recurrent
        if kind == "none":
            return {}
        weights, hidden = self._weights, memory["hidden"]
        into = latent @ weights["memory.weight_ih"] + weights["memory.bias_ih"]
        back = hidden @ weights["memory.weight_hh"] + weights["memory.bias_hh"]
        if kind == "gru":
            reset_in, update_in, new_in = np.split(into, 3, axis=1)
            reset_back, update_back, new_back = np.split(back, 3, axis=1)
            update = _sigmoid(update_in + update_back)
            new = np.tanh(new_in + _sigmoid(reset_in + reset_back) * new_back)
            return {"hidden": new + update * (hidden - new)}
        gate_in, forget, new, gate_out = np.split(into + back, 4, axis=1)
        cell = _sigmoid(forget) * memory["cell"] + _sigmoid(gate_in) * np.tanh(new)
        return {"hidden": _sigmoid(gate_out) * np.tanh(cell), "cell": cell}


def _sigmoid(values: Array) -> Array:
    # By tanh: no overflow at either end.
    result: Array = 0.5 * (np.tanh(0.5 * values) + 1.0)
    return result

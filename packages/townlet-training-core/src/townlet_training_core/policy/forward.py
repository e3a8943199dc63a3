"""The forward pass of the library's networks in numpy: what an exported policy computes.

Tensor names are those of the networks' ``state_dict``; linear weights are ``(out, in)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
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
_MULTIPLIED = (".weight", ".bias", "_ih", "_hh")  # ends of the names of what is multiplied and added
_HEAD_COLUMNS = 16  # both heads are one product, filled up to a multiple of this: narrow ones are slower, not faster
_ROWS = {"conflict_aware": 512, "convolutional": 32}  # rows at a time, so that what is in between stays in the cache


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
        self, tensors: Mapping[str, NDArray[Any]], description: PolicyDescription, *, dtype: DTypeLike = np.float32
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
        self.dtype = np.dtype(dtype)
        self._actions = len(description.action_names)
        self._moments = {
            name: (
                np.asarray(tensors[f"normaliser.{name}_mean"], self.dtype),
                np.asarray(1.0 / np.sqrt(tensors[f"normaliser.{name}_var"] + NORMALISER_EPS), self.dtype),
            )
            for name in description.normalised
        }
        self._layers = _layers(
            description,
            {name: np.asarray(array, self.dtype) for name, array in tensors.items() if name.endswith(_MULTIPLIED)},
        )

    def initial_memory(self, slots: int) -> Memory:
        """Return the memory before anything was seen: zeros ``(S, hidden_dim)``, or nothing."""
        names = {"none": (), "gru": ("hidden",), "lstm": ("hidden", "cell")}[self.description.recurrent]
        return {name: np.zeros((slots, self.description.hidden_dim), self.dtype) for name in names}

    def forward(self, observations: Mapping[str, NDArray[Any]], memory: Memory) -> tuple[Array, Array, Memory]:
        """Return unmasked logits ``(R, A)``, values ``(R,)`` and the next memory for R rows."""
        seen = {name: observations[name] for name in self.description.inputs}
        rows = len(next(iter(seen.values())))
        size = _ROWS[self.description.kind]
        if rows <= size:
            return self._forward(seen, memory)
        logits, values = np.empty((rows, self._actions), self.dtype), np.empty(rows, self.dtype)
        after = {name: np.empty_like(array, self.dtype) for name, array in memory.items()}
        for start in range(0, rows, size):
            part = slice(start, start + size)
            logits[part], values[part], then = self._forward(
                {name: array[part] for name, array in seen.items()},
                {name: array[part] for name, array in memory.items()},
            )
            for name, array in then.items():
                after[name][part] = array
        return logits, values, after

    def _forward(self, seen: Mapping[str, NDArray[Any]], memory: Memory) -> tuple[Array, Array, Memory]:
        inputs = {name: self._input(name, array) for name, array in seen.items()}
        latent = self._trunk("", inputs)
        memory = self._remember(latent, memory)
        latent = memory.get("hidden", latent)
        if "heads" in self._layers:
            both = self._layers["heads"](latent)
            return both[:, : self._actions], both[:, self._actions], memory
        critic = self._trunk("value_", inputs) if self.description.separate_trunks else latent
        if self.description.centralised_critic:
            critic = _rectified(self._layers["critic.0"](critic, self._dense("state_encoder.0", inputs["state"])))
        return self._layers["policy_head"](latent), self._layers["value_head"](critic)[:, 0], memory

    def _input(self, name: str, array: NDArray[Any]) -> Array:
        values: Array = np.asarray(array, self.dtype)
        scale = self.description.inputs[name].scale
        if scale != 1.0:
            values = values * np.asarray(scale, self.dtype)
        if name in self._moments:
            mean, inverse = self._moments[name]
            values = np.clip((values - mean) * inverse, -NORMALISER_CLIP, NORMALISER_CLIP)
        return values

    def _dense(self, name: str, values: Array) -> Array:
        return _rectified(self._layers[name](values))

    def _trunk(self, prefix: str, inputs: Mapping[str, Array]) -> Array:
        parts = []
        if "map" in inputs:
            if self.description.kind == "convolutional":
                planes = self._convolve(f"{prefix}map_encoder.0", inputs["map"].transpose(0, 2, 3, 1))
                planes = self._convolve(f"{prefix}map_encoder.2", planes)
                parts.append(self._dense(f"{prefix}map_encoder.5", planes.reshape(len(planes), -1)))
            else:
                flat = inputs["map"].reshape(len(inputs["map"]), -1)
                parts.append(self._dense(f"{prefix}map_encoder.1", flat))
        if "features" in inputs:
            parts.append(self._dense(f"{prefix}feature_encoder.0", inputs["features"]))
        return _rectified(self._layers[f"{prefix}shared.0"](*parts))

    def _convolve(self, name: str, planes: Array) -> Array:
        """3 x 3, padding 1, rectified: ``(R, H, W, C)`` to ``(R, H, W, out)`` as one matrix product."""
        rows, height, width, channels = planes.shape
        padded = np.zeros((rows, height + 2, width + 2, channels), self.dtype)
        padded[:, 1:-1, 1:-1] = planes
        columns = np.empty((rows, height, width, 9, channels), self.dtype)
        for tap in range(9):
            down, right = divmod(tap, 3)
            columns[:, :, :, tap] = padded[:, down : down + height, right : right + width]
        product = self._dense(name, columns.reshape(-1, 9 * channels))
        return product.reshape(rows, height, width, -1)

    def _remember(self, latent: Array, memory: Memory) -> Memory:
        kind = self.description.recurrent
        if kind == "none":
            return {}
        hidden = np.asarray(memory["hidden"], self.dtype)
        into, back = self._layers["memory.ih"](latent), self._layers["memory.hh"](hidden)
        if kind == "gru":
            reset_in, update_in, new_in = np.split(into, 3, axis=1)
            reset_back, update_back, new_back = np.split(back, 3, axis=1)
            update = _sigmoid(update_in + update_back)
            new = np.tanh(new_in + _sigmoid(reset_in + reset_back) * new_back)
            return {"hidden": new + update * (hidden - new)}
        gate_in, forget, new, gate_out = np.split(into + back, 4, axis=1)
        cell = _sigmoid(forget) * np.asarray(memory["cell"], self.dtype) + _sigmoid(gate_in) * np.tanh(new)
        return {"hidden": _sigmoid(gate_out) * np.tanh(cell), "cell": cell}


def _layers(description: PolicyDescription, weights: Mapping[str, Array]) -> dict[str, _Linear]:
    """Lay the weights out for their products, by the name of the layer."""
    hidden, inputs = description.hidden_dim, description.inputs
    layers: dict[str, _Linear] = {}

    def add(name: str, widths: Sequence[int] | None = None) -> None:
        layers[name] = _Linear(weights[f"{name}.weight"], weights[f"{name}.bias"], widths)

    def add_convolutions(encoder: str) -> None:
        for layer in (0, 2):  # (out, in, 3, 3), read tap by tap
            taps = weights[f"{encoder}.{layer}.weight"].transpose(0, 2, 3, 1)
            layers[f"{encoder}.{layer}"] = _Linear(taps.reshape(len(taps), -1), weights[f"{encoder}.{layer}.bias"])
        planes = weights[f"{encoder}.5.weight"].reshape(hidden, _CONV_CHANNELS[1], *inputs["map"].shape[1:])
        flat = planes.transpose(0, 2, 3, 1).reshape(hidden, -1)
        layers[f"{encoder}.5"] = _Linear(flat, weights[f"{encoder}.5.bias"])

    for trunk in ("", "value_") if description.separate_trunks else ("",):
        if "map" in inputs and description.kind == "convolutional":
            add_convolutions(f"{trunk}map_encoder")
        elif "map" in inputs:
            add(f"{trunk}map_encoder.1")
        if "features" in inputs:
            add(f"{trunk}feature_encoder.0")
        add(f"{trunk}shared.0", [hidden for name in ("map", "features") if name in inputs])
    if description.recurrent != "none":
        for part in ("ih", "hh"):
            layers[f"memory.{part}"] = _Linear(weights[f"memory.weight_{part}"], weights[f"memory.bias_{part}"])
    if description.centralised_critic:
        add("state_encoder.0")
        add("critic.0", (hidden, hidden))
    if description.centralised_critic or description.separate_trunks:
        add("policy_head")
        add("value_head")
    else:  # both heads read the same: one product
        weight, bias = (
            np.concatenate([weights[f"{head}.{kind}"] for head in ("policy_head", "value_head")])
            for kind in ("weight", "bias")
        )
        spare = -len(weight) % _HEAD_COLUMNS
        layers["heads"] = _Linear(np.pad(weight, ((0, spare), (0, 0))), np.pad(bias, (0, spare)))
    return layers


class _Linear:
    """``x @ W.T + b``, where x is given in parts side by side: each is multiplied by itself and nothing is joined.

    Parameters
    ----------
    weight, bias:
        ``(out, in)`` and ``(out,)``.
    widths:
        Columns of each part; one part when ``None``.
    """

    __slots__ = ("_bias", "_weights")

    def __init__(self, weight: Array, bias: Array, widths: Sequence[int] | None = None) -> None:
        cuts = [] if widths is None else np.cumsum(widths[:-1]).tolist()
        # Transposed copies, so that the product is row-major times row-major.
        self._weights = [np.ascontiguousarray(part.T) for part in np.split(weight, cuts, axis=1)]
        self._bias = bias

    def __call__(self, *parts: Array) -> Array:
        product: Array = parts[0] @ self._weights[0]
        for part, weight in zip(parts[1:], self._weights[1:], strict=True):
            product += part @ weight
        product += self._bias
        return product


def _rectified(values: Array) -> Array:
    return np.maximum(values, 0.0, out=values)


def _sigmoid(values: Array) -> Array:
    # By tanh: no overflow at either end.
    result: Array = 0.5 * (np.tanh(0.5 * values) + 1.0)
    return result

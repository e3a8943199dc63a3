"""Forward and backward of dense feed-forward networks, written out: matrix products into buffers made once.

Autograd's own work and its temporaries are a good part of a step of such small networks. Other networks (memory,
centralised critic, convolutions) are left to autograd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from townlet_training_core.dto.policy import PolicyDescription
from townlet_training_torch import kernels
from townlet_training_torch.device import alone, few
from townlet_training_torch.flat import FlatParameters
from townlet_training_torch.networks import PolicyValueNetwork

__all__ = ["HandwrittenNetwork", "covers"]

_KEPT = 8
"""Row counts whose buffers are kept: mini-batches have two or three sizes."""


def covers(description: PolicyDescription) -> bool:
    """Whether a network can be computed here."""
    return (
        description.kind == "conflict_aware" and description.recurrent == "none" and not description.centralised_critic
    )


@dataclass(slots=True)
class _Layer:
    """Weights ``(out, in)``, the same transposed, and biases, and where their gradients go."""

    weight: Tensor
    turned: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor


@dataclass(slots=True)
class _Branch:
    """One trunk and the heads on it: ``rows`` of the outputs."""

    encoders: dict[str, _Layer]
    shared: _Layer
    head: Tensor
    head_gradient: Tensor
    rows: slice
    only_value: bool


@dataclass(slots=True)
class _Buffers:
    """Of one branch and M rows: activations and their derivatives, ``(M, joined)`` and ``(M, hidden)``.

    ``parts`` and ``part_slopes`` are each encoder's columns of ``joined`` and of ``joined_slope``.
    """

    joined: Tensor
    latent: Tensor
    joined_slope: Tensor
    latent_slope: Tensor
    parts: dict[str, Tensor]
    part_slopes: dict[str, Tensor]


class HandwrittenNetwork:
    """Computes a network and its gradients; weights and gradients are those of ``flat``.

    Parameters
    ----------
    network:
        What is computed; see :func:`covers`.
    flat:
        Its parameters.
    bf16:
        Compute in bfloat16: weights are cast once a step, gradients are cast back; sums are float32 inside.
    """

    def __init__(self, network: PolicyValueNetwork, flat: FlatParameters, *, bf16: bool = False) -> None:
        self._network, self._flat, self._bf16 = network, flat, bf16
        self._host = flat.values.device.type == "cpu"
        self._dtype = torch.bfloat16 if bf16 else flat.values.dtype
        self._values = flat.values.to(torch.bfloat16) if bf16 else flat.values
        self._gradients = torch.zeros_like(self._values) if bf16 else flat.gradients
        self._actions = len(network.description.action_names)
        self._names: list[str] = [name for name in ("map", "features") if name in network.description.inputs]
        hidden = network.description.hidden_dim
        self._columns = {name: slice(hidden * k, hidden * (k + 1)) for k, name in enumerate(self._names)}
        self._branches = self._plan()
        self._buffers: dict[int, list[_Buffers]] = {}
        self._inputs: dict[str, Tensor] = {}
        self._rows = 0

    def _layer(self, name: str) -> _Layer:
        weight, bias = f"{name}.weight", f"{name}.bias"
        view = self._flat.view
        return _Layer(
            view(weight, self._values),
            view(weight, self._values).t(),
            view(bias, self._values),
            view(weight, self._gradients),
            view(bias, self._gradients),
        )

    def _plan(self) -> list[_Branch]:
        number = {"map": 1, "features": 0}  # the map's encoder begins with a Flatten
        encoder = {"map": "map_encoder", "features": "feature_encoder"}
        heads, flat, actions = ("policy_head.weight", "value_head.weight"), self._flat, self._actions
        policy, value = (self._layer(name) for name in ("policy_head", "value_head"))
        # Of the outputs (A, M) and (M,), in the parameters' own precision.
        views = [
            [flat.view(f"{head}_head.bias", whole) for head in ("policy", "value")]
            for whole in (flat.values, flat.gradients)
        ]
        self._biases, self._bias_gradients = (
            (self._shown(policy_bias.unsqueeze(1)), self._shown(value_bias)) for policy_bias, value_bias in views
        )

        def branch(prefix: str, head: tuple[Tensor, Tensor], rows: slice) -> _Branch:
            encoders = {name: self._layer(f"{prefix}{encoder[name]}.{number[name]}") for name in self._names}
            return _Branch(encoders, self._layer(f"{prefix}shared.0"), *head, rows, prefix == "value_")

        if not self._network.description.separate_trunks:
            both = (flat.together(*heads, self._values), flat.together(*heads, self._gradients))
            return [branch("", both, slice(0, actions + 1))]
        return [
            branch("", (policy.weight, policy.weight_gradient), slice(0, actions)),
            branch("value_", (value.weight, value.weight_gradient), slice(actions, actions + 1)),
        ]

    def forward(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute unmasked logits ``(A, M)`` and values ``(M,)``, float32; what :meth:`backward` needs is kept."""
        with torch.no_grad():
            if self._bf16:
                self._values.copy_(self._flat.values)
            self._inputs = {name: self._input(name, observations[name]) for name in self._names}
            self._rows = len(self._inputs[self._names[0]])
            outputs = [self._run(*pair) for pair in zip(self._branches, self._scratch(self._rows), strict=True)]
            output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
            output = output.to(self._flat.values.dtype)
            shown, (policy, value) = self._shown(output), self._biases
            shown[: self._actions] += policy
            shown[self._actions] += value
            return output[: self._actions], output[self._actions]

    def _shown(self, tensor: Tensor) -> Any:
        """Return an array of the same memory on the CPU: on small ones numpy's calls cost less than torch's."""
        return tensor.numpy() if self._host else tensor

    def _input(self, name: str, rows: Tensor) -> Tensor:
        item = self._network.description.inputs[name]
        values = rows.reshape(len(rows), -1)
        if item.scale == 1.0 and name not in self._network.description.normalised:
            return values.to(self._dtype)
        values = values.to(self._flat.values.dtype) * item.scale
        if name in self._network.description.normalised:
            values = self._network.normaliser(name, values)
        return values.to(self._dtype)

    def _run(self, branch: _Branch, buffers: _Buffers) -> Tensor:
        pairs = [(layer, self._inputs[name], buffers.parts[name]) for name, layer in branch.encoders.items()]
        self._rectified(pairs, buffers.joined)
        self._rectified([(branch.shared, buffers.joined, buffers.latent)], buffers.latent)
        with alone(buffers.latent.numel()):
            return torch.mm(branch.head, buffers.latent.t())

    def _rectified(self, parts: Sequence[tuple[_Layer, Tensor, Tensor]], whole: Tensor) -> None:
        """Compute layers and their rectifiers; ``parts`` are their inputs and outputs, these columns of ``whole``."""
        if self._quick(whole):
            shown, first = whole.numpy(), 0
            for layer, inputs, outputs in parts:
                torch.mm(inputs, layer.turned, out=outputs)
            for layer, _, _ in parts:
                kernels.rectify(shown, first, layer.bias.numpy())
                first += len(layer.bias)
            return
        for layer, inputs, outputs in parts:
            torch.addmm(layer.bias, inputs, layer.turned, out=outputs)
        with alone(whole.numel()):
            torch.relu_(whole)

    def _quick(self, tensor: Tensor) -> bool:
        """Whether a kernel on this thread is sooner done than torch's operations."""
        return self._host and not self._bf16 and few(tensor.numel())

    def backward(self, logits: Tensor, values: Tensor, *, value_only: bool = False) -> None:
        """Write the gradients of the last :meth:`forward` into the flat gradients.

        Parameters
        ----------
        logits, values:
            Derivatives of the loss, ``(A, M)`` and ``(M,)``.
        value_only:
            Leave out all that the policy depends on; its gradients are not written.
        """
        with torch.no_grad():
            outputs = torch.empty(self._actions + 1, self._rows, dtype=logits.dtype, device=logits.device)
            shown = self._shown(outputs)
            shown[: self._actions] = self._shown(logits)
            shown[self._actions] = self._shown(values)
            slopes = outputs.to(self._dtype)
            for branch, buffers in zip(self._branches, self._buffers[self._rows], strict=True):
                if value_only and not branch.only_value:
                    if len(self._branches) == 1:  # the value head alone, on the trunk as it is
                        torch.mm(slopes[-1:], buffers.latent, out=branch.head_gradient[-1:])
                    continue
                self._return(branch, buffers, slopes[branch.rows])
            if self._bf16:
                self._flat.gradients.copy_(self._gradients)
            policy, value = self._bias_gradients
            sums = shown.sum(1)
            policy[:, 0] = sums[: self._actions]
            value[0] = sums[self._actions]

    def _return(self, branch: _Branch, buffers: _Buffers, slopes: Tensor) -> None:
        latent, joined = buffers.latent_slope, buffers.joined_slope
        with alone(latent.numel()):
            torch.mm(slopes, buffers.latent, out=branch.head_gradient)
            torch.mm(slopes.t(), branch.head, out=latent)
        self._through_relu(latent, buffers.latent, (branch.shared,))
        torch.mm(latent.t(), buffers.joined, out=branch.shared.weight_gradient)
        torch.mm(latent, branch.shared.weight, out=joined)
        self._through_relu(joined, buffers.joined, branch.encoders.values())
        for name, layer in branch.encoders.items():
            torch.mm(buffers.part_slopes[name].t(), self._inputs[name], out=layer.weight_gradient)

    def _through_relu(self, slope: Tensor, activation: Tensor, layers: Iterable[_Layer]) -> None:
        """Cut the derivative off, in place, where a rectifier was shut; its sums are the gradients of the biases.

        The columns are the outputs of ``layers``, side by side.
        """
        if self._quick(slope):
            shown, opened, first = slope.numpy(), activation.numpy(), 0
            for layer in layers:
                kernels.through_relu(shown, opened, first, layer.bias_gradient.numpy())
                first += len(layer.bias)
            return
        with alone(slope.numel()):
            torch.ops.aten.threshold_backward.grad_input(slope, activation, 0.0, grad_input=slope)
            parts = [layer.bias_gradient for layer in layers]
            for part, sums in zip(torch.split(slope, [len(part) for part in parts], 1), parts, strict=True):
                torch.sum(part, 0, out=sums)

    def _scratch(self, rows: int) -> list[_Buffers]:
        found = self._buffers.pop(rows, None)
        if found is None:
            while len(self._buffers) >= _KEPT:
                self._buffers.pop(next(iter(self._buffers)))
            hidden = self._network.description.hidden_dim
            found = [self._make(rows, (hidden * len(self._names), hidden)) for _ in self._branches]
        self._buffers[rows] = found
        return found

    def _make(self, rows: int, sizes: tuple[int, int]) -> _Buffers:
        joined, latent, joined_slope, latent_slope = (self._values.new_empty((rows, size)) for size in sizes * 2)
        parts, slopes = (
            {name: whole[:, columns] for name, columns in self._columns.items()} for whole in (joined, joined_slope)
        )
        return _Buffers(joined, latent, joined_slope, latent_slope, parts, slopes)

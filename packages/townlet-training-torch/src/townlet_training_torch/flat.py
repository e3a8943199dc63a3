"""All parameters of a network in one tensor, and their gradients in another.

A gradient norm is then one operation and a step of the optimiser another, however many layers there are. The network
goes on as before: its parameters are views.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adamw import adamw

__all__ = ["FlatAdam", "FlatParameters"]

_ALIGNED = 16
"""Elements between the starts of parameters: 64 bytes of float32, as matrix products like it."""

_TINY, _EVERY = 1e-30, 64
"""Moments below the first are set to 0 after every so many steps.

A unit that no longer fires has moments that shrink towards the smallest floats, with which processors compute many
times slower: cloning fell to a third of its speed after a thousand steps. Next to ``eps`` such a moment moves nothing.
"""


class FlatParameters:
    """Moves a network's parameters into one tensor.

    ========= ==== ===============================================================================
    values    (P,) what the parameters are views of; gaps between them stay 0
    gradients (P,) what their ``grad`` are views of
    split     int  parameters that only the value depends on begin here
    ========= ==== ===============================================================================

    Parameters
    ----------
    network:
        On its device; its parameters must not be replaced afterwards.
    value_only:
        Parameters that only the value depends on.
    """

    def __init__(self, network: nn.Module, *, value_only: Collection[nn.Parameter]) -> None:
        apart = {id(parameter) for parameter in value_only}
        named = dict(network.named_parameters())
        # The heads' weights meet at the split, so that both heads of a shared trunk are one matrix.
        first = sorted((n for n in named if id(named[n]) not in apart), key=lambda name: name == "policy_head.weight")
        second = sorted((n for n in named if id(named[n]) in apart), key=lambda name: name != "value_head.weight")
        offset, self.split = 0, 0
        self._places: dict[str, tuple[int, torch.Size]] = {}
        for name in (*first, *second):
            if name != "value_head.weight":
                offset = -(-offset // _ALIGNED) * _ALIGNED
            if name == second[0]:
                self.split = offset
            self._places[name] = (offset, named[name].shape)
            offset += named[name].numel()
        example = next(iter(named.values()))
        self.values = torch.zeros(offset, dtype=example.dtype, device=example.device)
        self.gradients = torch.zeros_like(self.values)
        with torch.no_grad():
            for name, parameter in named.items():
                self.view(name, self.values).copy_(parameter)
                parameter.data = self.view(name, self.values)
                parameter.grad = self.view(name, self.gradients)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order of their place."""
        return tuple(self._places)

    def view(self, name: str, tensor: Tensor) -> Tensor:
        """Return the part of ``tensor`` ``(P,)`` that belongs to a parameter, in its shape."""
        offset, shape = self._places[name]
        return tensor[offset : offset + shape.numel()].view(shape)

    def together(self, first: str, second: str, tensor: Tensor) -> Tensor:
        """Return the part of two neighbouring matrices of one width as one matrix.

        Raises
        ------
        ValueError
            When they are no neighbours.
        """
        (begin, upper), (middle, lower) = self._places[first], self._places[second]
        if begin + upper.numel() != middle or upper[1:] != lower[1:]:
            msg = f"{first!r} and {second!r} are no neighbours of one width"
            raise ValueError(msg)
        return tensor[begin : middle + lower.numel()].view(upper[0] + lower[0], *upper[1:])

    def value_part(self, name: str) -> bool:
        """Whether only the value depends on a parameter."""
        return self._places[name][0] >= self.split


class FlatAdam:
    """Adam with decoupled decay on flat parameters (Loshchilov and Hutter 2019): one fused operation a step.

    Parameters that only the value depends on have a step count of their own, as they may be trained alone.

    Parameters
    ----------
    flat:
        What is optimised.
    learning_rate, eps, weight_decay:
        As in :class:`torch.optim.AdamW`; the betas are 0.9 and 0.999.
    """

    def __init__(self, flat: FlatParameters, *, learning_rate: float, eps: float, weight_decay: float) -> None:
        self.learning_rate, self._eps, self._weight_decay, self._flat = learning_rate, eps, weight_decay, flat
        self._moments = {name: torch.zeros_like(flat.values) for name in ("exp_avg", "exp_avg_sq")}
        self._steps = [torch.zeros((), dtype=torch.float32, device=flat.values.device) for _ in range(2)]
        self._taken = 0
        parts = (slice(0, flat.split), slice(flat.split, None))
        columns = (flat.values, flat.gradients, *self._moments.values())
        self._parts = [[column[part] for part in parts] for column in columns]

    def step(self, *, value_only: bool = False) -> None:
        """Use the gradients once, of all parameters or of those that only the value depends on."""
        first = 1 if value_only else 0
        values, gradients, means, squares = (column[first:] for column in self._parts)
        with torch.no_grad():
            adamw(
                values,
                gradients,
                means,
                squares,
                [],
                self._steps[first:],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.learning_rate,
                weight_decay=self._weight_decay,
                eps=self._eps,
                maximize=False,
            )
            self._taken += 1
            if self._taken % _EVERY == 0:
                for moment in self._moments.values():
                    moment.masked_fill_(moment.abs() < _TINY, 0.0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of step counts and moments as ``<parameter>/<moment>``; nothing before the first step."""
        found: dict[str, NDArray[Any]] = {}
        for name in self._flat.names:
            count = self._steps[self._flat.value_part(name)]
            if float(count) == 0.0:
                continue
            views = {key: self._flat.view(name, moment) for key, moment in self._moments.items()}
            found |= {f"{name}/{key}": _copy(tensor) for key, tensor in {"step": count, **views}.items()}
        return found

    def load(self, name: str, key: str, array: NDArray[Any]) -> bool:
        """Restore one of :meth:`arrays`; return false where there is no such parameter or it has another shape."""
        if name not in self._flat.names or key not in ("step", *self._moments):
            return False
        target = self._steps[self._flat.value_part(name)]
        if key != "step":
            target = self._flat.view(name, self._moments[key])
            if tuple(target.shape) != array.shape:
                return False
        elif self._flat.value_part(name):  # counts the steps of either kind
            self._taken = int(array)
        target.copy_(torch.from_numpy(np.array(array)))
        return True


def _copy(tensor: Tensor) -> NDArray[Any]:
    copied: NDArray[Any] = tensor.detach().cpu().numpy().copy()
    return copied

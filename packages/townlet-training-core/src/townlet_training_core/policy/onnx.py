"""An exported policy as an ONNX graph, for runtimes that know neither this library nor Python.

The graph has symbolic rows ``R`` and these ports; ``memory`` stands for ``hidden``, and ``cell`` of an LSTM.

================= ========================== ==========================================================
Port              Shape                      Meaning
================= ========================== ==========================================================
inputs by name    (R, *shape)                as the simulation writes them; scaled and standardised inside
``action_mask``   (R, A) bool                what is allowed
memory            (R, hidden_dim) float32    before the step; zeros when an episode begins
``logits``        (R, A) float32             the lowest float32 where not allowed; sample, or take the greatest
``values``        (R,) float32
memory + _next    (R, hidden_dim) float32    to be handed in with the next step
================= ========================== ==========================================================
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from townlet_training_core.arrays import ACTION_MASK
from townlet_training_core.errors import MissingDependencyError
from townlet_training_core.files import atomic_write_bytes
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.policy.forward import NORMALISER_CLIP, NORMALISER_EPS

__all__ = ["ONNX_FILE", "onnx_model", "save_onnx"]

ONNX_FILE = "policy.onnx"
_OPSET, _IR_VERSION = 17, 8  # old enough for runtimes of 2022 on


def save_onnx(policy: ExportedPolicy, folder: Path) -> Path:
    """Write ``policy.onnx`` into ``folder``, which is made when missing, and return its path.

    Raises
    ------
    MissingDependencyError
        When the package ``onnx`` is not installed; nothing was written then.
    """
    content = onnx_model(policy).SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(folder / ONNX_FILE, content)
    return folder / ONNX_FILE


def onnx_model(policy: ExportedPolicy) -> Any:
    """Build and check the ``onnx.ModelProto`` of a policy; its description and hash stand in the metadata.

    Raises
    ------
    MissingDependencyError
        When the package ``onnx`` is not installed.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingDependencyError("export to ONNX", install="pip install 'townlet-training-core[onnx]'") from error
    model = _Graph(onnx, policy).model()
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants, added in the order of the forward pass; every method returns the name of its output."""

    def __init__(self, onnx: Any, policy: ExportedPolicy) -> None:
        self._onnx, self._policy, self._about = onnx, policy, policy.description
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def model(self) -> Any:
        """Return the graph of a whole step."""
        about, helper, kind = self._about, self._onnx.helper, self._onnx.TensorProto
        hidden, actions = (about.hidden_dim,), (len(about.action_names),)
        memory = {"none": (), "gru": ("hidden",), "lstm": ("hidden", "cell")}[about.recurrent]
        seen = [
            self._port(name, helper.np_dtype_to_tensor_dtype(np.dtype(item.dtype)), item.shape)
            for name, item in about.inputs.items()
        ]
        self._step()
        graph = helper.make_graph(
            self._nodes,
            "townlet-policy",
            [
                *seen,
                self._port(ACTION_MASK, kind.BOOL, actions),
                *(self._port(name, kind.FLOAT, hidden) for name in memory),
            ],
            [
                self._port("logits", kind.FLOAT, actions),
                self._port("values", kind.FLOAT, ()),
                *(self._port(f"{name}_next", kind.FLOAT, hidden) for name in memory),
            ],
            [self._onnx.numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="townlet-training-core",
        )
        described = {"description": about.model_dump_json(), "policy_hash": self._policy.content_hash()}
        helper.set_model_props(made, {f"townlet.{name}": text for name, text in described.items()})
        return made

    def _port(self, name: str, kind: int, shape: Sequence[int]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, kind, ["R", *shape])

    def _constant(self, name: str, value: Any, dtype: DTypeLike = np.float32) -> str:
        self._constants[name] = np.ascontiguousarray(value, dtype)
        return name

    def _number(self, name: str, value: float) -> str:
        self._constants[name] = np.array(value, np.float32)
        return name

    def _node(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        return self._split(operation, *inputs, outputs=(output or f"{operation}_{len(self._nodes)}",), **attributes)[0]

    def _split(self, operation: str, *inputs: str, outputs: Sequence[str], **attributes: Any) -> Sequence[str]:
        self._nodes.append(self._onnx.helper.make_node(operation, list(inputs), list(outputs), **attributes))
        return outputs

    def _step(self) -> None:
        about = self._about
        inputs = {name: self._input(name) for name in about.inputs}
        latent = self._remember(self._trunk("", inputs))
        critic = self._trunk("value_", inputs) if about.separate_trunks else latent
        if about.centralised_critic:
            state = self._dense("state_encoder.0", inputs["state"])
            critic = self._dense("critic.0", self._node("Concat", critic, state, axis=1))
        lowest = self._number("lowest", float(np.finfo(np.float32).min))
        self._node("Where", ACTION_MASK, self._linear("policy_head", latent), lowest, output="logits")
        column = self._constant("column", [1], np.int64)
        self._node("Squeeze", self._linear("value_head", critic), column, output="values")

    def _input(self, name: str) -> str:
        values = self._node("Cast", name, to=self._onnx.TensorProto.FLOAT)
        scale = self._about.inputs[name].scale
        if scale != 1.0:
            values = self._node("Mul", values, self._number(f"{name}_scale", scale))
        if name in self._about.normalised:
            tensors = self._policy.tensors
            deviation = np.sqrt(tensors[f"normaliser.{name}_var"] + NORMALISER_EPS)
            mean = self._constant(f"{name}_mean", tensors[f"normaliser.{name}_mean"])
            inverse = self._constant(f"{name}_inverse", 1.0 / deviation)
            low, high = self._number("clip_low", -NORMALISER_CLIP), self._number("clip_high", NORMALISER_CLIP)
            values = self._node("Clip", self._node("Mul", self._node("Sub", values, mean), inverse), low, high)
        return values

    def _linear(self, name: str, values: str) -> str:
        return self._product(values, f"{name}.weight", f"{name}.bias")

    def _product(self, values: str, weight: str, bias: str) -> str:
        given = [self._constant(tensor, self._policy.tensors[tensor]) for tensor in (weight, bias)]
        return self._node("Gemm", values, *given, transB=1)

    def _dense(self, name: str, values: str) -> str:
        return self._node("Relu", self._linear(name, values))

    def _trunk(self, prefix: str, inputs: Mapping[str, str]) -> str:
        parts = []
        if "map" in inputs:
            values, last = inputs["map"], 1
            if self._about.kind == "convolutional":
                values, last = self._convolve(f"{prefix}map_encoder.0", values), 5
                values = self._convolve(f"{prefix}map_encoder.2", values)
            parts.append(self._dense(f"{prefix}map_encoder.{last}", self._node("Flatten", values)))
        if "features" in inputs:
            parts.append(self._dense(f"{prefix}feature_encoder.0", inputs["features"]))
        joined = parts[0] if len(parts) == 1 else self._node("Concat", *parts, axis=1)
        return self._dense(f"{prefix}shared.0", joined)

    def _convolve(self, name: str, planes: str) -> str:
        given = (
            self._constant(f"{name}.{part}", self._policy.tensors[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        return self._node("Relu", self._node("Conv", planes, *given, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))

    def _remember(self, latent: str) -> str:
        """Write the memory cell out by hand: ONNX's own has another order of gates and wants a time axis."""
        kind = self._about.recurrent
        if kind == "none":
            return latent
        into = self._product(latent, "memory.weight_ih", "memory.bias_ih")
        back = self._product("hidden", "memory.weight_hh", "memory.bias_hh")
        if kind == "gru":
            reset_in, update_in, new_in = self._gates(into, 3)
            reset_back, update_back, new_back = self._gates(back, 3)
            reset = self._node("Sigmoid", self._node("Add", reset_in, reset_back))
            update = self._node("Sigmoid", self._node("Add", update_in, update_back))
            new = self._node("Tanh", self._node("Add", new_in, self._node("Mul", reset, new_back)))
            kept = self._node("Mul", update, self._node("Sub", "hidden", new))
            return self._node("Add", new, kept, output="hidden_next")
        gate_in, forget, new, gate_out = self._gates(self._node("Add", into, back), 4)
        kept = self._node("Mul", self._node("Sigmoid", forget), "cell")
        added = self._node("Mul", self._node("Sigmoid", gate_in), self._node("Tanh", new))
        cell = self._node("Add", kept, added, output="cell_next")
        return self._node("Mul", self._node("Sigmoid", gate_out), self._node("Tanh", cell), output="hidden_next")

    def _gates(self, values: str, count: int) -> Sequence[str]:
        return self._split("Split", values, outputs=[f"{values}_{number}" for number in range(count)], axis=1)

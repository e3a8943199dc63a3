"""A trained policy that acts without torch: safetensors and a description, numpy and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from townlet_training_core.arrays import ACTION_MASK, BoolArray, FloatArray, IntArray, Observations
from townlet_training_core.dto.policy import PolicyDescription
from townlet_training_core.errors import CheckpointError, SpaceMismatchError
from townlet_training_core.files import atomic_write_bytes, atomic_write_text, sha256_file
from townlet_training_core.policy.forward import Memory, NumpyNetwork
from townlet_training_core.policy.port import ActionStep, UniformSource, actions_at

if TYPE_CHECKING:
    from townlet_training_core.simulation.port import Simulation, SimulationSpec

__all__ = ["DESCRIPTION_FILE", "WEIGHTS_FILE", "ExportedPolicy", "check_fit", "find_policy"]

WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"

_UNSURE = 1e-5
"""A margin below this times (1 + the largest logit) is more than float32 can tell; its error is some tenth of that."""


def check_fit(description: PolicyDescription, spec: SimulationSpec) -> None:
    """Check that a policy of ``description`` can act in a simulation of ``spec``.

    Raises
    ------
    SpaceMismatchError
        Naming every difference.
    """
    differences = []
    for name, item in description.inputs.items():
        there = spec.observations.get(name)
        if there is None:
            differences.append(f"observation {name!r} is missing")
        elif (tuple(there.shape), np.dtype(there.dtype).name) != (item.shape, item.dtype):
            found = f"{np.dtype(there.dtype).name}{tuple(there.shape)}"
            differences.append(f"observation {name!r} is {found}, the policy reads {item.dtype}{item.shape}")
    if tuple(spec.action_names) != description.action_names:
        differences.append(
            f"actions are {_short(spec.action_names)}, the policy has {_short(description.action_names)}"
        )
    if "features" in description.inputs and tuple(spec.feature_names) != description.feature_names:
        names = set(spec.feature_names) ^ set(description.feature_names)
        differences.append(f"feature names differ ({_short(tuple(sorted(names)) or 'in their order')})")
    if "map" in description.inputs and tuple(spec.map_channels) != description.map_channels:
        differences.append(f"map channels are {_short(spec.map_channels)}, not {_short(description.map_channels)}")
    for name in sorted(set(spec.versions) & set(description.versions)):
        if spec.versions[name] != description.versions[name]:
            differences.append(f"version of {name} is {spec.versions[name]!r}, not {description.versions[name]!r}")
    if differences:
        msg = (
            f"a policy trained in {description.simulation!r} does not fit simulation {spec.name!r}: "
            f"{'; '.join(differences)}; train or choose a policy of this simulation and these options"
        )
        raise SpaceMismatchError(msg)


def find_policy(path: Path) -> Path:
    """Return the folder that holds the policy files of an export, a checkpoint, or a run (its latest checkpoint).

    Raises
    ------
    CheckpointError
        When there is none.
    """
    for candidate in (path, path / "checkpoints"):
        pointer = candidate / "latest"
        if pointer.is_file():
            target = candidate / pointer.read_text(encoding="utf-8").strip()
            return target if (target / DESCRIPTION_FILE).is_file() else find_policy(target)
    if path.name in (WEIGHTS_FILE, DESCRIPTION_FILE):
        path = path.parent
    if not (path / DESCRIPTION_FILE).is_file():
        msg = f"{str(path)!r} holds no policy: expected {DESCRIPTION_FILE}, or a run directory with a checkpoint"
        raise CheckpointError(msg)
    return path


class ExportedPolicy:
    """Acts by a numpy forward pass; the same weights give the same decisions with torch installed or not.

    Parameters
    ----------
    tensors:
        The network's tensors by their ``state_dict`` names.
    description:
        The network, its inputs and actions.
    dtype:
        Precision of the arithmetic; by default float32, and float64 for networks with memory. The rounding of a
        matrix product depends on the number of rows, their place and the number of threads. So that no decision
        does, those that float32 leaves open (a uniform next to the border between two actions, two best actions of
        nearly the same logit) are settled in float64: an evaluation does not depend on how it was batched. A memory
        carries its rounding on, which is why it is float64 unless asked otherwise.

    Raises
    ------
    CheckpointError
        When tensors and description do not belong together.
    """

    name = "exported"

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        description: PolicyDescription,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.description = description
        self._tensors = dict(tensors)
        if dtype is None:
            dtype = np.float32 if description.recurrent == "none" else np.float64
        self._network = NumpyNetwork(tensors, description, dtype=dtype)
        self._precise: NumpyNetwork | None = None  # made when a decision needs it
        self._memory: Memory = {}
        self._slots = 0

    @classmethod
    def load(cls, path: Path, *, dtype: DTypeLike | None = None) -> ExportedPolicy:
        """Load an export, a checkpoint, or the latest checkpoint of a run.

        Raises
        ------
        CheckpointError
            When the files are missing, torn, or differ from the checksums beside them.
        """
        folder = find_policy(path)
        _verify(folder)
        try:
            description = PolicyDescription.model_validate_json((folder / DESCRIPTION_FILE).read_bytes())
            tensors = load_tensors((folder / WEIGHTS_FILE).read_bytes())
        except (OSError, ValidationError, SafetensorError, ValueError, KeyError) as error:
            msg = f"policy in {str(folder)!r} cannot be read: {_first_line(error)}; export or train it again"
            raise CheckpointError(msg) from error
        return cls(tensors, description, dtype=dtype)

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``, which is made when missing."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(folder / WEIGHTS_FILE, save_tensors(self._tensors))
        atomic_write_text(folder / DESCRIPTION_FILE, self.description.model_dump_json(indent=2) + "\n")

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """The tensors as they were given."""
        return self._tensors

    def bind(self, simulation: Simulation) -> None:
        """Check the fit and forget everything; see :func:`check_fit` for what is raised."""
        check_fit(self.description, simulation.spec)
        self._slots = simulation.spec.num_envs * simulation.spec.agents_per_env
        self.reset()

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Decide for all slots by one uniform each."""
        before = self._memory
        raw, values, self._memory = self.forward(observations)
        mask = observations[ACTION_MASK]
        logits = np.where(mask, raw, np.finfo(np.float32).min)
        shifted = logits - logits.max(axis=1, keepdims=True)
        weights = np.exp(shifted, dtype=np.float64)
        rows = np.arange(len(logits))
        uniforms = None if greedy else rng.random(len(logits))
        actions, margins = _choose(shifted, weights, uniforms)
        if self._network.dtype != np.float64:
            (unsure,) = np.nonzero(margins < _UNSURE * (1.0 + np.abs(raw).max(axis=1)))
            if len(unsure):
                actions[unsure] = self._settle(observations, before, unsure, uniforms)
        log_probs: FloatArray = (shifted[rows, actions] - np.log(weights.sum(axis=1))).astype(np.float32)
        return ActionStep(actions=actions, log_probs=log_probs, values=values)

    def _settle(
        self, observations: Observations, memory: Memory, rows: IntArray, uniforms: NDArray[np.float64] | None
    ) -> IntArray:
        """Decide some rows in float64."""
        if self._precise is None:
            self._precise = NumpyNetwork(self._tensors, self.description, dtype=np.float64)
        memory = {name: array[rows] for name, array in memory.items()} or self._precise.initial_memory(len(rows))
        logits, _, _ = self._precise.forward(
            {name: observations[name][rows] for name in self.description.inputs}, memory
        )
        logits = np.where(observations[ACTION_MASK][rows], logits, np.finfo(np.float32).min)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return _choose(shifted, np.exp(shifted), None if uniforms is None else uniforms[rows])[0]

    def values(self, observations: Observations) -> FloatArray | None:
        """Return the value of each row; the memory stays where it is."""
        return self.forward(observations)[1]

    def action_probabilities(self, observations: Observations) -> FloatArray:
        """Return the probability of every action of every row, ``(S, A)``; the memory stays where it is."""
        logits = np.where(observations[ACTION_MASK], self.forward(observations)[0], np.finfo(np.float32).min)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)

    def reset(self, ended: BoolArray | None = None) -> None:
        """Forget the memory of slots whose episode ended, or of all."""
        if ended is None or not self._memory:
            self._memory = self._network.initial_memory(self._slots)
        else:  # new arrays: a copy of this policy may share the old ones
            self._memory = {name: np.where(ended[:, None], 0, array) for name, array in self._memory.items()}

    def recurrent_state(self) -> dict[str, NDArray[Any]]:
        """Return copies of the memory, ``(S, hidden_dim)`` each; empty when there is none."""
        return {name: array.copy() for name, array in self._memory.items()}

    def load_recurrent_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore :meth:`recurrent_state`."""
        self._memory = {name: np.array(array) for name, array in state.items()}

    def content_hash(self) -> str:
        """SHA-256 over the description and all tensors."""
        digest = hashlib.sha256(self.description.model_dump_json().encode())
        for name in sorted(self._tensors):
            array = np.ascontiguousarray(self._tensors[name])
            digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def forward(self, observations: Observations) -> tuple[NDArray[Any], FloatArray, Memory]:
        """Return unmasked logits ``(S, A)``, values ``(S,)`` and the memory after; the policy's own memory stays."""
        memory = self._memory or self._network.initial_memory(len(observations[ACTION_MASK]))
        logits, values, after = self._network.forward(observations, memory)
        return logits, values.astype(np.float32), after


def _choose(
    shifted: NDArray[Any], weights: NDArray[np.float64], uniforms: NDArray[np.float64] | None
) -> tuple[IntArray, NDArray[np.float64]]:
    """Choose an action in every row, by its uniform or (without) the best; return also how clear the choice was.

    Clear means far from another choice: for a uniform its distance from the next border between two actions, as
    a share of the whole; for the best action how far its logit lies above the second best.
    """
    if uniforms is None:
        actions = shifted.argmax(axis=1)
        if shifted.shape[1] == 1:
            return actions, np.full(len(shifted), np.inf)
        return actions, -np.partition(shifted, -2, axis=1)[:, -2].astype(np.float64)
    cumulative = np.cumsum(weights, axis=1)
    threshold = uniforms * cumulative[:, -1]
    borders = np.abs(cumulative[:, :-1] - threshold[:, None])
    margins = borders.min(axis=1, initial=np.inf) / cumulative[:, -1]
    return actions_at(cumulative, threshold), margins


def _verify(folder: Path) -> None:
    """Compare the policy files with the checkpoint's manifest, where there is one."""
    path = folder / "MANIFEST.json"
    if not path.is_file():
        return
    try:
        checksums = json.loads(path.read_bytes())["files"]
        for name in (WEIGHTS_FILE, DESCRIPTION_FILE):
            if sha256_file(folder / name) != checksums[name]:
                msg = f"checkpoint {str(folder)!r}: {name} differs from its checksum; it is torn or was changed"
                raise CheckpointError(msg)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = f"checkpoint {str(folder)!r}: its manifest cannot be checked ({_first_line(error)})"
        raise CheckpointError(msg) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__

"""Array vocabulary shared by every seam: named array specifications, event records, step buffers.

Shapes are written with these letters throughout the library:

====== =======================================================
Symbol Meaning
====== =======================================================
T      steps of a rollout
B      environments (towns) stepped together
N      agents of one environment
S      slots, ``B * N``, environment-major: slot ``b * N + n``
A      actions
====== =======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTION_MASK",
    "EVENT_DTYPE",
    "ArraySpec",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "Observations",
    "RolloutArrays",
    "StepArrays",
    "allocate",
]

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
Observations: TypeAlias = Mapping[str, NDArray[Any]]

ACTION_MASK = "action_mask"
"""Key of the ``(S, A)`` boolean mask inside the observations that a policy receives."""

EVENT_DTYPE = np.dtype(
    [
        ("tick", np.int32),  # tick of the episode in which it happened
        ("slot", np.int32),  # who
        ("kind", np.int16),  # index into the simulation's event kinds
        ("other", np.int32),  # the other slot, -1 if none
        ("object", np.int32),  # the object's id, -1 if none
        ("value", np.float32),  # intensity, quality, length, ... as the kind documents
    ]
)
"""One event of a simulation; slots are global (environment-major)."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape (without the leading slot axis) and dtype of one named observation array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(slots=True, kw_only=True)
class StepArrays:
    """The arrays that one step of a simulation writes; the caller owns them.

    =================== ================= ==========================================================
    Array               Shape             Meaning
    =================== ================= ==========================================================
    observations[name]  (S, *shape)       what each slot sees next (after a same-step reset: the new episode)
    action_mask         (S, A) bool       actions possible next; all true where the simulation has no mask
    alive               (S,) bool         whether the slot acts next
    rewards             (S,) float32      reward of this step
    terminated          (S,) bool         the episode of the slot ended for good in this step: no bootstrap
    truncated           (S,) bool         cut off by a limit in this step: bootstrap from the last observation
    final_observation   (S, *shape)       rows of slots that ended in this step: their true last observation
    =================== ================= ==========================================================

    A simulation leaves rows of ``final_observation`` untouched where nothing ended.
    """

    observations: dict[str, NDArray[Any]]
    action_mask: BoolArray
    alive: BoolArray
    rewards: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    final_observation: dict[str, NDArray[Any]] = field(default_factory=dict)

    def policy_view(self) -> dict[str, NDArray[Any]]:
        """Return the observations with the mask under :data:`ACTION_MASK`, as a policy receives them (no copy)."""
        return {**self.observations, ACTION_MASK: self.action_mask}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutArrays:
    """Time-major columns of a rollout or of padded replay trajectories: what a learner consumes.

    Ragged trajectories are padded to the longest and marked by ``valid``. Row ``t`` of every array belongs to
    one decision: observation t, the action taken at t, the reward that followed.

    ================ ================== =============================================================
    Array            Shape              Meaning
    ================ ================== =============================================================
    observations     (T, S, *shape)     by name
    action_mask      (T, S, A) bool     ``None`` where the data has no mask
    actions          (T, S) int64       action taken
    valid            (T, S) bool        the slot acted; false rows count in no loss and no statistic
    rewards          (T, S) float32
    terminated       (T, S) bool        ended for good after this step: no bootstrap
    truncated        (T, S) bool        cut off after this step: bootstrap from ``next_values``
    episode_starts   (T, S) bool        observation t is the first of its episode (recurrent state is reset)
    log_probs        (T, S) float32     of the acting policy; ``None`` when it has none
    values           (T, S) float32     of the acting policy; ``None`` when it has none
    next_values      (T, S) float32     value of the *true next* observation, the final one where the episode ended
    from_expert      (T, S) bool        decided by the scripted expert (blending); ``None`` when nothing was
    expert_actions   (T, S) int64       the expert's labels; ``None`` when not asked for
    initial_state    name -> (S, ...)   recurrent state before step 0; empty for feed-forward policies
    ================ ================== =============================================================
    """

    observations: Mapping[str, NDArray[Any]]
    actions: IntArray
    valid: BoolArray
    rewards: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    episode_starts: BoolArray
    action_mask: BoolArray | None = None
    log_probs: FloatArray | None = None
    values: FloatArray | None = None
    next_values: FloatArray | None = None
    from_expert: BoolArray | None = None
    expert_actions: IntArray | None = None
    initial_state: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.actions.shape[0])

    @property
    def slots(self) -> int:
        """S."""
        return int(self.actions.shape[1])

    @property
    def transitions(self) -> int:
        """Number of valid rows."""
        return int(self.valid.sum())


def allocate(observations: Mapping[str, Any], *, slots: int, actions: int) -> StepArrays:
    """Allocate zeroed :class:`StepArrays` for ``slots`` slots and ``actions`` actions.

    Parameters
    ----------
    observations:
        Anything whose values have ``shape`` and ``dtype`` (e.g. :class:`ArraySpec`).
    """

    def rows() -> dict[str, NDArray[Any]]:
        return {name: np.zeros((slots, *spec.shape), spec.dtype) for name, spec in observations.items()}

    return StepArrays(
        observations=rows(),
        action_mask=np.ones((slots, actions), np.bool_),
        alive=np.ones(slots, np.bool_),
        rewards=np.zeros(slots, np.float32),
        terminated=np.zeros(slots, np.bool_),
        truncated=np.zeros(slots, np.bool_),
        final_observation=rows(),
    )

"""The columnar rollout buffer: preallocated columns whose rows the simulation writes itself.

Row ``t + 1`` of the observations is what step ``t`` produces, so the buffer keeps ``T + 1`` rows of what is
seen and ``T`` rows of what is done. The views that a simulation writes through are made once; stepping
allocates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import (
    ACTION_MASK,
    EVENT_DTYPE,
    BoolArray,
    FloatArray,
    IntArray,
    Observations,
    RolloutArrays,
    StepArrays,
)
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.simulation.port import SimulationSpec

__all__ = ["EventLog", "RolloutBuffer"]


class EventLog:
    """Events of one rollout, appended step by step into storage that grows by doubling."""

    __slots__ = ("_count", "_records", "_steps")

    def __init__(self, *, capacity: int = 1024) -> None:
        self._records = np.empty(max(1, capacity), EVENT_DTYPE)
        self._steps = np.empty(max(1, capacity), np.int32)
        self._count = 0

    def clear(self) -> None:
        """Forget everything; storage is kept."""
        self._count = 0

    def append(self, step: int, events: NDArray[Any]) -> None:
        """Copy the events of step ``step`` (row of the rollout)."""
        added = len(events)
        if not added:
            return
        end = self._count + added
        if end > len(self._records):
            capacity = max(end, 2 * len(self._records))
            records, steps = np.empty(capacity, EVENT_DTYPE), np.empty(capacity, np.int32)
            records[: self._count], steps[: self._count] = (
                self._records[: self._count],
                self._steps[: self._count],
            )
            self._records, self._steps = records, steps
        self._records[self._count : end] = events
        self._steps[self._count : end] = step
        self._count = end

    def __len__(self) -> int:
        return self._count

    @property
    def records(self) -> NDArray[Any]:
        """Events so far, ``(E,)`` records of :data:`~townlet_training_core.arrays.EVENT_DTYPE` (a view)."""
        return self._records[: self._count]

    @property
    def steps(self) -> NDArray[np.int32]:
        """Row of the rollout in which each event happened, ``(E,)`` (a view)."""
        return self._steps[: self._count]

    def totals(self, kinds: tuple[str, ...]) -> dict[str, tuple[int, float]]:
        """Count and summed value of each event kind, by name."""
        records = self.records
        counts = np.bincount(records["kind"], minlength=len(kinds))
        sums = np.bincount(records["kind"], weights=records["value"], minlength=len(kinds))
        return {name: (int(counts[kind]), float(sums[kind])) for kind, name in enumerate(kinds)}


class RolloutBuffer:
    """Columns of one rollout of T steps in S slots.

    ================== =================== ======================================================
    Column             Shape               Meaning
    ================== =================== ======================================================
    observations       (T + 1, S, *shape)  by name; row t is what was seen before decision t
    action_mask        (T + 1, S, A) bool  one shared row where the simulation never masks
    alive              (T + 1, S) bool     whether the slot acts at t
    episode_starts     (T + 1, S) bool     observation t is the first of its episode
    actions            (T, S) int64
    rewards            (T, S) float32
    terminated         (T, S) bool
    truncated          (T, S) bool
    log_probs, values  (T, S) float32      allocated when the policy has them
    next_values        (T, S) float32
    from_expert        (T, S) bool         allocated when decisions are blended
    expert_actions     (T, S) int64        allocated when labels are asked for
    final_observation  (S, *shape)         scratch: last observations of episodes that ended in this step
    ================== =================== ======================================================

    Parameters
    ----------
    spec:
        The simulation's spec: names and shapes.
    steps:
        T, at least 1.

    Raises
    ------
    ConfigurationError
        When ``steps`` is not positive.
    """

    def __init__(self, spec: SimulationSpec, *, steps: int) -> None:
        if steps < 1:
            msg = f"steps={steps!r}: a rollout has at least one step"
            raise ConfigurationError(msg)
        slots, actions = spec.num_envs * spec.agents_per_env, len(spec.action_names)
        self.steps, self.slots, self.masked = steps, slots, spec.masked
        self.observations: dict[str, NDArray[Any]] = {
            name: np.zeros((steps + 1, slots, *item.shape), item.dtype) for name, item in spec.observations.items()
        }
        self.final_observation: dict[str, NDArray[Any]] = {
            name: np.zeros((slots, *item.shape), item.dtype) for name, item in spec.observations.items()
        }
        # An unmasked simulation writes the same row of ones every step: one row serves for all.
        self.action_mask: BoolArray = np.ones((steps + 1 if spec.masked else 1, slots, actions), np.bool_)
        self.alive: BoolArray = np.ones((steps + 1, slots), np.bool_)
        self.episode_starts: BoolArray = np.ones((steps + 1, slots), np.bool_)
        self.actions: IntArray = np.zeros((steps, slots), np.int64)
        self.rewards: FloatArray = np.zeros((steps, slots), np.float32)
        self.terminated: BoolArray = np.zeros((steps, slots), np.bool_)
        self.truncated: BoolArray = np.zeros((steps, slots), np.bool_)
        self.log_probs: FloatArray | None = None
        self.values: FloatArray | None = None
        self.next_values: FloatArray | None = None
        self.from_expert: BoolArray | None = None
        self.expert_actions: IntArray | None = None
        self.events = EventLog()
        self.finals: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}
        """Last observations of ended episodes by (step, slot), where they are kept (:meth:`keep_finals`)."""
        self.rows: tuple[StepArrays, ...] = tuple(self._row(index) for index in range(steps + 1))
        """``rows[t]`` is written to produce observation t; ``rows[t + 1]`` is the target of step t."""
        self.views: tuple[dict[str, NDArray[Any]], ...] = tuple(row.policy_view() for row in self.rows)
        """``views[t]`` is what the policy sees at t."""
        self.final_view: Observations = {
            **self.final_observation,
            ACTION_MASK: np.ones((slots, actions), np.bool_),
        }
        """What is valued at the end of a truncated episode; nothing is chosen there, so all is allowed."""

    def _row(self, index: int) -> StepArrays:
        done = max(index - 1, 0)  # row 0 is written by a reset, which has no reward: it borrows those of step 0
        return StepArrays(
            observations={name: column[index] for name, column in self.observations.items()},
            action_mask=self.action_mask[index if self.masked else 0],
            alive=self.alive[index],
            rewards=self.rewards[done],
            terminated=self.terminated[done],
            truncated=self.truncated[done],
            final_observation=self.final_observation,
        )

    def begin(self, last: int) -> None:
        """Make row ``last`` the first one, as the next rollout goes on from there."""
        for column in self.observations.values():
            column[0] = column[last]
        if self.masked:
            self.action_mask[0] = self.action_mask[last]
        self.alive[0] = self.alive[last]
        self.episode_starts[0] = self.episode_starts[last]

    def keep_finals(self, step: int, ended: BoolArray) -> None:
        """Copy the last observations of the episodes that ended in ``step``, ``(S,)``."""
        for slot in np.nonzero(ended)[0]:
            self.finals[step, int(slot)] = {name: rows[slot].copy() for name, rows in self.final_observation.items()}

    def observations_after(self, steps: IntArray, slots: IntArray) -> dict[str, NDArray[Any]]:
        """Return what each of some slots truly saw after a step: the final observation where its episode ended.

        Parameters
        ----------
        steps, slots:
            ``(K,)`` each.

        Returns
        -------
        dict
            ``(K, *shape)`` by name.
        """
        after = {name: column[steps + 1, slots] for name, column in self.observations.items()}
        for row, key in enumerate(zip(steps.tolist(), slots.tolist(), strict=True)):
            for name, last in self.finals.get(key, {}).items():
                after[name][row] = last
        return after

    def float_column(self) -> FloatArray:
        """Allocate a (T, S) float32 column."""
        return np.zeros((self.steps, self.slots), np.float32)

    def finish_values(self, last: FloatArray, *, steps: int) -> None:
        """Fill ``next_values`` for steps after which the episode went on; ended ones are already in place.

        Parameters
        ----------
        last:
            Values of the observations after the last step, ``(S,)``.
        steps:
            Steps that were collected, at most T.
        """
        if self.values is None or self.next_values is None:
            return
        went_on = ~(self.terminated | self.truncated)
        np.copyto(self.next_values[: steps - 1], self.values[1:steps], where=went_on[: steps - 1])
        np.copyto(self.next_values[steps - 1], last, where=went_on[steps - 1])

    def arrays(
        self, *, steps: int | None = None, initial_state: Mapping[str, NDArray[Any]] | None = None
    ) -> RolloutArrays:
        """Return the first ``steps`` (by default T) decided rows as the learner consumes them.

        They are views, overwritten by the next rollout.
        """
        count = self.steps if steps is None else steps

        def head(column: NDArray[Any] | None) -> Any:
            return None if column is None else column[:count]

        return RolloutArrays(
            observations={name: head(column) for name, column in self.observations.items()},
            action_mask=head(self.action_mask) if self.masked else None,
            actions=head(self.actions),
            valid=head(self.alive),
            rewards=head(self.rewards),
            terminated=head(self.terminated),
            truncated=head(self.truncated),
            episode_starts=head(self.episode_starts),
            log_probs=head(self.log_probs),
            values=head(self.values),
            next_values=head(self.next_values),
            from_expert=head(self.from_expert),
            expert_actions=head(self.expert_actions),
            initial_state=dict(initial_state or {}),
        )

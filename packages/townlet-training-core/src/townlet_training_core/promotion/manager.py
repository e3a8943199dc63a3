"""The promotion record: how far a candidate has come, and which release is in place.

It handles names and hashes only; no weights. Its snapshot and its log lines are read by existing tools, so
their keys are fixed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from townlet_training_core.errors import ArtifactError

__all__ = ["HISTORY_LIMIT", "PromotionManager", "PromotionServiceAdapter", "PromotionState"]

HISTORY_LIMIT = 50
"""Events that a snapshot carries; the log keeps all."""

_DEFAULT_PASSES = 2


class PromotionState(StrEnum):
    """Where a candidate stands."""

    MONITORING = "monitoring"
    READY = "ready"
    PROMOTED = "promoted"


class PromotionManager:
    """Keeps the pass streak, the readiness of the candidate, and the history of releases.

    ::

        monitoring -- candidate ready --> ready -- mark_promoted --> promoted -- candidate ready --> ready
        ready -- candidate not ready any more --> monitoring
        any -- rollback or manual swap --> monitoring

    Parameters
    ----------
    config:
        A configuration with ``promotion.required_passes`` or ``stability.promotion.required_passes``, or those
        settings themselves. ``config_id`` and ``policy_hash``, where present, name the initial release.
    log_path:
        File to which one JSON line per promotion, rollback and swap is appended; none when ``None``.
    """

    def __init__(self, config: Any, log_path: Path | None = None) -> None:
        self.config = config
        self.log_path = None if log_path is None else Path(log_path)
        self._default_passes = _required_passes(config)
        self._initial: dict[str, Any] = {"config_id": getattr(config, "config_id", "default")}
        policy_hash = getattr(config, "policy_hash", None)
        if policy_hash is not None:
            self._initial["policy_hash"] = policy_hash
        self.reset()

    # -- state ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``monitoring``, ``ready`` or ``promoted``."""
        return self._state.value

    @property
    def candidate_ready(self) -> bool:
        """Whether the candidate has passed often enough in a row."""
        return self._candidate_ready

    @property
    def pass_streak(self) -> int:
        """Consecutive passes of the candidate."""
        return self._pass_streak

    @property
    def required_passes(self) -> int:
        """Consecutive passes that make a candidate ready."""
        return self._required_passes

    def reset(self) -> None:
        """Forget everything but the initial release."""
        self._state = PromotionState.MONITORING
        self._pass_streak = 0
        self._required_passes = self._default_passes
        self._candidate_ready = False
        self._candidate_ready_tick: int | None = None
        self._last_result: str | None = None
        self._last_evaluated_tick: int | None = None
        self._current: dict[str, Any] = dict(self._initial)
        self._candidate: dict[str, Any] | None = None
        self._history: list[dict[str, Any]] = []

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain data; changing it changes nothing here."""
        return {
            "state": self.state,
            "pass_streak": self._pass_streak,
            "required_passes": self._required_passes,
            "candidate_ready": self._candidate_ready,
            "candidate_ready_tick": self._candidate_ready_tick,
            "last_result": self._last_result,
            "last_evaluated_tick": self._last_evaluated_tick,
            "current_release": copy.deepcopy(self._current),
            "initial_release": copy.deepcopy(self._initial),
            "candidate": copy.deepcopy(self._candidate),
            "history": copy.deepcopy(self._history),
        }

    def export_state(self) -> dict[str, Any]:
        """Return what :meth:`import_state` takes: the snapshot."""
        return self.snapshot()

    def import_state(self, payload: Mapping[str, Any]) -> None:
        """Take over an exported state; keys that are missing keep their initial values.

        Raises
        ------
        ArtifactError
            When the payload is no exported state. Nothing is changed then.
        """
        try:
            state = PromotionState(payload.get("state", PromotionState.MONITORING))
            streak = int(payload.get("pass_streak", 0))
            required = int(payload.get("required_passes", self._default_passes))
            current = dict(payload.get("current_release") or self._initial)
            initial = dict(payload.get("initial_release") or self._initial)
            candidate = payload.get("candidate")
            candidate = None if candidate is None else dict(candidate)
            history = [dict(entry) for entry in payload.get("history") or ()]
            ready_tick = _optional_int(payload.get("candidate_ready_tick"))
            evaluated = _optional_int(payload.get("last_evaluated_tick"))
        except (AttributeError, TypeError, ValueError) as error:
            msg = f"not an exported promotion state: {error}; import what export_state() returned"
            raise ArtifactError(msg) from error
        self._state, self._pass_streak, self._required_passes = state, streak, required
        self._candidate_ready = bool(payload.get("candidate_ready", False))
        self._candidate_ready_tick, self._last_evaluated_tick = ready_tick, evaluated
        self._last_result = payload.get("last_result")
        self._current, self._initial = copy.deepcopy(current), copy.deepcopy(initial)
        self._candidate = copy.deepcopy(candidate)
        self._history = copy.deepcopy(history[-HISTORY_LIMIT:])

    # -- events -----------------------------------------------------------------------------------------------

    def set_candidate_metadata(self, metadata: Mapping[str, Any] | None) -> None:
        """Describe the candidate (``policy_hash``, ``config_id``, ...); ``None`` forgets it."""
        self._candidate = None if metadata is None else copy.deepcopy(dict(metadata))

    def update_from_metrics(self, metrics: Mapping[str, Any], *, tick: int) -> None:
        """Take over the block ``metrics["promotion"]``; without one, nothing changes.

        Its keys are ``pass_streak``, ``required_passes``, ``candidate_ready``, ``last_result`` and
        ``last_evaluated_tick``; each may be missing.
        """
        block = metrics.get("promotion")
        if not isinstance(block, Mapping):
            return
        self._pass_streak = int(block.get("pass_streak", 0))
        self._required_passes = int(block.get("required_passes", self._required_passes))
        self._last_result = block.get("last_result")
        self._last_evaluated_tick = _optional_int(block.get("last_evaluated_tick"))
        if block.get("candidate_ready", False):
            if not self._candidate_ready:
                self._candidate_ready_tick = tick
            self._candidate_ready = True
            self._state = PromotionState.READY
        else:
            self._clear_readiness()
            if self._state is PromotionState.READY:
                self._state = PromotionState.MONITORING

    def mark_promoted(self, *, tick: int, metadata: Mapping[str, Any] | None = None) -> None:
        """Record that the candidate is the release now; ``metadata`` defaults to the candidate's."""
        described = self._candidate if metadata is None else metadata
        self._state = PromotionState.PROMOTED
        self._settle(event="promoted", tick=tick, metadata=described, release=self._release(described))
        self._candidate = None

    def register_rollback(self, *, tick: int, metadata: Mapping[str, Any] | None = None) -> None:
        """Record that the release was taken back.

        Without ``metadata`` the release before the latest promotion is in place again (the initial one when
        there was none); otherwise the one that ``metadata`` names.
        """
        release = self._release(metadata) if metadata else self._before_latest_promotion()
        self._state = PromotionState.MONITORING
        self._settle(event="rollback", tick=tick, metadata=metadata, release=release)

    def record_manual_swap(self, *, tick: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Record that somebody put the release that ``metadata`` names in place by hand; return the snapshot."""
        self._state = PromotionState.MONITORING
        self._settle(event="policy_swap", tick=tick, metadata=metadata, release=self._release(metadata))
        return self.snapshot()

    # -- parts ------------------------------------------------------------------------------------------------

    def _settle(self, *, event: str, tick: int, metadata: Mapping[str, Any] | None, release: dict[str, Any]) -> None:
        record = {
            "event": event,
            "tick": int(tick),
            "metadata": copy.deepcopy(dict(metadata or {})),
            "previous_release": dict(self._current),
            "release": release,
        }
        self._current = dict(release)
        self._pass_streak = 0
        self._clear_readiness()
        self._history = [*self._history, record][-HISTORY_LIMIT:]
        if self.log_path is not None:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with self.log_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({**record, "state": self.state}, sort_keys=True, default=str) + "\n")

    def _release(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """Name a release: what the metadata says, and the configuration it belongs to."""
        release = copy.deepcopy(dict(metadata or {}))
        release.setdefault("config_id", self._initial["config_id"])
        return release

    def _before_latest_promotion(self) -> dict[str, Any]:
        for record in reversed(self._history):
            if record.get("event") == "promoted":
                return dict(record.get("previous_release") or self._initial)
        return dict(self._initial)

    def _clear_readiness(self) -> None:
        self._candidate_ready = False
        self._candidate_ready_tick = None


class PromotionServiceAdapter:
    """Counts evaluations and passes of an anneal, and keeps a :class:`PromotionManager` informed.

    Parameters
    ----------
    config:
        As for the manager.
    promotion_manager:
        The record to keep informed; a new one when ``None``.
    """

    def __init__(self, config: Any, promotion_manager: PromotionManager | None = None) -> None:
        self.config = config
        self.manager = promotion_manager if promotion_manager is not None else PromotionManager(config)
        self._pass_streak = 0
        self._eval_counter = 0

    @property
    def pass_streak(self) -> int:
        """Consecutive evaluations with status PASS."""
        return self._pass_streak

    @property
    def eval_counter(self) -> int:
        """Evaluations recorded; serves as the tick of the record."""
        return self._eval_counter

    def record_evaluation(
        self,
        *,
        status: str,
        results: Sequence[Mapping[str, Any]],
        pass_streak: int | None = None,
        candidate_ready: bool | None = None,
    ) -> dict[str, Any]:
        """Record an evaluation with ``status`` PASS, HOLD or FAIL and return the promotion metrics.

        ``pass_streak`` and ``candidate_ready`` override what is counted here. The last of ``results`` describes
        the candidate once it is ready.
        """
        self._eval_counter += 1
        passed = status.upper() == "PASS"
        counted = self._pass_streak + 1 if passed else 0
        self._pass_streak = counted if pass_streak is None else int(pass_streak)
        required = _required_passes(self.config)
        ready = self._pass_streak >= required if candidate_ready is None else bool(candidate_ready)
        metrics = {
            "pass_streak": self._pass_streak,
            "required_passes": required,
            "candidate_ready": ready,
            "last_result": "pass" if passed else "fail",
            "last_evaluated_tick": self._eval_counter,
        }
        self.update_from_metrics({"promotion": metrics}, tick=self._eval_counter)
        last = results[-1] if results else {}
        described = {key: last[key] for key in ("mode", "cycle") if key in last}
        self.set_candidate_metadata({"status": status, **described} if ready else None)
        return metrics

    def set_candidate_metadata(self, metadata: Mapping[str, Any] | None) -> None:
        """Describe the candidate to the manager."""
        self.manager.set_candidate_metadata(metadata)

    def update_from_metrics(self, metrics: Mapping[str, Any], tick: int) -> None:
        """Hand metrics with a ``promotion`` block to the manager."""
        self.manager.update_from_metrics(metrics, tick=tick)


def _required_passes(config: Any) -> int:
    for owner in (getattr(getattr(config, "stability", None), "promotion", None), getattr(config, "promotion", None)):
        if owner is not None:
            return int(getattr(owner, "required_passes", _DEFAULT_PASSES))
    return int(getattr(config, "required_passes", _DEFAULT_PASSES))


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)

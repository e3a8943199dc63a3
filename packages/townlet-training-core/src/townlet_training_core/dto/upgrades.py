"""Bring records of earlier formats to the present one, one version at a time.

What an earlier format did not measure stays absent (``None`` in the record): an upgrade invents no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from townlet_training_core.dto.results import PPO_TELEMETRY_VERSION, RESULT_SCHEMA_VERSION, PPOTrainingResultDTO
from townlet_training_core.errors import DataError

__all__ = ["read_summary", "upgrade_result", "upgrade_summary"]


def _health_counters(record: dict[str, Any]) -> dict[str, Any]:
    """1.0 to 1.1: counters of the advantages and of clipping came; where they are not written, nothing was counted."""
    counters = ("adv_zero_std_batches", "adv_min_std", "clip_triggered_minibatches", "clip_fraction_max")
    return {**dict.fromkeys(counters, 0.0), **record}


def _social_events(record: dict[str, Any]) -> dict[str, Any]:
    """1.1 to 1.2: events beside queue conflicts came; a 1.1 log did not count them."""
    return record


_SUMMARY_STEPS: Final[Mapping[float, tuple[float, Callable[[dict[str, Any]], dict[str, Any]]]]] = {
    1.0: (1.1, _health_counters),
    1.1: (1.2, _social_events),
}


def upgrade_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return an epoch summary in the present format; one that is present already comes back equal.

    Raises
    ------
    DataError
        When ``telemetry_version`` is missing, no number, or not a version that is known.
    """
    upgraded = dict(record)
    while (version := upgraded.get("telemetry_version")) != PPO_TELEMETRY_VERSION:
        step = _SUMMARY_STEPS.get(version) if isinstance(version, int | float) else None
        if step is None:
            known = ", ".join(map(str, [*_SUMMARY_STEPS, PPO_TELEMETRY_VERSION]))
            msg = f"epoch summary has telemetry_version {version!r}; this version reads {known}"
            raise DataError(msg)
        following, change = step
        upgraded = {**change(upgraded), "telemetry_version": following}
    return upgraded


def read_summary(record: Mapping[str, Any]) -> PPOTrainingResultDTO:
    """Read an epoch summary of any known format as a result record."""
    return PPOTrainingResultDTO.model_validate(upgrade_summary(record))


def upgrade_result(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result record in the present format; records from before the version was written count as 1.0.0.

    Raises
    ------
    DataError
        When ``schema_version`` is not one that is known.
    """
    version = payload.get("schema_version", RESULT_SCHEMA_VERSION)
    if version != RESULT_SCHEMA_VERSION:
        msg = f"result has schema_version {version!r}; this version reads {RESULT_SCHEMA_VERSION}"
        raise DataError(msg)
    return {**payload, "schema_version": version}

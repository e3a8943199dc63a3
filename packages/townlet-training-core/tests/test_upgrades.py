"""Records of earlier formats are read as they were meant; golden files hold one of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from townlet_training_core.dto.results import AnnealSummaryDTO
from townlet_training_core.dto.upgrades import read_summary, upgrade_result, upgrade_summary
from townlet_training_core.errors import DataError

GOLDEN = Path(__file__).parent / "golden"


def golden(version: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / f"summary-{version}.json").read_text())
    return loaded


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_a_summary_of_every_format_keeps_its_numbers(version: str) -> None:
    old = golden(version)
    read = read_summary(old).model_dump()
    assert {key: read[key] for key in old} == {**old, "telemetry_version": 1.2}


def test_what_was_not_measured_stays_absent() -> None:
    first = read_summary(golden("1.0"))
    assert (first.data_mode, first.rollout_ticks, first.chat_success_events) == (None, None, None)
    assert first.adv_min_std == 0.0
    assert read_summary(golden("1.1")).queue_conflict_events == 3.0


def test_the_present_format_comes_back_equal() -> None:
    assert upgrade_summary(golden("1.2")) == golden("1.2")


@pytest.mark.parametrize("version", [None, "1.2", 0.9, 3.0])
def test_an_unknown_format_is_refused(version: object) -> None:
    with pytest.raises(DataError, match=r"telemetry_version .*; this version reads 1\.0, 1\.1, 1\.2"):
        upgrade_summary({**golden("1.2"), "telemetry_version": version})


def test_results_are_read_by_their_version() -> None:
    payload = {"stages": [], "status": "PASS", "dataset_label": "town"}
    assert AnnealSummaryDTO.model_validate(upgrade_result(payload)).schema_version == "1.0.0"
    with pytest.raises(DataError, match="schema_version '9'"):
        upgrade_result({**payload, "schema_version": "9"})

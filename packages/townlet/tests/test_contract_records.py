"""Result records: required fields, defaults, bounds and the texts of pydantic that callers match."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from townlet.dto.policy import (
    AnnealStageResultDTO,
    AnnealSummaryDTO,
    BCTrainingResultDTO,
    PPOTrainingResultDTO,
    TrainingResultBase,
)

BC: dict[str, Any] = {
    "manifest": "m.json",
    "accuracy": 0.9,
    "loss": 0.1,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "epochs": 2,
}
PPO: dict[str, Any] = {
    **dict.fromkeys(("updates", "transitions", "loss_policy", "loss_value", "loss_entropy", "loss_total"), 1.0),
    **dict.fromkeys(("epoch", "clip_fraction", "adv_mean", "adv_std", "grad_norm", "kl_divergence", "steps"), 1.0),
    "lr": 3e-4,
}
STAGE: dict[str, Any] = {"cycle": 0, "mode": "bc"}
SUMMARY: dict[str, Any] = {"stages": [STAGE], "status": "PASS", "dataset_label": "d"}
RECORDS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (BCTrainingResultDTO, BC),
    (PPOTrainingResultDTO, PPO),
    (AnnealStageResultDTO, STAGE),
    (AnnealSummaryDTO, SUMMARY),
]

SUMMARY_OPTIONAL = """epoch_duration_sec data_mode cycle_id batch_entropy_mean batch_entropy_std grad_norm_max
    kl_divergence_max reward_advantage_corr rollout_ticks log_stream_offset queue_conflict_events
    queue_conflict_intensity_sum shared_meal_events late_help_events shift_takeover_events
    chat_success_events chat_failure_events chat_quality_mean baseline_sample_count
    baseline_reward_mean baseline_reward_sum baseline_reward_sum_mean baseline_log_prob_mean
    anneal_cycle anneal_stage anneal_dataset anneal_bc_accuracy anneal_bc_threshold anneal_bc_passed
    anneal_loss_baseline anneal_queue_baseline anneal_intensity_baseline anneal_loss_flag
    anneal_queue_flag anneal_intensity_flag"""
STAGE_OPTIONAL = """accuracy loss threshold passed bc_weight rolled_back loss_total loss_policy loss_value
    queue_conflict_events queue_conflict_intensity_sum anneal_loss_flag anneal_queue_flag
    anneal_intensity_flag"""

OPTIONAL: dict[type[BaseModel], dict[str, Any]] = {
    TrainingResultBase: {"schema_version": "1.0.0", "duration_sec": None},
    BCTrainingResultDTO: {
        "mode": "bc",
        **dict.fromkeys(("val_accuracy", "val_loss", "weight_decay", "device"), None),
    },
    PPOTrainingResultDTO: {
        "telemetry_version": 1.2,
        **dict.fromkeys(
            ("adv_zero_std_batches", "adv_min_std", "clip_triggered_minibatches", "clip_fraction_max"), 0.0
        ),
        **dict.fromkeys(
            SUMMARY_OPTIONAL.split(),
            None,
        ),
    },
    AnnealStageResultDTO: dict.fromkeys(
        STAGE_OPTIONAL.split(),
        None,
    ),
    AnnealSummaryDTO: {"baselines": {}, "promotion_pass_streak": None, "promotion_candidate_ready": None},
}

OUT_OF_BOUNDS = [
    (TrainingResultBase, {}, "duration_sec", -1, "greater than or equal to 0"),
    (BCTrainingResultDTO, BC, "accuracy", -0.1, "greater than or equal to 0"),
    (BCTrainingResultDTO, BC, "accuracy", 1.1, "less than or equal to 1"),
    (BCTrainingResultDTO, BC, "loss", -0.1, "greater than or equal to 0"),
    (BCTrainingResultDTO, BC, "learning_rate", 0, "greater than 0"),
    (BCTrainingResultDTO, BC, "batch_size", 0, "greater than 0"),
    (BCTrainingResultDTO, BC, "epochs", 0, "greater than 0"),
    (BCTrainingResultDTO, BC, "mode", "ppo", "Input should be 'bc'"),
    (PPOTrainingResultDTO, PPO, "epoch", 0, "greater than 0"),
    (PPOTrainingResultDTO, PPO, "clip_fraction", -0.1, "greater than or equal to 0"),
    (PPOTrainingResultDTO, PPO, "clip_fraction", 1.1, "less than or equal to 1"),
    (PPOTrainingResultDTO, PPO, "adv_std", -0.1, "greater than or equal to 0"),
    (PPOTrainingResultDTO, PPO, "grad_norm", -0.1, "greater than or equal to 0"),
    (PPOTrainingResultDTO, PPO, "lr", 0, "greater than 0"),
    (PPOTrainingResultDTO, PPO, "steps", -1, "greater than or equal to 0"),
    (PPOTrainingResultDTO, PPO, "reward_advantage_corr", -1.1, "greater than or equal to -1"),
    (PPOTrainingResultDTO, PPO, "reward_advantage_corr", 1.1, "less than or equal to 1"),
    (PPOTrainingResultDTO, PPO, "chat_quality_mean", 1.1, "less than or equal to 1"),
    (AnnealStageResultDTO, STAGE, "cycle", -1, "greater than or equal to 0"),
    (AnnealSummaryDTO, SUMMARY, "promotion_pass_streak", -1, "greater than or equal to 0"),
]


@pytest.mark.parametrize(("record", "given"), RECORDS)
def test_exactly_the_old_fields_are_required(record: type[BaseModel], given: dict[str, Any]) -> None:
    record.model_validate(given)
    for name in given:
        with pytest.raises(ValidationError, match="Field required"):
            record.model_validate({key: value for key, value in given.items() if key != name})


@pytest.mark.parametrize("record", OPTIONAL)
def test_defaults(record: type[BaseModel]) -> None:
    required = dict(RECORDS).get(record, {})
    made = record.model_validate(required).model_dump()
    expected = {**OPTIONAL[TrainingResultBase], **OPTIONAL[record]}
    assert {name: value for name, value in made.items() if name not in required} == expected


@pytest.mark.parametrize(("record", "given", "name", "value", "text"), OUT_OF_BOUNDS)
def test_bounds_and_their_texts(
    record: type[BaseModel], given: dict[str, Any], name: str, value: Any, text: str
) -> None:
    with pytest.raises(ValidationError, match=text) as caught:
        record.model_validate({**given, name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


@pytest.mark.parametrize(("record", "given"), RECORDS)
def test_records_are_frozen_and_closed(record: type[BaseModel], given: dict[str, Any]) -> None:
    made = record.model_validate(given)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(given)), next(iter(given.values())))
    text = "Unknown field .* Only 'conflict" if record is PPOTrainingResultDTO else "Extra inputs are not permitted"
    with pytest.raises(ValidationError, match=text):
        record.model_validate({**given, "surprise": 1})


def test_conflict_keys_are_the_only_ones_that_a_summary_may_add() -> None:
    made = PPOTrainingResultDTO.model_validate({**PPO, "conflict.rivalry_max_mean_avg": 0.5})
    assert made.__pydantic_extra__ == {"conflict.rivalry_max_mean_avg": 0.5}
    assert made.model_dump()["conflict.rivalry_max_mean_avg"] == 0.5
    with pytest.raises(ValidationError, match=r"Only 'conflict\.\*' dynamic fields are allowed"):
        PPOTrainingResultDTO.model_validate({**PPO, "conflicts": 1})

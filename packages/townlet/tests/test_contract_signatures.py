"""Parameters of old functions and classes: names, order, defaults, which ones go by keyword only."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from townlet.policy.models import torch_available

OLD = "townlet.policy.training_orchestrator:PolicyTrainingOrchestrator"
NEW = "townlet.policy.training:TrainingOrchestrator"
TRAINING = "townlet.policy.training:"
REPLAY = "townlet.policy.replay:"
ROLLOUT = "townlet.policy.rollout:"
TRAJECTORY = "townlet.policy.trajectory_service:TrajectoryService"
PROMOTION = "townlet.stability.promotion:PromotionManager"
LOADING = "batch_size=1 shuffle=False seed=None drop_last=False streaming=False"
PPO = "epochs=1 log_path=None log_frequency=1 max_log_entries=None"
ANNEAL = "* dataset_config=None in_memory_dataset=None log_dir=None bc_manifest=None"
CAPTURE = "auto_seed_agents=False output_dir=None prefix='rollout_sample' compress=True"

SIGNATURES = {
    f"{REPLAY}load_replay_sample": "sample_path meta_path=None",
    f"{REPLAY}build_batch": "samples",
    f"{REPLAY}frames_to_replay_sample": "frames",
    f"{REPLAY}ReplaySample": "map features actions old_log_probs value_preds rewards dones metadata",
    f"{REPLAY}ReplayBatch": "maps features actions old_log_probs value_preds rewards dones metadata",
    f"{REPLAY}ReplayDataset": "config",
    f"{REPLAY}ReplayDatasetConfig": f"entries {LOADING} metrics_map=None label=None",
    f"{REPLAY}ReplayDatasetConfig.from_manifest": f"manifest_path {LOADING}",
    f"{REPLAY}ReplayDatasetConfig.from_capture_dir": f"capture_dir {LOADING}",
    "townlet.policy.replay_buffer:InMemoryReplayDatasetConfig": "entries batch_size=1 drop_last=False rollout_ticks=0 "
    "label=None",
    "townlet.policy.replay_buffer:InMemoryReplayDataset": "config",
    TRAJECTORY: "",
    f"{TRAJECTORY}.begin_tick": "tick",
    f"{TRAJECTORY}.transition_entry": "agent_id",
    f"{TRAJECTORY}.record_action": "agent_id action_payload action_id",
    f"{TRAJECTORY}.append_reward": "agent_id reward done",
    f"{TRAJECTORY}.flush_transitions": "* envelope",
    f"{TRAJECTORY}.extend_trajectory": "frames",
    f"{TRAJECTORY}.collect_trajectory": "clear=True",
    f"{TRAJECTORY}.reset_state": "",
    f"{ROLLOUT}RolloutBuffer": "",
    f"{ROLLOUT}RolloutBuffer.extend": "frames",
    f"{ROLLOUT}RolloutBuffer.record_events": "events",
    f"{ROLLOUT}RolloutBuffer.set_tick_count": "n",
    f"{ROLLOUT}RolloutBuffer.is_empty": "",
    f"{ROLLOUT}RolloutBuffer.by_agent": "",
    f"{ROLLOUT}RolloutBuffer.to_samples": "",
    f"{ROLLOUT}RolloutBuffer.save": "output_dir prefix='rollout_sample' compress=True",
    f"{ROLLOUT}RolloutBuffer.build_dataset": "batch_size=1 drop_last=False",
    f"{ROLLOUT}AgentRollout": "agent_id frames",
    f"{ROLLOUT}build_dto_rollout_artifact": "frames",
    "townlet.policy.metrics:compute_sample_metrics": "sample",
    "townlet.policy.models:ConflictAwarePolicyConfig": "feature_dim map_shape action_dim hidden_dim=256",
    "townlet.policy.bc:BCTrainingConfig": "learning_rate=0.001 batch_size=64 epochs=5 weight_decay=0.0 device='cpu'",
    "townlet.policy.bc:BCTrajectoryDataset": "samples",
    "townlet.policy.bc:BCTrainer": "config policy_config",
    "townlet.policy.bc:BCTrainer.fit": "dataset",
    "townlet.policy.bc:BCTrainer.evaluate": "dataset",
    "townlet.policy.bc:evaluate_bc_policy": "model dataset device='cpu'",
    "townlet.policy.bc:load_bc_samples": "manifest_path",
    "townlet.policy.ppo.utils:compute_gae": "rewards value_preds dones gamma gae_lambda",
    "townlet.policy.ppo.utils:normalize_advantages": "advantages eps=1e-08",
    "townlet.policy.ppo.utils:value_baseline_from_old_preds": "value_preds timesteps",
    "townlet.policy.ppo.utils:clipped_value_loss": "new_values returns old_values value_clip",
    "townlet.policy.ppo.utils:policy_surrogate": "new_log_probs old_log_probs advantages clip_param",
    OLD: "config",
    f"{OLD}.run": "",
    f"{OLD}.current_anneal_ratio": "",
    f"{OLD}.set_anneal_ratio": "ratio",
    f"{OLD}.run_replay": "sample_path meta_path=None",
    f"{OLD}.run_replay_batch": "pairs",
    f"{OLD}.run_replay_dataset": "dataset_config",
    f"{OLD}.build_replay_dataset": "config=None",
    f"{OLD}.capture_rollout": f"ticks {CAPTURE}",
    f"{OLD}.run_rollout_ppo": f"ticks batch_size=1 {CAPTURE} {PPO}",
    f"{OLD}.run_bc_training": "* manifest=None config=None",
    f"{OLD}.run_anneal": ANNEAL,
    f"{OLD}.run_ppo": f"dataset_config=None {PPO} in_memory_dataset=None device_str=None",
    f"{OLD}.evaluate_anneal_results": "results",
    f"{OLD}.build_policy_network": "feature_dim map_shape action_dim hidden_dim=None",
    "townlet.policy.runner:TrainingHarness": "config",
    NEW: "config",
    f"{NEW}.run": "",
    f"{NEW}.run_bc": "* manifest=None",
    f"{NEW}.run_ppo": f"* dataset_config=None in_memory_dataset=None {PPO} device_str=None",
    f"{NEW}.run_anneal": ANNEAL,
    f"{NEW}.run_rollout_ppo": f"* ticks batch_size=1 {CAPTURE} {PPO}",
    f"{TRAINING}TrainingServices": "replay rollout promotion",
    f"{TRAINING}TrainingServices.from_config": "config",
    f"{TRAINING}ReplayDatasetService": "config",
    f"{TRAINING}ReplayDatasetService.summarize_sample": "sample_path meta_path=None",
    f"{TRAINING}ReplayDatasetService.summarize_batch": "batch batch_index=1",
    f"{TRAINING}ReplayDatasetService.summarize_dataset": "dataset",
    f"{TRAINING}ReplayDatasetService.summarize_batch_pairs": "pairs",
    f"{TRAINING}ReplayDatasetService.build_dataset": "config=None",
    f"{TRAINING}ReplayDatasetService.resolve_manifest": "manifest=None",
    f"{TRAINING}RolloutCaptureService": "config",
    f"{TRAINING}RolloutCaptureService.capture": f"ticks {CAPTURE}",
    f"{TRAINING}RolloutCaptureService.build_dataset_from_buffer": "buffer batch_size=1",
    f"{TRAINING}PromotionServiceAdapter": "config promotion_manager=None",
    f"{TRAINING}PromotionServiceAdapter.record_evaluation": "* status results pass_streak=None candidate_ready=None",
    f"{TRAINING}PromotionServiceAdapter.update_from_metrics": "metrics tick",
    "townlet.policy.training.contexts:TrainingContext": "config services anneal_context=None metadata=<factory>",
    "townlet.policy.training.contexts:TrainingContext.from_config": "config",
    "townlet.policy.training.contexts:PPOState": "step=0 learning_rate=0.001 log_stream_offset=0 cycle_id=-1",
    "townlet.policy.training.contexts:AnnealContext": "cycle stage dataset_label bc_accuracy bc_threshold bc_passed "
    "loss_baseline=None queue_events_baseline=None queue_intensity_baseline=None loss_tolerance=0.1 "
    "queue_tolerance=0.15",
    "townlet.policy.training.contexts:AnnealContext.evaluate_ppo_flags": "loss_total queue_events queue_intensity",
    "townlet.policy.training.strategies:BCStrategy.run": "context",
    "townlet.policy.training.strategies:PPOStrategy.run": f"context * dataset_config=None in_memory_dataset=None {PPO} "
    "device_str=None",
    "townlet.policy.training.strategies:AnnealStrategy.run": f"context {ANNEAL}",
    PROMOTION: "config log_path=None",
    f"{PROMOTION}.update_from_metrics": "metrics * tick",
    f"{PROMOTION}.mark_promoted": "* tick metadata=None",
    f"{PROMOTION}.register_rollback": "* tick metadata=None",
    f"{PROMOTION}.record_manual_swap": "* tick metadata",
    f"{PROMOTION}.set_candidate_metadata": "metadata",
    f"{PROMOTION}.snapshot": "",
    f"{PROMOTION}.export_state": "",
    f"{PROMOTION}.import_state": "payload",
    f"{PROMOTION}.reset": "",
    "townlet.policy.scenario_utils:apply_scenario": "loop scenario",
    "townlet.policy.scenario_utils:seed_default_agents": "loop",
    "townlet.policy.scenario_utils:has_agents": "loop",
    "townlet.policy.scenario_utils:ScenarioBehavior": "base_behavior schedules",
    "townlet.policy.scenario_utils:ScenarioBehavior.decide": "world agent_id * dto_world=None",
    "townlet.policy.scenario_utils:AgentIntent": "kind object_id=None affordance_id=None blocked=False position=None "
    "target_agent=None quality=None",
    "townlet.policy.scripted:get_scripted_policy": "name",
    "townlet.policy.scripted:ScriptedPolicyAdapter": "policy",
    "townlet.policy.scripted:ScriptedPolicyAdapter.collect_trajectory": "* clear=False",
    "townlet.policy.fallback:StubPolicyBackend": "config=None backend=None",
    "townlet.policy.fallback:is_stub_policy": "policy provider=None",
    "townlet.telemetry.fallback:StubTelemetrySink": "config=None publisher=None",
    "townlet.policy:resolve_policy_backend": "provider=None",
    "townlet.core:policy_registry": "",
    "townlet.core.utils:is_stub_policy": "policy provider=None",
    "townlet.core.utils:policy_provider_name": "loop",
    "townlet.core.utils:telemetry_provider_name": "loop",
    "townlet.core.sim_loop:SimulationLoop": "config",
    "townlet.config:load_config": "path",
    "townlet.scripts.run_training:_collect_ppo_overrides": "args",
    "townlet.scripts.run_training:_apply_ppo_overrides": "config overrides",
    "townlet.scripts.capture_rollout_suite:run_capture": "config ticks output auto_seed=False agent_filter=None "
    "compress=False retries=1",
    "townlet.scripts.promotion_evaluate:evaluate": "payload",
    "townlet.scripts.run_anneal_rehearsal:evaluate_summary": "summary",
    "townlet.scripts.validate_ppo_telemetry:validate_logs": "paths baseline_path=None drift_threshold=None "
    "include_relative=False",
}
NEEDS_TORCH = (
    "townlet.policy.bc:BCTraj",
    "townlet.policy.bc:BCTrainer",
    "townlet.policy.bc:eval",
    "townlet.policy.ppo",
)


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_call_of_old_is_a_call_of_today(path: str) -> None:
    if path.startswith(NEEDS_TORCH) and not torch_available():
        pytest.skip("needs torch")
    module, _, dotted = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in dotted.split("."):
        found = getattr(found, name)
    parameters = [one for name, one in inspect.signature(found).parameters.items() if name != "self"]
    positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    given, _, by_keyword = (part.split() for part in SIGNATURES[path].partition("*"))
    assert [_shown(one) for one in positional[: len(given)]] == given
    assert {*by_keyword} <= {_shown(one) for one in parameters}
    # What is new has a default, so that nobody has to give it.
    known = {word.partition("=")[0] for word in (*given, *by_keyword)}
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    new = [one for one in parameters if one.name not in known and one.kind not in variable]
    assert [one.name for one in new if one.default is one.empty] == []


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default!r}"


def test_rehearsals_have_the_old_default_files() -> None:
    from townlet.scripts.run_anneal_rehearsal import run_rehearsal

    parameters = inspect.signature(run_rehearsal).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "config_path": Path("artifacts/m5/acceptance/config_idle_v1.yaml"),
        "manifest_path": Path("data/bc_datasets/manifests/idle_v1.json"),
        "log_dir": None,
    }

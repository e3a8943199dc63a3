"""Train: replay, rollout, mixed, bc or anneal."""

from __future__ import annotations

import argparse
from typing import Any

from townlet.config import PPOConfig, SimulationConfig, load_config
from townlet.policy.replay import ReplayDatasetConfig
from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
from townlet_training_core.cli.flags import emit, script
from townlet_training_core.errors import ConfigurationError

__all__ = ["main"]

_FLAGS = """config:path --mode:replay|rollout|mixed|bc|anneal
  --replay-sample:path --replay-meta:path --replay-manifest:path --capture-dir:path --replay-batch-size:int=1
  --replay-shuffle --replay-seed:int --replay-drop-last --replay-streaming
  --bc-manifest:path --anneal-log-dir:path --anneal-exit-on-failure --train-ppo
  --rollout-save-dir:path --rollout-ticks:int --rollout-auto-seed-agents
  --epochs:int=1 --ppo-log:path --ppo-log-frequency:int=1 --ppo-log-max-entries:int --device:str
  --ppo-learning-rate:float --ppo-clip-param:float --ppo-value-loss-coef:float --ppo-entropy-coef:float
  --ppo-num-epochs:int --ppo-mini-batch-size:int --ppo-num-mini-batches:int --ppo-gae-lambda:float --ppo-gamma:float
  --ppo-max-grad-norm:float --ppo-value-clip:float
  --ppo-normalize-advantages/--ppo-no-normalize-advantages"""


def _collect_ppo_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the PPO settings that were given, by field of ``PPOConfig``."""
    given = {name: getattr(args, f"ppo_{name}", None) for name in PPOConfig.model_fields}
    given["advantage_normalization"] = getattr(args, "ppo_normalize_advantages", None)
    return {name: value for name, value in given.items() if value is not None}


def _apply_ppo_overrides(config: SimulationConfig, overrides: dict[str, Any]) -> None:
    """Put settings into ``config.ppo``, which is made when there is none."""
    if overrides:
        changed = (config.ppo or PPOConfig()).model_copy(update=overrides)
        config.ppo = PPOConfig.model_validate(changed.model_dump())


def _dataset(args: argparse.Namespace) -> ReplayDatasetConfig | None:
    if args.capture_dir and args.replay_manifest:
        msg = "Specify either --capture-dir or --replay-manifest, not both"
        raise ConfigurationError(msg)
    names = ("batch_size", "shuffle", "seed", "drop_last", "streaming")
    options = {name: getattr(args, f"replay_{name}") for name in names}
    if args.capture_dir:
        return ReplayDatasetConfig.from_capture_dir(args.capture_dir, **options)
    if args.replay_manifest:
        return ReplayDatasetConfig.from_manifest(args.replay_manifest, **options)
    if args.replay_sample:
        return ReplayDatasetConfig(entries=[(args.replay_sample, args.replay_meta)], **options)
    return None


def _capture(orchestrator: PolicyTrainingOrchestrator, args: argparse.Namespace) -> Any:
    training = orchestrator.config.training
    ticks = args.rollout_ticks if args.rollout_ticks is not None else training.rollout_ticks
    seed_agents = args.rollout_auto_seed_agents or training.rollout_auto_seed_agents
    try:
        buffer = orchestrator.capture_rollout(ticks, auto_seed_agents=seed_agents, output_dir=args.rollout_save_dir)
    except ValueError as error:
        if "No agents available" not in str(error):
            raise
        msg = f"{error} Pass --rollout-auto-seed-agents to seed two default agents."
        raise ConfigurationError(msg) from error
    return buffer.build_dataset(batch_size=args.replay_batch_size)


@script(_FLAGS)
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    config = load_config(args.config)
    _apply_ppo_overrides(config, _collect_ppo_overrides(args))
    mode = args.mode or config.training.source
    orchestrator = PolicyTrainingOrchestrator(config)
    if mode not in ("replay", "rollout", "mixed", "bc", "anneal"):
        msg = f"Unsupported training mode: {mode}"
        raise ConfigurationError(msg)
    stored = _dataset(args)
    if mode == "bc":
        emit(orchestrator.run_bc_training(manifest=args.bc_manifest))
        return 0
    if mode == "anneal":
        results = orchestrator.run_anneal(
            dataset_config=stored, log_dir=args.anneal_log_dir, bc_manifest=args.bc_manifest
        )
        status = orchestrator.evaluate_anneal_results(results)
        emit({"status": status, "promotion": orchestrator.promotion.snapshot(), "results": results})
        return int(args.anneal_exit_on_failure and status != "PASS")
    captured = None if mode == "replay" else _capture(orchestrator, args)
    if args.train_ppo:
        summary = orchestrator.run_ppo(
            None if mode == "rollout" else stored or orchestrator.build_replay_dataset(),
            epochs=args.epochs,
            log_path=args.ppo_log,
            log_frequency=args.ppo_log_frequency,
            max_log_entries=args.ppo_log_max_entries,
            in_memory_dataset=captured,
            device_str=args.device,
        )
        emit(summary)
        return 0
    if captured is not None:
        orchestrator.run_replay_dataset(captured)
    if mode != "rollout":
        if args.replay_sample and not (args.capture_dir or args.replay_manifest):
            orchestrator.run_replay(args.replay_sample, args.replay_meta)
        else:
            orchestrator.run_replay_dataset(stored or orchestrator.build_replay_dataset())
    return 0

"""Alternate PPO on stored captures and on fresh rollouts."""

from __future__ import annotations

import argparse

from townlet.config import load_config
from townlet.policy.replay import ReplayDatasetConfig
from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
from townlet_training_core.cli.flags import say, script

__all__ = ["main"]


@script("""config:path --baseline-dir:path! --output-dir:path! --cycles:int=12 --epochs:int=1 --rollout-ticks:int=40
    --replay-batch-size:int=1 --rollout-batch-size:int=2 --log-frequency:int=1""")
def main(args: argparse.Namespace) -> int:
    """Run the script: even cycles train on the baseline captures, odd ones on a rollout."""
    orchestrator = PolicyTrainingOrchestrator(load_config(args.config))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    log = args.output_dir / "ppo_soak.jsonl"
    data = ReplayDatasetConfig.from_capture_dir(args.baseline_dir, batch_size=args.replay_batch_size)
    for cycle in range(args.cycles):
        if cycle % 2 == 0:
            orchestrator.run_ppo(data, epochs=args.epochs, log_path=log, log_frequency=args.log_frequency)
        else:
            orchestrator.run_rollout_ppo(
                args.rollout_ticks,
                batch_size=args.rollout_batch_size,
                epochs=args.epochs,
                log_path=log,
                log_frequency=args.log_frequency,
            )
    say(f"Mixed soak of {args.cycles} cycles logged to {log}")
    return 0

"""Rehearse an anneal on a cloning dataset and judge it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from townlet.config import AnnealStage, load_config
from townlet.policy.replay import ReplayDatasetConfig
from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
from townlet.scripts import promotion_evaluate
from townlet_training_core.cli.flags import emit, script

__all__ = ["evaluate_summary", "main", "run_rehearsal"]

_CONFIG = Path("artifacts/m5/acceptance/config_idle_v1.yaml")
_MANIFEST = Path("data/bc_datasets/manifests/idle_v1.json")


def run_rehearsal(
    config_path: Path = _CONFIG, manifest_path: Path = _MANIFEST, log_dir: Path | None = None
) -> dict[str, Any]:
    """Anneal with the configured schedule (BC then PPO where there is none) and return what came of it."""
    config = load_config(config_path)
    if not config.training.anneal_schedule:
        config.training.anneal_schedule = [AnnealStage(cycle=0, mode="bc"), AnnealStage(cycle=1, mode="ppo")]
    orchestrator = PolicyTrainingOrchestrator(config)
    data = ReplayDatasetConfig.from_manifest(manifest_path)
    results = orchestrator.run_anneal(dataset_config=data, log_dir=log_dir, bc_manifest=manifest_path)
    bc: dict[str, Any] = next((row for row in results if row["mode"] == "bc"), {})
    ppo: dict[str, Any] = next((row for row in reversed(results) if row["mode"] == "ppo"), {})
    flags = {f"{name}_flag": bool(ppo.get(f"anneal_{name}_flag", False)) for name in ("loss", "queue", "intensity")}
    return {
        "status": orchestrator.evaluate_anneal_results(results),
        "results": results,
        "promotion": orchestrator.promotion.snapshot(),
        "bc": bc,
        "ppo": ppo,
        "bc_passed": bool(bc.get("passed", False)),
        **flags,
    }


def evaluate_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with the decision; status and decision in upper case."""
    outcome = promotion_evaluate.evaluate(summary)
    return {**summary, **outcome, "status": outcome["status"].upper(), "decision": outcome["decision"].upper()}


@script(f"--config:path={_CONFIG} --manifest:path={_MANIFEST} --log-dir:path")
def main(args: argparse.Namespace) -> int:
    """Run the script; exit code 1 unless the anneal passed."""
    summary = evaluate_summary(run_rehearsal(args.config, args.manifest, args.log_dir))
    emit(summary)
    return int(summary["status"] != "PASS")

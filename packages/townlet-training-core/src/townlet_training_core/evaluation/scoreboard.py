"""Score a finished run: random, expert, cloned and final policy on the same seeds."""

from __future__ import annotations

import math

from townlet_training_core.config.loader import validated
from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationResult
from townlet_training_core.dto.scoreboard import Score, Scoreboard
from townlet_training_core.evaluation.compare import compare_paired
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.registry import make_policy
from townlet_training_core.runs import RunDirectory

__all__ = ["score_run"]


def score_run(run: RunDirectory, *, service: EvaluationService | None = None) -> Scoreboard | None:
    """Evaluate the policies of a run and write ``results/evaluation/<label>.json`` and ``results/scoreboard.json``.

    Parameters
    ----------
    service:
        The one that the run was trained with, so that what it evaluated is not played again; it is closed. Made
        from the run's configuration when ``None``.

    Returns ``None`` for a run without a checkpoint: a strategy that trains no policy has nothing to score.
    """
    manifest = run.manifest()
    checkpoints = _checkpoints(run, str(manifest["strategy"]))
    if not checkpoints:
        return None
    config = validated(TrainingConfig, manifest["config"], source=str(run.path / "run.json"), prefix="config")
    evaluation = config.evaluation
    with service or EvaluationService.from_config(config) as player:
        policies = {"random": "random"}
        if callable(getattr(player.simulation, "expert_actions", None)):
            policies["expert"] = "scripted"
        policies |= checkpoints
        results = {label: player.evaluate(make_policy(spec), label=label) for label, spec in policies.items()}
    files = {
        label: run.write_result(f"evaluation/{label}", result.model_dump(mode="json"))
        for label, result in results.items()
    }
    first = next(iter(results.values()))
    final = results.get("final")
    scoreboard = Scoreboard(
        simulation=first.simulation,
        rules_hash=first.rules_hash,
        episodes=len(first.returns),
        greedy=evaluation.greedy,
        scores=tuple(_score(result, files[label]) for label, result in results.items()),
        comparisons=()
        if final is None
        else tuple(
            compare_paired(final, other, confidence=evaluation.confidence, resamples=evaluation.resamples)
            for label, other in results.items()
            if label != "final"
        ),
    )
    run.write_result("scoreboard", scoreboard.model_dump(mode="json"))
    return scoreboard


def _checkpoints(run: RunDirectory, strategy: str) -> dict[str, str]:
    """Return the run's policies by label: ``bc`` (last cloning stage of an anneal) and ``final``."""
    result = run.read_result(strategy) or {}
    found = {}
    for stage in result.get("stages", ()):
        if stage.get("mode") == "bc" and stage.get("checkpoint"):
            found["bc"] = str(run.path / stage["checkpoint"])
    if result.get("checkpoint"):
        found["final"] = str(run.path / result["checkpoint"])
    return found


def _score(result: EvaluationResult, file: str) -> Score:
    kpis = {}
    for name, values in result.kpis.items():
        known = [value for value in values if not math.isnan(value)]
        if known:
            kpis[name] = math.fsum(known) / len(known)
    return Score(
        label=result.label,
        policy_hash=result.policy_hash,
        mean=result.summary.mean,
        iqm=result.summary.iqm,
        kpis=kpis,
        result=file,
    )

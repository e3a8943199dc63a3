"""Evaluation: policies on suites of fixed seeds, with intervals, and comparisons paired by seed.

Results are records that compare to the last digit, whatever number of environments was stepped together.
"""

from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite, PairedComparison
from townlet_training_core.evaluation.compare import compare_paired, interval_of, summarise_returns
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.evaluation.suite import TownStreams, evaluate_policy, suite_from_config

__all__ = [
    "EvaluationResult",
    "EvaluationService",
    "EvaluationSuite",
    "PairedComparison",
    "TownStreams",
    "compare_paired",
    "evaluate_policy",
    "interval_of",
    "suite_from_config",
    "summarise_returns",
]

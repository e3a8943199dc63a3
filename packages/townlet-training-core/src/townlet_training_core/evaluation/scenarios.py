"""Several suites, one per scenario, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from townlet_training_core import statistics
from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite, SuiteAggregate
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.evaluation.compare import interval_of, require_comparable
from townlet_training_core.evaluation.suite import suite_from_config

__all__ = ["aggregate", "load_suites"]


def load_suites(path: Path | None, config: TrainingConfig) -> tuple[EvaluationSuite, ...]:
    """Read suites from a YAML or JSON list; the configuration's own suite when ``path`` is ``None``.

    An item names what differs from the configuration's suite: ``name`` (required), ``simulation``, ``options`` (merged
    over the configured ones), ``seeds`` or ``first_seed`` and ``episodes``, ``max_steps``, ``greedy``.

    Raises
    ------
    ConfigurationError
        With file and item, for what is wrong.
    """
    base = suite_from_config(config.simulation, config.evaluation)
    if path is None:
        return (base,)
    try:
        payload = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read suites {str(path)!r}: {error.strerror}"
        raise ConfigurationError(msg) from error
    except (ValueError, yaml.YAMLError) as error:
        msg = f"suites {str(path)!r} are not valid YAML: {error}"
        raise ConfigurationError(msg) from error
    if not isinstance(payload, list) or not payload:
        msg = f"suites {str(path)!r}: expected a list with one item per scenario"
        raise ConfigurationError(msg)
    suites = tuple(_suite(item, base, f"{str(path)!r}, item {at}") for at, item in enumerate(payload))
    names = [suite.name for suite in suites]
    if len(set(names)) != len(names):
        msg = f"suites {str(path)!r}: two of them have one name among {names}"
        raise ConfigurationError(msg)
    return suites


def _suite(item: Any, base: EvaluationSuite, where: str) -> EvaluationSuite:
    if not isinstance(item, dict) or "name" not in item:
        msg = f"suites {where}: expected a mapping with 'name'"
        raise ConfigurationError(msg)
    fields = dict(item)
    first, episodes = fields.pop("first_seed", base.seeds[0]), fields.pop("episodes", len(base.seeds))
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (first, episodes))
    if not whole or first < 0 or episodes < 1:
        msg = f"suites {where}: first_seed and episodes must be whole numbers, found {first!r} and {episodes!r}"
        raise ConfigurationError(msg)
    fields.setdefault("seeds", range(first, first + episodes))
    options = fields.pop("options", {})
    if not isinstance(options, dict):
        msg = f"suites {where}: options: expected a mapping, found {options!r}"
        raise ConfigurationError(msg)
    known = base.options if fields.get("simulation", base.simulation) == base.simulation else {}
    try:
        return EvaluationSuite.model_validate(
            {**base.model_dump(exclude={"name", "seeds"}), **fields, "options": {**known, **options}}
        )
    except ValidationError as error:
        first_error = error.errors()[0]
        msg = f"suites {where}: {'.'.join(map(str, first_error['loc']))}: {first_error['msg']}"
        raise ConfigurationError(msg) from error


def aggregate(
    results: Sequence[EvaluationResult],
    against: Sequence[EvaluationResult] = (),
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> SuiteAggregate:
    """Aggregate one policy over suites, episodes resampled within each suite (Agarwal et al. 2021).

    Returns are taken as they are: scenarios whose returns have different sizes weigh accordingly in mean and
    interquartile mean; the probability of improvement does not know sizes.

    Parameters
    ----------
    results:
        Results of one policy, one per suite.
    against:
        Results of another policy on the same suites, in the same order; empty for no comparison.

    Raises
    ------
    DataError
        When there are no results, they belong to several policies, or the two sides do not match.
    """
    hashes = {result.policy for result in results}
    if len(hashes) != 1:
        msg = f"an aggregate needs results of one policy, found {len(hashes)}"
        raise DataError(msg)
    if against:
        if len(against) != len(results):
            msg = f"the two sides need the same suites, found {len(results)} and {len(against)}"
            raise DataError(msg)
        for first, second in zip(results, against, strict=True):
            require_comparable(first, second)
    scores = [result.returns for result in results]
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples}
    improvement = None
    if against:
        others = [result.returns for result in against]
        improvement = interval_of(statistics.probability_of_improvement(scores, others, **settings))
    return SuiteAggregate(
        label=results[0].label,
        suites=tuple(result.suite.name for result in results),
        episodes=sum(len(result.returns) for result in results),
        mean=interval_of(statistics.bootstrap_means(scores, **settings)),
        iqm=interval_of(statistics.bootstrap_iqm(scores, **settings)),
        against=against[0].label if against else None,
        probability_of_improvement=improvement,
    )

"""Decide from an anneal's summary: PROMOTE, HOLD or FAIL."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import promotion_evaluate as main
from townlet_training_core.promotion.verdict import evaluate

__all__ = ["evaluate", "main"]

if __name__ == "__main__":
    run(main)

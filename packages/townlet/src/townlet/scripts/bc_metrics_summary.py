"""Summarise the accuracies of cloning runs."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import bc_metrics_summary as main

__all__ = ["main"]

if __name__ == "__main__":
    run(main)

"""Merge the metrics of captured scenarios into the golden statistics."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import merge_rollout_metrics as main

__all__ = ["main"]

if __name__ == "__main__":
    run(main)

"""Write a manifest of captures that says which are good enough to train on."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import curate_trajectories as main

__all__ = ["main"]

if __name__ == "__main__":
    run(main)

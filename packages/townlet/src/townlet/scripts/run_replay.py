"""Show a sample, or check it."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import run_replay as main

__all__ = ["main"]

if __name__ == "__main__":
    run(main)

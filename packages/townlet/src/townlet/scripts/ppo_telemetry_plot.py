"""Show or draw the losses of a PPO log."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import ppo_telemetry_plot as main

__all__ = ["main"]

if __name__ == "__main__":
    run(main)

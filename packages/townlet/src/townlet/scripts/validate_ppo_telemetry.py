"""Check PPO logs, and how far they are from a baseline."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import validate_ppo_telemetry as main
from townlet_training_core.evaluation.logs import validate_logs

__all__ = ["main", "validate_logs"]

if __name__ == "__main__":
    run(main)

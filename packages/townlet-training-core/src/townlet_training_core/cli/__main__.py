"""``python -m townlet_training_core.cli``: the same as ``townlet``."""

from townlet_training_core.cli.app import main

main()

"""Behaviour cloning, PPO and Anneal strategies of Townlet training, on PyTorch."""

import os
import sys

from townlet_training_torch._version import __version__

__all__ = ["__version__"]

if "torch" not in sys.modules:
    # OpenMP reads this once, when torch is loaded. Threads that spin while they wait starve one another as soon as
    # anything else runs on the machine: with two threads on two cores, one of them busy, an update of 512 rows ran
    # at 1,600 rows/s spinning and at 72,000 sleeping. Whoever sets the variable is obeyed.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

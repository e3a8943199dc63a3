"""townlet_training_core."""

from townlet_training_core._version import __version__

__all__ = ["__version__"]

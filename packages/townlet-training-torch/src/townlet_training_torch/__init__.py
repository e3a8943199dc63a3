"""townlet_training_torch."""

from townlet_training_torch._version import __version__

__all__ = ["__version__"]

"""The ``townlet`` command line; commands are loaded when they are asked for."""

from townlet_training_core.cli.app import main

__all__ = ["main"]

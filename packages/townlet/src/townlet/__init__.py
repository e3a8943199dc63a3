"""Townlet's old import paths, commands and files over the training packages.

Re-exports of :mod:`townlet_training_core`, :mod:`townlet_training_torch` and :mod:`townlet_sim`, thin adapters
where the old shape differs. Every package here extends its path, so that an owner's own ``townlet`` tree can
live beside it.
"""

from pkgutil import extend_path

from townlet._version import __version__

__path__ = extend_path(__path__, __name__)

__all__ = ["__version__"]

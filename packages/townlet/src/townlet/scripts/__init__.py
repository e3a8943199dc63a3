"""The old scripts: ``python -m townlet.scripts.<name>`` or ``townlet legacy <name>``."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

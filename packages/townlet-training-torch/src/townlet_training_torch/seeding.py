"""Torch generators from the library's named streams, and the process-wide generators that a checkpoint keeps.

The strategies draw everything from named streams. Python's and torch's global generators are saved beside them,
because a simulation or network that somebody else wrote may use them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_training_core.streams import stream_seed

__all__ = ["global_generators", "restore_global_generators", "torch_generator"]


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Make a CPU generator of the stream ``names`` of ``seed``."""
    made = torch.Generator(device="cpu")
    made.manual_seed(stream_seed(seed, *names))
    return made


def global_generators() -> dict[str, NDArray[Any]]:
    """Return the state of python's and torch's global generators as named arrays."""
    version, words, gauss = random.getstate()
    return {
        "generators/python": np.array([version, *words], np.uint64),
        "generators/python_gauss": np.array([np.nan if gauss is None else gauss], np.float64),
        "generators/torch": torch.get_rng_state().numpy().copy(),
    }


def restore_global_generators(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Restore :func:`global_generators`; arrays of other names are ignored."""
    version, *words = (int(word) for word in arrays["generators/python"])
    gauss = float(arrays["generators/python_gauss"][0])
    random.setstate((version, tuple(words), None if np.isnan(gauss) else gauss))
    torch.set_rng_state(torch.from_numpy(arrays["generators/torch"].copy()))

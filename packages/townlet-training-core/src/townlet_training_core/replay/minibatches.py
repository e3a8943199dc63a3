"""Random mini-batches of transitions, reshuffled every epoch, resumable at any batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import IntArray
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.replay.transitions import TransitionDataset
from townlet_training_core.streams import generator

__all__ = ["MiniBatches"]


class MiniBatches:
    """Mini-batches across the trajectories of a dataset.

    The order of an epoch follows from the seed and the number of the epoch alone, so a position is two numbers.
    Rows within a batch come in order of the table: the batch is a random set, and reading it in order is kinder
    to pages and shards.

    Parameters
    ----------
    dataset:
        Where the rows come from.
    batch_size:
        Rows of a batch.
    seed:
        Seed of the orders.
    rows:
        Draw from these rows only (a training split); all by default.
    names:
        Columns to gather; all by default.
    drop_last:
        Leave out a last batch that is not full.
    window:
        Shuffle within a sliding window of so many rows instead of the whole (for a table larger than memory): the
        windows are drawn in random order. ``None`` shuffles everything.

    Raises
    ------
    ConfigurationError
        When ``batch_size`` or ``window`` is not positive.
    """

    def __init__(
        self,
        dataset: TransitionDataset,
        *,
        batch_size: int,
        seed: int,
        rows: NDArray[Any] | None = None,
        names: Sequence[str] | None = None,
        drop_last: bool = False,
        window: int | None = None,
    ) -> None:
        if batch_size < 1 or (window is not None and window < 1):
            msg = f"batch_size={batch_size!r}, window={window!r}: expected positive numbers"
            raise ConfigurationError(msg)
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._rows = None if rows is None else np.asarray(rows, np.int64)
        self._names, self._drop_last, self._window = names, drop_last, window

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        count = len(self._dataset) if self._rows is None else len(self._rows)
        return count // self._batch_size if self._drop_last else -(-count // self._batch_size)

    def order(self, epoch: int) -> IntArray:
        """Return the rows of an epoch in the order in which they are drawn."""
        count = len(self._dataset) if self._rows is None else len(self._rows)
        stream = generator(self._seed, "minibatches", epoch)
        if self._window is None or self._window >= count:
            order = stream.permutation(count)
        else:
            starts = np.arange(0, count, self._window)
            pieces = [
                start + stream.permutation(min(self._window, count - start)) for start in stream.permutation(starts)
            ]
            order = np.concatenate(pieces)
        return np.asarray(order if self._rows is None else self._rows[order], np.int64)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the batches of an epoch, beginning with batch ``first``."""
        order = self.order(epoch)
        for number in range(first, len(self)):
            indices = np.sort(order[number * self._batch_size : (number + 1) * self._batch_size])
            yield self._dataset.gather(indices, self._names)

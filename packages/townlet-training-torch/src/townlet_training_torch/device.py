"""Which device computes, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from townlet_training_core.config.models import ComputeConfig
from townlet_training_core.errors import ConfigurationError

__all__ = ["alone", "compute_threads", "few", "resolve_device", "spare_threads"]


_PAYS = 2**19
"""Numbers of one operation on which a second thread begins to pay: waking it takes 20 to 250 microseconds."""


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.

    ``auto`` takes the CUDA device with the most free memory, and the CPU where there is none; so does ``cuda``
    among several devices.

    Raises
    ------
    ConfigurationError
        When the device does not exist here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
    if name in ("auto", "cuda") and count > 0:
        return torch.device("cuda", max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0]))
    kind, _, index = name.partition(":")
    if kind == "cuda" and index.isdigit() and int(index) < count:
        return torch.device("cuda", int(index))
    msg = f"device {name!r} does not exist here; choose one of {here}, or 'auto'"
    raise ConfigurationError(msg)


@contextmanager
def compute_threads(threads: int) -> Iterator[int]:
    """Let torch use ``threads`` CPU threads (0: every core) inside the block, and yield the number.

    The number is fixed for a run because sums on more threads may round differently.
    """
    before = torch.get_num_threads()
    chosen = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def spare_threads(compute: ComputeConfig, *, parameters: int) -> None:
    """Go on with one thread for a small network, unless a number of threads was asked for.

    Called inside :func:`compute_threads`, which restores the number.
    """
    if compute.threads == 0 and parameters <= compute.small_network:
        torch.set_num_threads(1)


def few(elements: int) -> bool:
    """Whether one thread computes so many numbers sooner than it wakes another."""
    return elements <= _PAYS


@contextmanager
def alone(elements: int) -> Iterator[None]:
    """Let one thread compute inside the block where ``elements`` are :func:`few`."""
    before = torch.get_num_threads()
    if before == 1 or not few(elements):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Running moments equal those of everything at once; devices and threads are what was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_training_core.config.models import ComputeConfig
from townlet_training_core.errors import ConfigurationError
from townlet_training_torch.device import compute_threads, resolve_device, spare_threads
from townlet_training_torch.minibatches import mini_batch_size
from townlet_training_torch.normalisers import ObservationNormaliser, ReturnScaler


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_moments_of_parts_are_those_of_the_whole(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(3.0, 2.0, (size, 2)) for size in sizes]
    normaliser = ObservationNormaliser({"features": (2,)})
    for part in parts:
        normaliser.update("features", part)
    whole = np.concatenate(parts)
    if len(whole):
        np.testing.assert_allclose(normaliser.get_buffer("features_mean").numpy(), whole.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(normaliser.get_buffer("features_var").numpy(), whole.var(axis=0), atol=1e-9)
        shown = normaliser("features", torch.from_numpy(whole.astype(np.float32))).numpy()
        if len(whole) > 2:
            np.testing.assert_allclose(shown.mean(axis=0), 0.0, atol=1e-3)
    assert float(normaliser.get_buffer("features_count")) == len(whole)


def test_return_scale_by_hand_and_after_restoring() -> None:
    scaler = ReturnScaler(1, gamma=0.5)
    assert scaler.scale == 1.0
    rewards = np.array([[1.0], [1.0], [4.0]])
    ended = np.array([[False], [True], [False]])
    scaler.update(rewards, valid=np.ones((3, 1), np.bool_), ended=ended)
    # running returns: 1, 1.5, and 4 in the next episode
    assert scaler.scale == pytest.approx(np.std([1.0, 1.5, 4.0]))
    other = ReturnScaler(1, gamma=0.5)
    other.load_state(scaler.state())
    for both in (scaler, other):
        both.update(rewards, valid=np.ones((3, 1), np.bool_), ended=ended)
    assert scaler.scale == other.scale


@pytest.mark.parametrize(
    ("transitions", "largest", "at_least", "expected"),
    [(100, 32, 4, 25), (100, 16, 4, 16), (3, 32, 4, 1), (1, 32, 4, 1), (100, 32, None, 32), (10, 32, None, 10)],
)
def test_mini_batch_size_by_the_contracts_formula(
    transitions: int, largest: int, at_least: int | None, expected: int
) -> None:
    assert mini_batch_size(transitions, largest=largest, at_least=at_least) == expected


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cuda:x"])
def test_a_device_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        resolve_device(name)


def test_auto_takes_the_cuda_device_with_most_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {0: 3, 1: 9, 2: 5}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 10))
    assert resolve_device("auto") == torch.device("cuda", 1)
    assert resolve_device("cuda:2") == torch.device("cuda", 2)
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_is_the_cpu_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


def test_threads_are_set_inside_and_put_back() -> None:
    before = torch.get_num_threads()
    with compute_threads(3) as chosen:
        assert (chosen, torch.get_num_threads()) == (3, 3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("threads", "parameters", "expected"), [(0, 50_000, 1), (0, 50_001, 3), (3, 10, 3)])
def test_a_small_network_spares_threads_unless_a_number_was_asked_for(
    threads: int, parameters: int, expected: int
) -> None:
    with compute_threads(3):
        spare_threads(ComputeConfig(threads=threads), parameters=parameters)
        assert torch.get_num_threads() == expected


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_cuda(workshop: Any) -> None:
    from townlet_training_core.config.requests import PPORequest
    from townlet_training_torch.ppo import PPOStrategy

    config = workshop.use(task="masked").config(compute={"device": "cuda"})
    assert PPOStrategy().run(workshop.context(config), PPORequest()).steps > 0

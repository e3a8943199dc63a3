"""Networks, cloning and PPO operations under their old signatures."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from townlet.policy.replay import ReplaySample

torch = pytest.importorskip("torch")

from townlet.policy.bc import BCTrainer, BCTrainingConfig, BCTrajectoryDataset, evaluate_bc_policy  # noqa: E402
from townlet.policy.models import ConflictAwarePolicyConfig, ConflictAwarePolicyNetwork  # noqa: E402
from townlet.policy.ppo.utils import (  # noqa: E402
    clipped_value_loss,
    compute_gae,
    normalize_advantages,
    policy_surrogate,
    value_baseline_from_old_preds,
)


def _sample(frames: int, shape: tuple[int, int, int], **metadata: Any) -> ReplaySample:
    rng = np.random.default_rng(0)
    return ReplaySample(
        map=rng.random((frames, *shape), dtype=np.float32),
        features=rng.random((frames, 6), dtype=np.float32),
        actions=np.arange(frames) % 3,
        old_log_probs=np.zeros(frames, np.float32),
        value_preds=np.zeros(frames + 1, np.float32),
        rewards=np.zeros(frames, np.float32),
        dones=np.zeros(frames, np.bool_),
        metadata={"feature_names": list("abcdef"), **metadata},
    )


def test_gae_by_hand() -> None:
    found = compute_gae(torch.ones(1, 1), torch.tensor([[0.5, 0.4]]), torch.zeros(1, 1), 0.99, 0.95)
    assert found.advantages.item() == pytest.approx(0.896)
    assert found.returns.item() == pytest.approx(1.396)
    # Two steps: d0 = 1 + .9 * .2 - .1, d1 = 1 - .2 (terminated), A0 = d0 + .9 * .5 * d1.
    found = compute_gae(
        torch.ones(1, 2), torch.tensor([[0.1, 0.2, 9.0]]), torch.tensor([[0.0, 1.0]]), gamma=0.9, gae_lambda=0.5
    )
    assert found.advantages.tolist()[0] == pytest.approx([1.08 + 0.45 * 0.8, 0.8])
    short = compute_gae(torch.ones(1, 2), torch.tensor([[0.1, 0.2]]), torch.zeros(1, 2), 0.9, 0.5)
    assert short.advantages[0, 1].item() == pytest.approx(1 + 0.9 * 0.2 - 0.2)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (((3,), (1, 4), (1, 3)), "Rewards and dones must be 2D"),
        (((1, 3), (4,), (1, 3)), "value_preds must be a 2D tensor"),
        (((1, 3), (1, 5), (1, 3)), "value_preds must align with rewards"),
        (((1, 3), (2, 4), (1, 3)), "value_preds must align with rewards"),
    ],
)
def test_gae_error_texts(shapes: tuple[tuple[int, ...], ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compute_gae(torch.zeros(shapes[0]), torch.zeros(shapes[1]), torch.zeros(shapes[2]), 0.99, 0.95)


def test_other_operations() -> None:
    scaled = normalize_advantages(torch.tensor([1.0, 3.0]), eps=1e-8)
    assert scaled.tolist() == pytest.approx([-1.0, 1.0])
    assert value_baseline_from_old_preds(torch.ones(2, 4), 3).shape == (2, 3)
    with pytest.raises(ValueError, match="fewer than 5"):
        value_baseline_from_old_preds(torch.ones(2, 4), 5)
    new, returns, old = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([0.0])
    assert clipped_value_loss(new, returns, old, value_clip=0.2).item() == pytest.approx(0.5 * 1.8**2)
    with pytest.raises(ValueError, match="same shape"):
        clipped_value_loss(new, torch.zeros(2), old, value_clip=0.2)
    loss, clipped = policy_surrogate(torch.log(torch.tensor([2.0, 1.0])), torch.zeros(2), torch.ones(2), clip_param=0.2)
    assert loss.item() == pytest.approx(-(1.2 + 1.0) / 2)
    assert clipped.item() == 0.5


def test_network_shapes_and_names() -> None:
    network = ConflictAwarePolicyNetwork(ConflictAwarePolicyConfig(feature_dim=6, map_shape=(4, 11, 11), action_dim=5))
    logits, values = network(torch.zeros(3, 4, 11, 11), torch.zeros(3, 6))
    assert (tuple(logits.shape), tuple(values.shape)) == ((3, 5), (3,))
    assert network.state_dict()["map_encoder.1.weight"].shape == (256, 4 * 11 * 11)


@pytest.mark.parametrize(
    ("shape", "metadata", "expected"),
    [
        ((4, 4, 1), {}, (1, 4, 4)),
        ((4, 11, 11), {}, (4, 11, 11)),
        ((1, 4, 4), {}, (1, 4, 4)),
        ((7, 7, 5), {"map_channels": list("abcde")}, (5, 7, 7)),
        ((5, 7, 7), {"map_channels": list("abcde")}, (5, 7, 7)),
    ],
)
def test_frames_of_either_layout(shape: Any, metadata: Any, expected: Any) -> None:
    sample = _sample(3, shape, **metadata)
    dataset = BCTrajectoryDataset([sample])
    assert (dataset.map_shape, dataset.feature_dim, dataset.action_dim, len(dataset)) == (expected, 6, 3, 3)
    local, features, action = dataset[1]
    assert (tuple(local.shape), tuple(features.shape), int(action)) == (expected, (6,), 1)
    kept = sample.map[1] if expected == shape else sample.map[1].transpose(2, 0, 1)
    assert np.array_equal(local.numpy(), kept)


def test_datasets_refuse_what_cannot_be_learnt_from(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="BC dataset requires at least one frame"):
        BCTrajectoryDataset([])
    with pytest.raises(ValueError, match="differ in the shapes"):
        BCTrajectoryDataset([_sample(2, (4, 5, 5)), _sample(2, (4, 7, 7))])
    broken = _sample(2, (4, 5, 5))
    broken.features[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN/inf"):
        BCTrajectoryDataset([broken])
    with caplog.at_level(logging.WARNING):
        assert BCTrajectoryDataset([_sample(1, (4, 5, 5), action_dim=9)]).action_dim == 9
    assert "bc_single_action" in caplog.text


@pytest.mark.parametrize(("frames", "batch_size", "epochs", "accuracy"), [(8, 4, 50, 0.95), (3, 2, 30, 0.99)])
def test_cloning_learns(frames: int, batch_size: int, epochs: int, accuracy: float) -> None:
    dataset = BCTrajectoryDataset([_sample(frames, (4, 4, 1))])
    config = BCTrainingConfig(learning_rate=0.05, batch_size=batch_size, epochs=epochs)
    trainer = BCTrainer(config, ConflictAwarePolicyConfig(6, (1, 4, 4), 3))
    metrics = trainer.fit(dataset)
    assert set(metrics) == {"loss", "accuracy"}
    assert metrics["accuracy"] >= accuracy
    assert trainer.evaluate(dataset) == {"accuracy": metrics["accuracy"], "samples": frames}
    assert evaluate_bc_policy(trainer.model, dataset, device="cpu")["accuracy"] >= accuracy
    again = BCTrainer(config, ConflictAwarePolicyConfig(6, (1, 4, 4), 3))
    assert again.fit(dataset) == metrics

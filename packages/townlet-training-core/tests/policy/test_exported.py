"""Exported policies: a network computed by hand, exact probabilities, memory that is not shared, spoilt files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from townlet_training_core.arrays import ACTION_MASK
from townlet_training_core.dto.policy import InputDescription, PolicyDescription
from townlet_training_core.errors import CheckpointError, SpaceMismatchError
from townlet_training_core.policy.exported import ExportedPolicy, find_policy
from townlet_training_core.policy.forward import expected_shapes
from townlet_training_core.policy.port import Policy, RecurrentPolicy
from townlet_training_core.streams import generator
from townlet_training_core.testing.counting import CountingSimulation


def _describe(**changes: Any) -> PolicyDescription:
    spec = CountingSimulation().spec
    fields: dict[str, Any] = {
        "kind": "conflict_aware",
        "hidden_dim": 2,
        "inputs": {"features": InputDescription(shape=(4,), dtype="float32")},
        "action_names": spec.action_names,
        "feature_names": spec.feature_names,
        "map_channels": spec.map_channels,
        "versions": dict(spec.versions),
        "simulation": spec.name,
    }
    return PolicyDescription(**{**fields, **changes})


def _draw(description: PolicyDescription, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(np.abs(rng.normal(size=shape)) if "normaliser" in name else rng.normal(size=shape), np.float32)
        for name, shape in expected_shapes(description).items()
    }


def _seen(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, 3)) < 0.6
    mask[:, 1] = True
    return {
        "features": rng.normal(size=(rows, 4)).astype(np.float32),
        "map": rng.integers(0, 5, (rows, 1, 2, 2)).astype(np.uint8),
        ACTION_MASK: mask,
    }


def test_a_small_network_by_hand() -> None:
    description = _describe()
    tensors = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(description).items()}
    tensors["feature_encoder.0.weight"][:] = [[1, 0, 0, 0], [0, -1, 0, 0]]
    tensors["shared.0.weight"][:] = [[2, 0], [0, 1]]
    tensors["shared.0.bias"][:] = [0.5, -1.0]
    tensors["policy_head.weight"][:] = [[1, 0], [0, 1], [0, 0]]
    tensors["value_head.weight"][:] = [[10, 1]]
    tensors["value_head.bias"][:] = 0.25
    policy = ExportedPolicy(tensors, description)
    row = np.array([[3.0, -4.0, 9.0, 9.0]], np.float32)  # encoded: 3, 4; shared: 6.5, 3
    logits, values, memory = policy.forward({"features": row, ACTION_MASK: np.ones((1, 3), np.bool_)})
    assert logits.tolist() == [[6.5, 3.0, 0.0]]
    assert values.tolist() == [68.25]
    assert memory == {}
    mask = np.array([[False, True, True]])
    odds = np.exp([3.0, 0.0]) / np.exp([3.0, 0.0]).sum()
    found = policy.action_probabilities({"features": row, ACTION_MASK: mask})
    np.testing.assert_allclose(found, [[0.0, *odds]], rtol=1e-6)
    step = policy.act({"features": row, ACTION_MASK: mask}, generator(0, "a"), greedy=True)
    assert step.actions.tolist() == [1]
    assert step.log_probs is not None
    assert step.log_probs[0] == pytest.approx(np.log(odds[0]), rel=1e-6)


def test_scale_and_moments_are_applied() -> None:
    plain, scaled = (
        _describe(),
        _describe(
            inputs={"features": InputDescription(shape=(4,), dtype="float32", scale=0.5)}, normalised=("features",)
        ),
    )
    tensors = _draw(scaled)
    tensors["normaliser.features_mean"][:] = [1, 2, 3, 4]
    tensors["normaliser.features_var"][:] = 4.0
    weights = {name: array for name, array in tensors.items() if not name.startswith("normaliser")}
    seen = _seen(5)
    by_hand = {**seen, "features": np.clip((seen["features"] * 0.5 - np.array([1, 2, 3, 4])) / 2.0, -10, 10)}
    expected = ExportedPolicy(weights, plain).forward(by_hand)
    found = ExportedPolicy(tensors, scaled).forward(seen)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6, atol=1e-6)


def test_a_convolution_equals_a_plain_loop() -> None:
    description = _describe(
        kind="convolutional",
        inputs={"map": InputDescription(shape=(1, 2, 2), dtype="uint8")},
    )
    tensors, seen = _draw(description), _seen(3)

    def convolve(planes: Any, name: str) -> Any:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        rows, _, height, width = planes.shape
        out = np.zeros((rows, len(weight), height, width))
        for y in range(height):
            for x in range(width):
                for dy in range(3):
                    for dx in range(3):
                        v, u = y + dy - 1, x + dx - 1
                        if 0 <= v < height and 0 <= u < width:
                            out[:, :, y, x] += planes[:, :, v, u] @ weight[:, :, dy, dx].T
        return np.maximum(out + bias[:, None, None], 0)

    def dense(values: Any, name: str) -> Any:
        return values @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    planes = convolve(convolve(seen["map"].astype(float), "map_encoder.0"), "map_encoder.2")
    latent = np.maximum(dense(np.maximum(dense(planes.reshape(3, -1), "map_encoder.5"), 0), "shared.0"), 0)
    logits, values, _ = ExportedPolicy(tensors, description).forward(seen)
    np.testing.assert_allclose(logits, dense(latent, "policy_head"), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(values, dense(latent, "value_head")[:, 0], rtol=1e-5, atol=1e-5)


def test_actions_follow_the_probabilities_and_stay_inside_the_mask() -> None:
    description = _describe()
    policy = ExportedPolicy(_draw(description), description)
    seen = _seen(1)
    many = {name: np.repeat(array, 4000, axis=0) for name, array in seen.items()}
    step = policy.act(many, generator(1, "many"))
    shares = np.bincount(step.actions, minlength=3) / 4000
    np.testing.assert_allclose(shares, policy.action_probabilities(seen)[0], atol=0.03)
    assert (shares[~seen[ACTION_MASK][0]] == 0).all()


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_copy_does_not_share_its_memory(memory: str) -> None:
    description = _describe(recurrent=memory)
    policy = ExportedPolicy(_draw(description), description)
    assert isinstance(policy, Policy)
    assert isinstance(policy, RecurrentPolicy)
    policy.bind(CountingSimulation(2))
    policy.act(_seen(2), generator(0, "a"))
    before = policy.recurrent_state()
    other = copy.copy(policy)
    other.reset(np.array([True, False]))
    other.act(_seen(2, seed=1), generator(0, "b"))
    for name, array in policy.recurrent_state().items():
        assert (array == before[name]).all()
    assert policy.values(_seen(2)) is not None
    policy.reset(np.array([True, False]))
    assert not policy.recurrent_state()["hidden"][0].any()
    assert policy.recurrent_state()["hidden"][1].any()


class _Given:
    """Hands out uniforms that were chosen before."""

    def __init__(self, uniforms: NDArray[np.float64]) -> None:
        self._left = uniforms

    def random(self, size: int, /) -> NDArray[np.float64]:
        given, self._left = self._left[:size], self._left[size:]
        return given


def _wide(**changes: Any) -> PolicyDescription:
    return _describe(
        hidden_dim=64,
        inputs={
            "map": InputDescription(shape=(4, 9, 9), dtype="uint8"),
            "features": InputDescription(shape=(30,), dtype="float32"),
        },
        action_names=tuple(f"a{number}" for number in range(9)),
        **changes,
    )


def _wide_rows(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, 9)) < 0.7
    mask[:, 4] = True
    return {
        "map": rng.integers(0, 2, (rows, 4, 9, 9)).astype(np.uint8),
        "features": rng.normal(size=(rows, 30)).astype(np.float32),
        ACTION_MASK: mask,
    }


def _scaled(description: PolicyDescription) -> dict[str, NDArray[Any]]:
    return {
        name: (array / np.sqrt(array.shape[-1]) if array.ndim > 1 else array).astype(np.float32)
        for name, array in _draw(description).items()
    }


@pytest.mark.parametrize("kind", ["conflict_aware", "convolutional"])
@pytest.mark.parametrize("greedy", [False, True])
def test_no_decision_depends_on_the_batch_however_close_it_is(kind: str, greedy: bool) -> None:
    description = _wide(kind=kind)
    tensors, rows = _scaled(description), 600
    if greedy:  # two actions that differ by less than float32 shows
        tensors["policy_head.weight"][1] = tensors["policy_head.weight"][4]
        tensors["policy_head.bias"][1] = tensors["policy_head.bias"][4] = 9.0
        tensors["policy_head.weight"][1] -= 1e-8
    precise = ExportedPolicy(tensors, description, dtype=np.float64)
    seen = _wide_rows(rows)
    # Every uniform lies within a rounding error of float32 of the border between two actions.
    chances = precise.action_probabilities(seen).astype(np.float64).cumsum(axis=1)
    rng = np.random.default_rng(1)
    uniforms = chances[np.arange(rows), rng.integers(0, 8, rows)] + rng.normal(size=rows) * 1e-7
    uniforms = np.clip(uniforms, 0.0, np.nextafter(1.0, 0.0))
    expected = precise.act(seen, _Given(uniforms), greedy=greedy).actions
    for size in (1, 7, 64, rows):
        policy, source = ExportedPolicy(tensors, description), _Given(uniforms)
        found = np.concatenate(
            [
                policy.act({k: v[start : start + size] for k, v in seen.items()}, source, greedy=greedy).actions
                for start in range(0, rows, size)
            ]
        )
        assert (found == expected).all()


def test_rows_are_taken_in_parts_and_memory_with_them() -> None:
    for changes in ({"recurrent": "lstm"}, {"recurrent": "gru", "kind": "convolutional"}, {"separate_trunks": True}):
        description = _wide(**changes)
        policy, seen = ExportedPolicy(_scaled(description), description), _wide_rows(700)
        logits, values, memory = policy.forward(seen)
        assert logits.shape == (700, 9)
        for start in range(0, 700, 233):
            part = {name: array[start : start + 233] for name, array in seen.items()}
            few = policy.forward(part)
            np.testing.assert_allclose(few[0], logits[start : start + 233], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(few[1], values[start : start + 233], rtol=1e-5, atol=1e-5)
            for name, array in few[2].items():
                np.testing.assert_allclose(array, memory[name][start : start + 233], rtol=1e-5, atol=1e-5)


def test_float32_agrees_with_float64() -> None:
    description = _describe(separate_trunks=True)
    tensors = _draw(description)
    precise, fast = ExportedPolicy(tensors, description), ExportedPolicy(tensors, description, dtype=np.float32)
    np.testing.assert_allclose(precise.forward(_seen(9))[0], fast.forward(_seen(9))[0], rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_it_is_the_same_policy(tmp_path: Path) -> None:
    description = _describe()
    policy = ExportedPolicy(_draw(description), description)
    policy.save(tmp_path / "p")
    for path in (tmp_path / "p", tmp_path / "p" / "policy.json", tmp_path / "p" / "policy.safetensors"):
        assert ExportedPolicy.load(path).content_hash() == policy.content_hash()
    other = ExportedPolicy(_draw(description, seed=1), description)
    assert other.content_hash() != policy.content_hash()


def test_a_run_means_its_latest_checkpoint(tmp_path: Path) -> None:
    description = _describe()
    checkpoints = tmp_path / "run" / "checkpoints"
    for number in (1, 2):
        ExportedPolicy(_draw(description, seed=number), description).save(checkpoints / f"{number}")
    (tmp_path / "run" / "checkpoints" / "latest").write_text("1\n")
    (tmp_path / "latest").write_text("run\n")
    assert find_policy(tmp_path) == find_policy(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "1"
    with pytest.raises(CheckpointError, match="holds no policy"):
        find_policy(tmp_path / "run" / "checkpoints" / "3")


def test_checksums_beside_the_files_are_checked(tmp_path: Path) -> None:
    description = _describe()
    ExportedPolicy(_draw(description), description).save(tmp_path)
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": {"policy.safetensors": "0", "policy.json": "0"}}))
    with pytest.raises(CheckpointError, match="differs from its checksum"):
        ExportedPolicy.load(tmp_path)
    (tmp_path / "MANIFEST.json").write_text("{}")
    with pytest.raises(CheckpointError, match="manifest cannot be checked"):
        ExportedPolicy.load(tmp_path)


def test_weights_of_another_network_are_refused() -> None:
    description = _describe()
    tensors = _draw(_describe(hidden_dim=3))
    with pytest.raises(CheckpointError, match="belong to another network"):
        ExportedPolicy(tensors, description)


def test_another_simulation_is_refused_with_every_difference() -> None:
    description = _describe(action_names=("x",), versions={"observations": "7"})
    policy = ExportedPolicy(_draw(description), description)
    with pytest.raises(SpaceMismatchError, match=r"actions are .*version of observations is '1', not '7'"):
        policy.bind(CountingSimulation())

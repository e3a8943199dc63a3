"""Networks: the contract's names, one interface, and the same numbers in torch and in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_training_core.arrays import ACTION_MASK, ArraySpec
from townlet_training_core.config.models import NetworkConfig
from townlet_training_core.errors import CheckpointError, ConfigurationError, SpaceMismatchError
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.policy.forward import expected_shapes
from townlet_training_core.streams import generator
from townlet_training_torch.export import export_policy, load_network, network_disagreement
from townlet_training_torch.networks import PolicyValueNetwork, build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.seeding import torch_generator

VARIANTS: dict[str, dict[str, Any]] = {
    "contract": {},
    "separate": {"separate_trunks": True},
    "convolutional": {"kind": "convolutional"},
    "gru": {"recurrent": "gru"},
    "lstm": {"recurrent": "lstm"},
    "central": {"centralised_critic": True},
    "all": {"kind": "convolutional", "recurrent": "lstm", "centralised_critic": True},
}


def _network(workshop: Any, variant: str, *, normalise: bool = False, seed: int = 0) -> PolicyValueNetwork:
    config = NetworkConfig(hidden_dim=16, **VARIANTS[variant])
    spec = workshop.toy(5, task="masked", with_map=True, with_state=True).spec
    network = build_network(describe(spec, config, normalise=normalise), generator=torch_generator(seed, "test"))
    with torch.no_grad():  # biases and the small policy head would hide a missing term
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch_generator(seed, "noise", number)) * 0.2)
    return network


def _observe(workshop: Any, rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, 4)) < 0.6
    mask[:, 0] = True
    return {
        "map": rng.integers(0, 3, (rows, 2, 3, 3)).astype(np.uint8),
        "features": rng.normal(size=(rows, 5)).astype(np.float32),
        "state": rng.normal(size=(rows, 3)).astype(np.float32),
        ACTION_MASK: mask,
    }


def test_the_contracts_network_has_the_contracts_names(workshop: Any) -> None:
    prefixes = {name.rsplit(".", 1)[0] for name in _network(workshop, "contract").state_dict()}
    assert prefixes == {"map_encoder.1", "feature_encoder.0", "shared.0", "policy_head", "value_head"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("normalise", [False, True])
def test_numpy_and_torch_agree(workshop: Any, variant: str, normalise: bool) -> None:
    network = _network(workshop, variant, normalise=normalise)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == expected_shapes(network.description)
    if normalise:
        network.normaliser.update("features", np.random.default_rng(1).normal(2.0, 3.0, (50, 5)))
    learned: Any = TorchPolicy(network)
    exported: Any = learned.exported()
    simulation = workshop.toy(5, task="masked", with_map=True, with_state=True)
    for policy in (learned, exported):
        policy.bind(simulation)
    streams = [generator(3, "actions") for _ in range(2)]
    for step in range(6):
        seen = _observe(workshop, 5, seed=step)
        first, second = learned.act(seen, streams[0]), exported.act(seen, streams[1])
        np.testing.assert_allclose(first.log_probs, second.log_probs, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(first.values, second.values, rtol=1e-5, atol=1e-5)
        assert (first.actions == second.actions).all()
        assert seen[ACTION_MASK][np.arange(5), first.actions].all()
        np.testing.assert_allclose(learned.values(seen), exported.values(seen), rtol=1e-5, atol=1e-5)
        if step % 2:
            ended = np.array([True, False, True, False, False])
            learned.reset(ended)
            exported.reset(ended)
        for name, memory in learned.recurrent_state().items():
            np.testing.assert_allclose(memory, exported.recurrent_state()[name], rtol=1e-5, atol=1e-5)
    greedy = learned.act(seen, streams[0], greedy=True), exported.act(seen, streams[1], greedy=True)
    assert (greedy[0].actions == greedy[1].actions).all()
    probabilities = exported.action_probabilities(seen)
    assert (probabilities[~seen[ACTION_MASK]] == 0.0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("variant", ["gru", "lstm"])
def test_memory_put_back_gives_the_same_decisions(workshop: Any, variant: str) -> None:
    simulation = workshop.toy(5, task="masked", with_map=True, with_state=True)
    for make in (
        lambda: TorchPolicy(_network(workshop, variant)),
        lambda: TorchPolicy(_network(workshop, variant)).exported(),
    ):
        policy, other = make(), make()
        policy.bind(simulation)
        other.bind(simulation)
        policy.act(_observe(workshop, 5), generator(0, "a"))
        other.load_recurrent_state(policy.recurrent_state())
        seen = _observe(workshop, 5, seed=1)
        first, second = policy.act(seen, generator(0, "b")), other.act(seen, generator(0, "b"))
        np.testing.assert_array_equal(first.values, second.values)
        assert any(array.any() for array in policy.recurrent_state().values())


@pytest.mark.parametrize("variant", ["contract", "gru", "lstm", "all"])
def test_a_sequence_equals_its_steps(workshop: Any, variant: str) -> None:
    network = _network(workshop, variant)
    rows, steps = 3, 5
    seen = [_observe(workshop, rows, seed=step) for step in range(steps)]
    starts = np.zeros((steps, rows), np.bool_)
    starts[0], starts[2, 1] = True, True
    tensors = [{name: torch.from_numpy(array) for name, array in step.items()} for step in seen]
    memory, expected = network.initial_memory(rows), []
    for step, inputs in enumerate(tensors):
        kept = torch.from_numpy(~starts[step]).unsqueeze(-1)
        mask = inputs[ACTION_MASK]
        output = network(inputs, mask, {name: array * kept for name, array in memory.items()})
        memory = output.memory
        expected.append(output)
    stacked = {name: torch.stack([step[name] for step in tensors]) for name in tensors[0]}
    found = network.forward_sequence(
        stacked, stacked[ACTION_MASK], network.initial_memory(rows), torch.from_numpy(starts)
    )
    torch.testing.assert_close(found.logits, torch.stack([output.logits for output in expected]))
    torch.testing.assert_close(found.values, torch.stack([output.values for output in expected]))


def test_recurrent_and_feed_forward_agree_on_length_one_sequences(workshop: Any) -> None:
    network = _network(workshop, "contract")
    seen = {name: torch.from_numpy(array) for name, array in _observe(workshop, 4).items()}
    once = network(seen, seen[ACTION_MASK])
    lifted = {name: array.unsqueeze(0) for name, array in seen.items()}
    starts = torch.ones(1, 4, dtype=torch.bool)
    sequence = network.forward_sequence(lifted, lifted[ACTION_MASK], {}, starts)
    torch.testing.assert_close(sequence.logits[0], once.logits)
    torch.testing.assert_close(sequence.values[0], once.values)


@given(st.integers(1, 200), st.integers(0, 10))
@settings(max_examples=15, deadline=None)
def test_an_exported_policys_numbers_do_not_depend_on_how_many_rows_it_sees(rows: int, seed: int) -> None:
    from townlet_training_core.testing.counting import CountingSimulation

    network = build_network(
        describe(CountingSimulation().spec, NetworkConfig(hidden_dim=48)), generator=torch_generator(seed, "rows")
    )
    policy = TorchPolicy(network).exported()
    rng = np.random.default_rng(seed)
    seen: dict[str, Any] = {
        "features": rng.normal(size=(rows, 4)).astype(np.float32),
        "map": rng.integers(0, 9, (rows, 1, 2, 2)).astype(np.uint8),
        ACTION_MASK: np.ones((rows, 3), np.bool_),
    }
    whole = policy.forward(seen)
    one = policy.forward({name: array[-1:] for name, array in seen.items()})
    np.testing.assert_allclose(whole[0][-1], one[0][0], rtol=1e-12, atol=1e-12)
    assert whole[1][-1] == one[1][0]


def test_orthogonal_initialisation_has_the_documented_gains(workshop: Any) -> None:
    spec = workshop.toy(1).spec
    network = build_network(describe(spec, NetworkConfig(hidden_dim=32)), generator=torch_generator(0, "x"))
    product = network.policy_head.weight @ network.policy_head.weight.T
    torch.testing.assert_close(product, 0.01**2 * torch.eye(4), atol=1e-6, rtol=0)
    shared = network.get_parameter("shared.0.weight")
    torch.testing.assert_close(shared @ shared.T, 2.0 * torch.eye(32), atol=1e-4, rtol=0)
    plain = build_network(
        describe(spec, NetworkConfig(hidden_dim=32)), generator=torch_generator(0, "x"), orthogonal=False
    )
    assert plain.get_parameter("shared.0.weight").abs().max().item() <= 32**-0.5


def test_only_the_critic_sees_the_state(workshop: Any) -> None:
    network = _network(workshop, "central")
    seen = {name: torch.from_numpy(array) for name, array in _observe(workshop, 4).items()}
    other = {**seen, "state": seen["state"] + 1.0}
    first, second = network(seen, seen[ACTION_MASK]), network(other, seen[ACTION_MASK])
    assert torch.equal(first.logits, second.logits)
    assert not torch.allclose(first.values, second.values)


def test_another_networks_tensors_are_refused(workshop: Any) -> None:
    network = _network(workshop, "contract")
    tensors = dict(network.state_dict())
    tensors.pop("value_head.bias")
    with pytest.raises(CheckpointError, match=r"'value_head.bias' has shape None, this network needs \(1,\)"):
        network.load_tensors(tensors, source="file")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    with pytest.raises(CheckpointError, match=r"value_head\.bias"):
        ExportedPolicy(arrays, network.description)


def test_spaces_that_no_network_suits_are_refused(workshop: Any) -> None:
    spec = workshop.toy(1).spec
    with pytest.raises(ConfigurationError, match="needs 'map'"):
        describe(replace(spec, observations={"other": ArraySpec((3,), np.dtype("f4"))}), NetworkConfig())
    with pytest.raises(ConfigurationError, match="expected 3 axes"):
        describe(replace(spec, observations={"map": ArraySpec((3,), np.dtype("f4"))}), NetworkConfig())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_names": ("x", "y")}, "actions are"),
        ({"feature_names": ("e", "f", "g", "h", "i")}, "feature names differ"),
        ({"versions": {"observations": "2"}}, "version of observations is '2', not '1'"),
        ({"observations": {}}, "observation 'features' is missing"),
        (
            {"observations": {"features": ArraySpec((9,), np.dtype("f4"))}},
            r"float32\(9,\), the policy reads float32\(5",
        ),
        ({"map_channels": ("z",)}, "map channels"),
    ],
)
def test_a_policy_refuses_another_space(workshop: Any, change: dict[str, Any], message: str) -> None:
    network = _network(workshop, "contract")
    simulation = workshop.toy(5, task="masked", with_map=True, with_state=True)
    simulation.spec = replace(simulation.spec, **change)
    for policy in (TorchPolicy(network), TorchPolicy(network).exported()):
        with pytest.raises(SpaceMismatchError, match=message):
            policy.bind(simulation)


def test_export_writes_what_acts_the_same(workshop: Any, tmp_path: Any) -> None:
    policy = TorchPolicy(_network(workshop, "gru", normalise=True)).exported()
    policy.save(tmp_path / "first")
    written = export_policy(tmp_path / "first", tmp_path / "second")
    assert ExportedPolicy.load(tmp_path / "second").content_hash() == policy.content_hash() == written.content_hash()
    assert network_disagreement(load_network(tmp_path / "second"), policy) < 1e-5
    with pytest.raises(CheckpointError, match="differ by"):
        export_policy(tmp_path / "first", tmp_path / "third", tolerance=-1.0)


@pytest.mark.parametrize("spoil", ["weights", "description", "missing"])
def test_a_spoilt_export_is_refused(workshop: Any, tmp_path: Any, spoil: str) -> None:
    TorchPolicy(_network(workshop, "contract")).exported().save(tmp_path)
    if spoil == "weights":
        path = tmp_path / "policy.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
    elif spoil == "description":
        (tmp_path / "policy.json").write_text('{"format": "townlet-policy", "hidden_dim": -1}')
    else:
        (tmp_path / "policy.json").unlink()
    with pytest.raises(CheckpointError):
        ExportedPolicy.load(tmp_path)


def test_compile_falls_back_with_one_warning(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from townlet_training_core.config.models import ComputeConfig
    from townlet_training_torch.learner import Learner

    def broken(*_: Any, **__: Any) -> Any:
        msg = "no compiler here"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="no compiler here"):
        Learner(_network(workshop, "contract"), learning_rate=1e-3, compute=ComputeConfig(compile=True))

"""ONNX exports beside torch: every network, masks, standardised inputs, and memory carried over several steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from townlet_training_core.arrays import ACTION_MASK
from townlet_training_core.cli.app import app
from townlet_training_core.config.models import NetworkConfig
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.policy.onnx import onnx_model, save_onnx
from townlet_training_torch.networks import PolicyValueNetwork, build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.seeding import torch_generator

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

VARIANTS: dict[str, dict[str, Any]] = {
    "contract": {},
    "separate": {"separate_trunks": True},
    "convolutional": {"kind": "convolutional"},
    "gru": {"recurrent": "gru"},
    "lstm": {"recurrent": "lstm"},
    "central": {"centralised_critic": True},
    "all": {"kind": "convolutional", "recurrent": "lstm", "centralised_critic": True},
}


def _network(workshop: Any, variant: str, *, normalise: bool) -> PolicyValueNetwork:
    spec = workshop.toy(5, task="masked", with_map=True, with_state=True).spec
    description = describe(spec, NetworkConfig(hidden_dim=16, **VARIANTS[variant]), normalise=normalise)
    network = build_network(description, generator=torch_generator(0, "test"))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch_generator(0, "noise", number)) * 0.2)
    if normalise:
        network.normaliser.update("features", np.random.default_rng(1).normal(2.0, 3.0, (50, 5)))
    return network


def _observe(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, 4)) < 0.6
    mask[:, 0] = True
    return {
        "map": rng.integers(0, 3, (rows, 2, 3, 3)).astype(np.uint8),
        "features": rng.normal(size=(rows, 5)).astype(np.float32),
        "state": rng.normal(size=(rows, 3)).astype(np.float32),
        ACTION_MASK: mask,
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("normalise", [False, True])
def test_the_graph_computes_what_torch_does(workshop: Any, variant: str, normalise: bool) -> None:
    network = _network(workshop, variant, normalise=normalise)
    policy = TorchPolicy(network).exported()
    session = onnxruntime.InferenceSession(onnx_model(policy).SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [port.name for port in session.get_outputs()]
    memory = network.initial_memory(7)
    carried = {name: array.numpy() for name, array in memory.items()}
    for step in range(5):
        seen = _observe(7, step)
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(seen[name]) for name in network.description.inputs}
            expected = network(inputs, torch.from_numpy(seen[ACTION_MASK]), memory)
        fed = {name: seen[name] for name in (*network.description.inputs, ACTION_MASK)}
        found = dict(zip(outputs, session.run(None, {**fed, **carried}), strict=True))
        np.testing.assert_allclose(found["logits"], expected.logits.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["values"], expected.values.numpy(), rtol=1e-5, atol=1e-5)
        assert (found["logits"].argmax(axis=1) == expected.logits.argmax(dim=1).numpy()).all()
        memory = expected.memory
        carried = {name: found[f"{name}_next"] for name in memory}
        for name, array in memory.items():
            np.testing.assert_allclose(carried[name], array.numpy(), rtol=1e-5, atol=1e-5)


def test_the_command_writes_a_checked_graph_that_names_its_policy(workshop: Any, tmp_path: Path) -> None:
    policy = TorchPolicy(_network(workshop, "gru", normalise=True)).exported()
    policy.save(tmp_path / "plain")
    arguments = ["export", str(tmp_path / "plain"), "-o", str(tmp_path / "graph"), "--format", "onnx", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["policy_hash"] == policy.content_hash()
    model = onnx.load(str(tmp_path / "graph" / "policy.onnx"))
    onnx.checker.check_model(model, full_check=True)
    about = {item.key: item.value for item in model.metadata_props}
    assert about["townlet.policy_hash"] == policy.content_hash()
    assert json.loads(about["townlet.description"]) == policy.description.model_dump(mode="json")
    assert [port.name for port in model.graph.output] == ["logits", "values", "hidden_next"]


def test_the_same_policy_gives_the_same_bytes(workshop: Any, tmp_path: Path) -> None:
    policy: ExportedPolicy = TorchPolicy(_network(workshop, "all", normalise=True)).exported()
    assert save_onnx(policy, tmp_path / "a").read_bytes() == save_onnx(policy, tmp_path / "b").read_bytes()

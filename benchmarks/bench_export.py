"""An exported policy's forward pass in numpy, beside torch and onnxruntime on the same weights and observations.

One process per number of threads (a BLAS reads it when it is loaded), rows in alternation, medians. What is timed is
one call from the simulation's arrays (uint8 map, float32 features) to logits and values; onnxruntime runs the graph
that ``townlet export --format onnx`` writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

ROWS = (1, 8, 256, 2048)
NETWORKS: dict[str, dict[str, Any]] = {
    "contract": {},
    "gru": {"recurrent": "gru"},
    "convolutional": {"kind": "convolutional"},
}
THREADS = (1, 2)


def measure(threads: int) -> dict[str, dict[str, float]]:
    """Return seconds per call by ``network.rows`` and contestant; the environment has set the threads already."""
    import numpy as np
    import onnxruntime
    import torch
    from _results import alternate

    from townlet_training_core.arrays import ACTION_MASK, ArraySpec
    from townlet_training_core.config.models import NetworkConfig
    from townlet_training_core.policy.exported import ExportedPolicy
    from townlet_training_core.policy.onnx import onnx_model
    from townlet_training_core.simulation.environments import EnvironmentSpec
    from townlet_training_torch.networks import build_network, describe
    from townlet_training_torch.policy import TorchPolicy
    from townlet_training_torch.seeding import torch_generator

    torch.set_num_threads(threads)
    spec = EnvironmentSpec(
        name="bench-v1",
        num_envs=1,
        agents_per_env=1,
        observations={
            "map": ArraySpec((4, 11, 11), np.dtype(np.uint8)),
            "features": ArraySpec((68,), np.dtype(np.float32)),
        },
        action_names=tuple(f"action_{number}" for number in range(8)),
        rules_hash="bench",
    )
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for name, changes in NETWORKS.items():
        network = build_network(describe(spec, NetworkConfig(**changes)), generator=torch_generator(0, "bench"))
        exported = TorchPolicy(network).exported()
        policies = {"numpy": exported}
        if name != "contract":  # networks with memory compute in float64 by default
            policies["numpy float32"] = ExportedPolicy(exported.tensors, exported.description, dtype=np.float32)
        session = onnxruntime.InferenceSession(
            onnx_model(exported).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for rows in ROWS if name == "contract" else ROWS[1:3]:
            seen: dict[str, Any] = {
                "map": (rng.random((rows, 4, 11, 11)) < 0.0124).astype(np.uint8),  # as dense as the town's
                "features": rng.normal(size=(rows, 68)).astype(np.float32),
                ACTION_MASK: np.ones((rows, 8), np.bool_),
            }
            memory = {key: tensor.numpy() for key, tensor in network.initial_memory(rows).items()}
            kept = network.initial_memory(rows)

            def by_torch(seen: dict[str, Any] = seen, kept: Any = kept, network: Any = network) -> None:
                with torch.inference_mode():
                    network({key: torch.from_numpy(seen[key]) for key in ("map", "features")}, None, kept)

            def by_onnx(fed: Any = {**seen, **memory}, session: Any = session) -> None:  # noqa: B006  # bound now
                session.run(None, fed)

            jobs: list[Any] = [by_torch, by_onnx]
            jobs += [lambda policy=policy, seen=seen: policy.forward(seen) for policy in policies.values()]
            calls = max(2, 1500 // rows) if name == "contract" else max(2, 200 // rows)
            repeated = [lambda job=job, calls=calls: [job() for _ in range(calls)] for job in jobs]
            taken = alternate(repeated, repeats=9)
            found[f"{name}.{rows}"] = {
                label: seconds / calls
                for label, seconds in zip(("torch", "onnxruntime", *policies), taken, strict=True)
            }
    return found


def main() -> None:
    """Measure and write ``results/export.json``."""
    if sys.argv[1:2] == ["--threads"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    from _results import Report

    report = Report("export", threads=max(THREADS))
    for threads in THREADS:
        given = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        done = subprocess.run(
            [sys.executable, __file__, "--threads", str(threads)],
            env={**os.environ, **given, "OMP_WAIT_POLICY": "PASSIVE"},
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
        for case, seconds in found.items():
            network, _, rows = case.partition(".")
            for peer in ("torch", "onnxruntime"):
                for ours in (label for label in seconds if label.startswith("numpy")):
                    report.add(
                        f"{network}.{rows}_rows.{threads}_threads" + (".float32" if ours.endswith("float32") else ""),
                        value=int(rows) / seconds[ours],
                        unit="rows/s",
                        peer=peer,
                        peer_value=int(rows) / seconds[peer],
                        bound=1.0 if network == "contract" else None,
                        note=f"{1e6 * seconds[ours]:.0f} us a call, {peer} {1e6 * seconds[peer]:.0f} us",
                    )
    report.write()


if __name__ == "__main__":
    main()

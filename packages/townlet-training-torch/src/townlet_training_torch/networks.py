"""Policy/value networks: named observations in, masked logits, values and memory out.

The contract's network has ``map_encoder.1``, ``feature_encoder.0``, ``shared.0``, ``policy_head`` and
``value_head`` in its ``state_dict``. Which encoders exist follows from the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from townlet_training_core.config.models import NetworkConfig
from townlet_training_core.dto.policy import InputDescription, PolicyDescription
from townlet_training_core.errors import CheckpointError, ConfigurationError
from townlet_training_torch.losses import mask_logits
from townlet_training_torch.normalisers import ObservationNormaliser

__all__ = ["Memory", "NetworkOutput", "PolicyValueNetwork", "Spaces", "build_network", "describe"]

Memory: TypeAlias = dict[str, Tensor]


class Spaces(Protocol):
    """Names and shapes that a network is made for; a simulation's spec is one."""

    @property
    def name(self) -> str:
        """Who says it."""

    @property
    def observations(self) -> Mapping[str, Any]:
        """Named arrays with ``shape`` and ``dtype``."""

    @property
    def action_names(self) -> tuple[str, ...]:
        """The action vocabulary."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns of ``features``."""

    @property
    def map_channels(self) -> tuple[str, ...]:
        """Channels of ``map``."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the spaces."""

    @property
    def rules_hash(self) -> str:
        """Hash of the rules."""


class NetworkOutput(NamedTuple):
    """Masked logits ``(..., A)`` and values ``(...)`` in float32, and the memory after the last row."""

    logits: Tensor
    values: Tensor
    memory: Memory


def describe(spec: Spaces, config: NetworkConfig, *, normalise: bool = False) -> PolicyDescription:
    """Describe the network that ``config`` asks for in a simulation of ``spec``.

    Raises
    ------
    ConfigurationError
        When the simulation has neither map nor features, lacks the state of a centralised critic, or the
        configuration contradicts itself.
    """
    names = [name for name in ("map", "features") if name in spec.observations]
    if not names:
        msg = (
            f"simulation {spec.name!r} observes {sorted(spec.observations)}; a network needs 'map' (C, H, W) or "
            "'features' (F,)"
        )
        raise ConfigurationError(msg)
    if config.centralised_critic:
        if "state" not in spec.observations:
            msg = f"network.centralised_critic needs the observation 'state', which simulation {spec.name!r} lacks"
            raise ConfigurationError(msg)
        names.append("state")
    if config.recurrent != "none" and config.separate_trunks:
        msg = f"network.recurrent={config.recurrent!r} is a memory over the shared trunk; set separate_trunks: false"
        raise ConfigurationError(msg)
    for name in names:
        rank = 3 if name == "map" else 1
        if len(spec.observations[name].shape) != rank:
            shape = tuple(spec.observations[name].shape)
            msg = f"observation {name!r} of simulation {spec.name!r} has shape {shape}, expected {rank} axes"
            raise ConfigurationError(msg)
    return PolicyDescription(
        kind=config.kind,
        hidden_dim=config.hidden_dim,
        separate_trunks=config.separate_trunks,
        recurrent=config.recurrent,
        centralised_critic=config.centralised_critic,
        inputs={
            name: InputDescription(
                shape=tuple(int(size) for size in spec.observations[name].shape),
                dtype=np.dtype(spec.observations[name].dtype).name,
            )
            for name in names
        },
        normalised=tuple(name for name in names if name != "map") if normalise else (),
        action_names=tuple(spec.action_names),
        feature_names=tuple(spec.feature_names),
        map_channels=tuple(spec.map_channels),
        simulation=spec.name,
        versions=dict(spec.versions),
        rules_hash=spec.rules_hash,
    )


def build_network(
    description: PolicyDescription, *, generator: torch.Generator | None = None, orthogonal: bool = True
) -> PolicyValueNetwork:
    """Make a network with fresh weights; ``generator`` makes them reproducible."""
    network = PolicyValueNetwork(description)
    network.initialise(generator, orthogonal=orthogonal)
    return network


class PolicyValueNetwork(nn.Module):
    """Map and feature encoders, a shared trunk, optional memory, a policy head and a value head.

    ================ ===================== ==================================
    Input            Shape                 Meaning
    ================ ===================== ==================================
    map              (R, C, H, W)          any dtype, cast to float32
    features         (R, F)                float32
    state            (R, G)                only with a centralised critic
    action_mask      (R, A) bool           ``None`` allows everything
    memory           name -> (R, hidden)   empty for feed-forward networks
    ================ ===================== ==================================
    """

    def __init__(self, description: PolicyDescription) -> None:
        super().__init__()
        self.description = description
        hidden, inputs = description.hidden_dim, description.inputs
        if description.normalised:
            self.normaliser = ObservationNormaliser({name: inputs[name].shape for name in description.normalised})
        for prefix in self._trunks():
            width = hidden * sum(name in inputs for name in ("map", "features"))
            if "map" in inputs:
                setattr(self, f"{prefix}map_encoder", _map_encoder(description))
            if "features" in inputs:
                encoder = nn.Sequential(nn.Linear(inputs["features"].shape[0], hidden), nn.ReLU())
                setattr(self, f"{prefix}feature_encoder", encoder)
            setattr(self, f"{prefix}shared", nn.Sequential(nn.Linear(width, hidden), nn.ReLU()))
        if description.recurrent == "gru":
            self.memory: nn.GRUCell | nn.LSTMCell = nn.GRUCell(hidden, hidden)
        elif description.recurrent == "lstm":
            self.memory = nn.LSTMCell(hidden, hidden)
        if description.centralised_critic:
            self.state_encoder = nn.Sequential(nn.Linear(inputs["state"].shape[0], hidden), nn.ReLU())
            self.critic = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())
        self.policy_head = nn.Linear(hidden, len(description.action_names))
        self.value_head = nn.Linear(hidden, 1)

    def _trunks(self) -> tuple[str, ...]:
        return ("", "value_") if self.description.separate_trunks else ("",)

    def initialise(self, generator: torch.Generator | None, *, orthogonal: bool) -> None:
        """Draw all weights in order of registration.

        Orthogonal: gain sqrt(2) under ReLU, 1 in the memory and the value head, 0.01 in the policy head (Engstrom
        et al. 2020). Otherwise uniform in +-1/sqrt(fan in), which is torch's default for linear layers.
        """
        gains = {"policy_head": 0.01, "value_head": 1.0, "memory": 1.0}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not orthogonal:
                    bound = 1.0 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.0
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
                elif parameter.ndim > 1:
                    gain = gains.get(name.partition(".")[0], math.sqrt(2.0))
                    nn.init.orthogonal_(parameter, gain, generator=generator)
                else:
                    nn.init.zeros_(parameter)

    def initial_memory(self, rows: int) -> Memory:
        """Return the memory before anything was seen: zeros ``(rows, hidden)``, or nothing."""
        names = {"none": (), "gru": ("hidden",), "lstm": ("hidden", "cell")}[self.description.recurrent]
        device = self.policy_head.weight.device
        return {name: torch.zeros(rows, self.description.hidden_dim, device=device) for name in names}

    def forward(
        self, observations: Mapping[str, Tensor], action_mask: Tensor | None = None, memory: Memory | None = None
    ) -> NetworkOutput:
        """Compute one step of R rows."""
        inputs = self._inputs(observations)
        latent = self._trunk("", inputs)
        after: Memory = {}
        if self.description.recurrent != "none":
            after = self._remember(latent, memory or self.initial_memory(len(latent)))
            latent = after["hidden"]
        return self._heads(latent, inputs, action_mask, after)

    def forward_sequence(
        self,
        observations: Mapping[str, Tensor],
        action_mask: Tensor | None,
        memory: Memory,
        episode_starts: Tensor,
    ) -> NetworkOutput:
        """Compute L steps of R sequences: every input has leading axes ``(L, R)``.

        Parameters
        ----------
        memory:
            Before the first step, ``(R, hidden)`` each.
        episode_starts:
            ``(L, R)`` bool: the memory is forgotten before these steps.
        """
        steps, rows = episode_starts.shape
        inputs = self._inputs({name: array.flatten(0, 1) for name, array in observations.items()})
        latents = self._trunk("", inputs).view(steps, rows, -1)
        if self.description.recurrent != "none":
            kept = (~episode_starts).unsqueeze(-1).to(latents.dtype)
            outputs = []
            for step in range(steps):
                memory = self._remember(latents[step], {name: array * kept[step] for name, array in memory.items()})
                outputs.append(memory["hidden"])
            latents = torch.stack(outputs)
        mask = None if action_mask is None else action_mask.flatten(0, 1)
        flat = self._heads(latents.flatten(0, 1), inputs, mask, memory)
        return NetworkOutput(flat.logits.view(steps, rows, -1), flat.values.view(steps, rows), memory)

    def value_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the value depends on: training them leaves the policy as it is."""
        parts = ("value_", "state_encoder", "critic")
        return [parameter for name, parameter in self.named_parameters() if name.startswith(parts)]

    def load_tensors(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Load tensors by name.

        Raises
        ------
        CheckpointError
            Naming the first tensor that is missing, left over or of another shape.
        """
        own = self.state_dict()
        for name in sorted(own.keys() | tensors.keys()):
            here = tuple(own[name].shape) if name in own else None
            there = tuple(tensors[name].shape) if name in tensors else None
            if here != there:
                msg = (
                    f"{source}: tensor {name!r} has shape {there}, this network needs {here}; it was saved by a "
                    "network of another shape: use its network settings, observations and actions"
                )
                raise CheckpointError(msg)
        self.load_state_dict(dict(tensors))

    def _inputs(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = {}
        for name, item in self.description.inputs.items():
            values = observations[name].float()
            if item.scale != 1.0:
                values = values * item.scale
            if name in self.description.normalised:
                values = self.normaliser(name, values)
            inputs[name] = values
        return inputs

    def _trunk(self, prefix: str, inputs: Mapping[str, Tensor]) -> Tensor:
        parts = [
            self.get_submodule(f"{prefix}{encoder}")(inputs[name])
            for name, encoder in (("map", "map_encoder"), ("features", "feature_encoder"))
            if name in inputs
        ]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        latent: Tensor = self.get_submodule(f"{prefix}shared")(joined)
        return latent

    def _remember(self, latent: Tensor, memory: Memory) -> Memory:
        if isinstance(self.memory, nn.GRUCell):
            return {"hidden": self.memory(latent, memory["hidden"])}
        hidden, cell = self.memory(latent, (memory["hidden"], memory["cell"]))
        return {"hidden": hidden, "cell": cell}

    def _heads(
        self, latent: Tensor, inputs: Mapping[str, Tensor], action_mask: Tensor | None, memory: Memory
    ) -> NetworkOutput:
        critic = self._trunk("value_", inputs) if self.description.separate_trunks else latent
        if self.description.centralised_critic:
            critic = self.critic(torch.cat([critic, self.state_encoder(inputs["state"])], dim=1))
        logits = mask_logits(self.policy_head(latent), action_mask)
        return NetworkOutput(logits, self.value_head(critic).squeeze(-1).float(), memory)


def _map_encoder(description: PolicyDescription) -> nn.Sequential:
    channels, height, width = description.inputs["map"].shape
    hidden = description.hidden_dim
    if description.kind == "convolutional":
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * height * width, hidden),
            nn.ReLU(),
        )
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU())

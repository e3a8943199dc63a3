"""The description of a trained policy: what stands in ``policy.json`` beside its weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from townlet_training_core.dto.base import Record

__all__ = ["POLICY_FORMAT_VERSION", "InputDescription", "PolicyDescription"]

POLICY_FORMAT_VERSION: Literal[1] = 1


class InputDescription(Record):
    """One observation array that the network reads."""

    shape: tuple[int, ...] = Field(description="Shape without the slot axis.")
    dtype: str = Field(description="dtype as the simulation writes it; cast to float32 by the network.")
    scale: float = Field(1.0, gt=0, description="What values are multiplied by after the cast.")


class PolicyDescription(Record):
    """Everything but the weights that is needed to act: network, inputs, actions, and where it was trained."""

    format: Literal["townlet-policy"] = "townlet-policy"
    format_version: Literal[1] = Field(POLICY_FORMAT_VERSION, description="Version of this file format.")
    kind: Literal["conflict_aware", "convolutional"] = Field(description="Map encoder of the network.")
    hidden_dim: int = Field(ge=1, description="Width of every hidden layer.")
    separate_trunks: bool = Field(False, description="Policy and value have a trunk of their own.")
    recurrent: Literal["none", "gru", "lstm"] = Field("none", description="Memory over the trunk.")
    centralised_critic: bool = Field(False, description="The value also sees the observation 'state'.")
    inputs: dict[str, InputDescription] = Field(min_length=1, description="Arrays that the network reads, by name.")
    normalised: tuple[str, ...] = Field((), description="Inputs that are standardised by stored moments.")
    action_names: tuple[str, ...] = Field(min_length=1, description="Action vocabulary in order of ids.")
    feature_names: tuple[str, ...] = Field((), description="Columns of 'features'; empty when they have no names.")
    map_channels: tuple[str, ...] = Field((), description="Channels of 'map'; empty when they have no names.")
    simulation: str = Field("", description="Name and version of the simulation that it was trained in.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of that simulation's spaces.")
    rules_hash: str = Field("", description="Rules it was trained under; for the record, not checked.")

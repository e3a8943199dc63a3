"""What a tick of the old simulation hands out: core's records."""

from townlet_training_core.dto.observations import (
    DTO_SCHEMA_VERSION,
    AgentObservationDTO,
    GlobalObservationDTO,
    ObservationEnvelope,
    ObservationMetadata,
)

__all__ = [
    "DTO_SCHEMA_VERSION",
    "AgentObservationDTO",
    "GlobalObservationDTO",
    "ObservationEnvelope",
    "ObservationMetadata",
]

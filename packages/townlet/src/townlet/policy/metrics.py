"""Numbers that describe a sample: core's."""

from townlet_training_core.replay.metrics import compute_sample_metrics

__all__ = ["compute_sample_metrics"]

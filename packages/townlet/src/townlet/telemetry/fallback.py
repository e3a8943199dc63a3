"""A telemetry sink that keeps nothing."""

from townlet_sim.old_loop import StubTelemetrySink

__all__ = ["StubTelemetrySink"]

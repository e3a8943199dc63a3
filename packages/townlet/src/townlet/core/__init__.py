"""The old simulation's core: provider registries; `sim_loop` adapts the town."""

from pkgutil import extend_path

from townlet_sim.old_loop import FactoryRegistry, policy_registry, telemetry_registry

__path__ = extend_path(__path__, __name__)

__all__ = ["FactoryRegistry", "policy_registry", "telemetry_registry"]

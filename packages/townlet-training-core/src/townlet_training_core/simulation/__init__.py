"""Simulations: the port that everything steppable implements, and adapters to it.

The town implements the port without importing this package: it needs the standard library and numpy only.
"""

from townlet_training_core.simulation.port import (
    ExpertSimulation,
    KpiSimulation,
    Simulation,
    SimulationSpec,
)

__all__ = ["ExpertSimulation", "KpiSimulation", "Simulation", "SimulationSpec"]

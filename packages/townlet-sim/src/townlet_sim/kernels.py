"""The kernels that the engine calls, in one place; importing this imports numba."""

from __future__ import annotations

from townlet_sim.rules.calendar import respawns
from townlet_sim.rules.exits import seek_exit
from townlet_sim.rules.gather import count_events, gather_events
from townlet_sim.rules.perturbations import begin_perturbation
from townlet_sim.rules.scripted import scripted_range
from townlet_sim.rules.tick import run_towns

__all__ = [
    "begin_perturbation",
    "count_events",
    "gather_events",
    "respawns",
    "run_towns",
    "scripted_range",
    "seek_exit",
]

"""An old ``SimulationLoop``: an object that steps itself with a policy of its own.

It cannot be driven through the simulation port, because nobody outside chooses its actions. What can be had are
the frames that its policy recorded and the events of its telemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from townlet_training_core.errors import CapabilityError, ConfigurationError

__all__ = ["HostedLoop", "HostedRecording", "record_hosted_loop"]


class _HostedPolicy(Protocol):
    def collect_trajectory(self, *, clear: bool = True) -> list[dict[str, Any]]: ...


class _HostedTelemetry(Protocol):
    def latest_events(self) -> Iterable[Mapping[str, Any]]: ...


class HostedLoop(Protocol):
    """The attributes of the predecessor's ``SimulationLoop`` that a recording needs."""

    @property
    def policy(self) -> _HostedPolicy:
        """What decides, and records frames."""

    @property
    def telemetry(self) -> _HostedTelemetry:
        """What gathers events."""

    def step(self) -> Any:
        """Advance one tick with the loop's own policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedRecording:
    """What a hosted loop left behind.

    ========= =================================================================
    frames    the policy's frames in order of recording (contract keys)
    events    the telemetry's events, tick by tick
    ticks     ticks stepped
    ========= =================================================================
    """

    frames: tuple[dict[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]
    ticks: int


def record_hosted_loop(
    loop: HostedLoop, *, ticks: int, on_tick: Callable[[int], None] | None = None
) -> HostedRecording:
    """Step a loop ``ticks`` times and return the frames and events that it recorded itself.

    Frames recorded before the first tick are dropped. What stands in a frame is the loop's own affair: the
    predecessor's runtime joined an action with the observation *after* its tick.

    Parameters
    ----------
    loop:
        An object of the old shape: ``step()``, ``policy.collect_trajectory(clear=True)``,
        ``telemetry.latest_events()``.
    ticks:
        At least 1.
    on_tick:
        Called with the number of ticks done after each.

    Raises
    ------
    ConfigurationError
        When ``ticks`` is not positive.
    CapabilityError
        When the object lacks one of these methods.
    """
    if ticks < 1:
        msg = f"ticks must be positive, not {ticks!r}"
        raise ConfigurationError(msg)
    for path in ("step", "policy.collect_trajectory", "telemetry.latest_events"):
        found: Any = loop
        for name in path.split("."):
            found = getattr(found, name, None)
        if not callable(found):
            msg = f"{type(loop).__name__} has no {path}(); expected an object of the old SimulationLoop shape"
            raise CapabilityError(msg)
    loop.policy.collect_trajectory(clear=True)
    events: list[Mapping[str, Any]] = []
    for tick in range(ticks):
        loop.step()
        events.extend(loop.telemetry.latest_events())
        if on_tick is not None:
            on_tick(tick + 1)
    frames = tuple(loop.policy.collect_trajectory(clear=True))
    return HostedRecording(frames=frames, events=tuple(events), ticks=ticks)

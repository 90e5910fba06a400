"""How fast the job protocol runs in a scenario: at tests' settings or at those of a service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The protocol's settings, in seconds."""

    lease: float
    heartbeat: float
    sweep: float
    grace: float

    def times(self, factor: float) -> Timing:
        return Timing(self.lease * factor, self.heartbeat * factor, self.sweep * factor, self.grace * factor)


FAST = Timing(lease=3, heartbeat=0.5, sweep=0.5, grace=3)
PRODUCTION = Timing(lease=30, heartbeat=5, sweep=2, grace=30)

"""What is known of networks, found in the process of the test itself: what a service asks its inference program for."""

from __future__ import annotations

from collections.abc import Sequence

from app.spec.architectures import Architecture
from app.spec.trace import Trace


class Traces:
    """The part of a `Lookup` that knows networks."""

    def trace(self, architecture: Architecture, shape: Sequence[int]) -> Trace:
        return traced(architecture, shape)


def traced(architecture: Architecture, shape: Sequence[int]) -> Trace:
    from worker.training.process import device

    device.import_keras()
    from worker.training.networks import trunk

    return trunk.trace(architecture, shape)

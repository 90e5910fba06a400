"""What a transfer's phases are, and which layers a fit has changed."""

from __future__ import annotations

from typing import Any

from tests.worker.training.small import same
from worker.training.fitting.plan import Phase
from worker.training.methods.transfer import train
from worker.training.networks.network import Network


def planned(spec: Any, whole: Network, budget: int, epoch_steps: int) -> list[Phase]:
    return train._phases(spec, budget, epoch_steps, whole)


def changed(whole: Network, now: Network) -> set[str]:
    return {name for name in whole.weights if not same({"l": whole.weights[name]}, {"l": now.weights[name]})}

"""All scenarios, in the order of the plan."""

from __future__ import annotations

from tests.faults.scenarios import (
    Scenario,
    answers,
    broker,
    cancels,
    clock,
    database,
    disk,
    hostile,
    loaded,
    mixed,
    model,
    real,
    rogue,
    slow,
    trainers,
    workers,
)

_MODULES = (
    workers,
    trainers,
    broker,
    answers,
    database,
    cancels,
    disk,
    clock,
    rogue,
    model,
    hostile,
    loaded,
    slow,
    mixed,
    real,
)

SCENARIOS: tuple[Scenario, ...] = tuple(
    sorted((scenario for module in _MODULES for scenario in module.SCENARIOS), key=lambda scenario: scenario.number)
)

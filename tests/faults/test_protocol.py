"""The protocol's state machine, at a length that every run of the tests can bear; `./dev faults --full` runs it longer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from app.settings import settings as service_settings
from tests.faults.protocol import Protocol

pytestmark = pytest.mark.usefixtures("database")


def test_whatever_the_order_of_calls_the_database_is_as_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_settings(), "plugins", ("tests.faults",))
    before = Protocol.steps
    short = settings(
        max_examples=12, stateful_step_count=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Protocol, settings=short)
    assert Protocol.steps - before >= 200

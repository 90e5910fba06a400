"""The protocol's state machine, at a length that every run of the tests can bear; `./dev faults --full` runs it longer."""

from __future__ import annotations

import pytest

from app.settings import settings
from tests.faults.protocol import run_protocol

pytestmark = pytest.mark.usefixtures("database")


def test_whatever_the_order_of_calls_the_database_is_as_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "plugins", ("tests.faults",))
    run_protocol(steps=320, seed=1)

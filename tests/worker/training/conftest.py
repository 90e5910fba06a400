"""Keras, imported as a trainer does it, before the modules here import it; and what jobs in this process lend each other."""

from __future__ import annotations

import pytest

from worker.training.process import device

device.import_keras()


@pytest.fixture(autouse=True)
def _lent(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.worker.training import lent
    from worker.training.experiment import job

    monkeypatch.setattr(job, "FitLoop", lent.fit_loop)


@pytest.fixture(autouse=True)
def _timed_briefly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's latencies are those of a small batch, each timed three times: a tenth of what a small job takes. `timed_as_usual`: they
    are what a user's are."""
    from worker.training.experiment import job

    if "timed_as_usual" not in request.fixturenames:
        monkeypatch.setattr(
            job, "TIMED_ROWS", 32
        )  # as many rows as are answered at once elsewhere: nothing more is traced
        monkeypatch.setattr(job, "LATENCY_SECONDS", 0.0)


@pytest.fixture
def timed_as_usual() -> None:
    """Asked for by a test of what is timed."""

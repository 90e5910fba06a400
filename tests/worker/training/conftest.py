"""Keras, imported as a trainer does it, before the modules here import it; and what jobs in this process lend each other."""

from __future__ import annotations

import gc

import pytest

from worker.training.process import device

device.import_keras()
# Tracing a network makes objects by the hundred thousand: collected less often, the tests take a tenth less time.
gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _lent(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.worker.training import lent
    from worker.training.experiment import job

    monkeypatch.setattr(job, "FitLoop", lent.fit_loop)

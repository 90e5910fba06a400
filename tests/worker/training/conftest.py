"""Keras, imported as a trainer does it, before the modules here import it."""

from __future__ import annotations

import gc

from worker.training.process import device

device.import_keras()
# Tracing a network makes objects by the hundred thousand: collected less often, the tests take a tenth less time.
gc.set_threshold(20_000, 20, 20)

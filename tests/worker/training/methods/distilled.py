"""Every objective at once, and a stop in the middle of a stage."""

from __future__ import annotations

import threading
from typing import Any

from worker.training.dummy import Quiet

EVERY = [{"type": name} for name in ("logits", "dkd", "dist", "hint", "attention", "relational", "similarity")]


class StopIn(Quiet):
    """Sets the flag once a stage has reported some progress."""

    def __init__(self, stop: threading.Event, stage: str) -> None:
        super().__init__()
        self.stop, self.stage = stop, stage

    def send(self, report: Any) -> None:
        super().send(report)
        if getattr(report, "stage", None) == self.stage and getattr(report, "step", 0):
            self.stop.set()

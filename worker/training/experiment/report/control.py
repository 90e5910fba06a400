"""The arms of a job: for each run seed one treated model and its control, which differ in nothing but the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.spec.training import ControlSpec


@dataclass(frozen=True)
class Arm:
    """Run seed `seed` (training.seed + k) draws subset, initialisation, order and dropout alike in both arms of a pair."""

    k: int
    seed: int
    treated: bool

    @property
    def stage(self) -> str:
        """The treated arm of k = 0 is the job's model: its metrics have plain names."""
        if self.treated:
            return f"treated/{self.k}" if self.k else "target"
        return f"control/{self.k}"

    @property
    def role(self) -> str:
        """The role under which the arm's model is kept."""
        return "model" if self.stage == "target" else self.stage


def arms(seed: int, control: ControlSpec) -> list[Arm]:
    """The arms in pairs: target, control/0, treated/1, control/1, … Without control seeds the target alone."""
    pairs = [[Arm(k, seed + k, True), Arm(k, seed + k, False)] for k in range(control.seeds)]
    return [arm for pair in pairs for arm in pair] or [Arm(0, seed, True)]

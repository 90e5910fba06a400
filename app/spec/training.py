"""How one model is trained: budget, optimizer, stopping, checkpoints; and the control that says whether it helped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.base import Words

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class OptimizerSpec(Words):
    """`learning_rate` null means the default of the strategy (from scratch 1e-3 for Adam)."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: float | None = Field(None, gt=0, le=10)
    weight_decay: float | None = Field(None, ge=0, le=1)
    global_clipnorm: float | None = Field(None, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd and rmsprop")


class EarlyStopping(Words):
    """Watches the validation value of the verdict's metric; `patience` in evaluations (one an epoch)."""

    patience: int = Field(5, ge=1, le=1000)
    restore_best: bool = True


class CheckpointSpec(Words):
    every_epochs: int = Field(1, ge=1, le=10_000)
    every_seconds: float = Field(60, gt=0, le=86_400)


class TrainingSpec(Words):
    """One training: exactly one of `epochs` and `steps` (neither: the kind's default of 10 epochs)."""

    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1, le=100_000_000, description="optimizer steps")
    batch_size: int = Field(64, ge=1, le=65_536)
    seed: Seed = 0
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    deterministic: Literal["auto"] | bool = Field("auto", description="auto: on for CPU, off on GPU")
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: Literal["constant", "cosine"] = "constant"
    early_stopping: Literal["off"] | EarlyStopping = "off"
    checkpoint: CheckpointSpec = CheckpointSpec()

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingSpec:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give `epochs` or `steps`, not both")
        return self


class ControlTraining(Words):
    """What the control may do differently; its budget is always the treated arm's."""

    learning_rate: float | None = Field(None, gt=0, le=10)


class ControlSpec(Words):
    """`seeds` pairs of treated and control arms; 0: no control and no verdict.

    Five are advised, under three answer `inconclusive`.
    """

    seeds: int = Field(0, ge=0, le=20)
    margin: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    primary: str | None = Field(None, description="multitask: the task that decides, or delta_m")
    budget: Literal["target", "total"] = Field("target", description="total: the control also gets the source's steps")
    training: ControlTraining = ControlTraining()

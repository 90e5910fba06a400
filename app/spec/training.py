"""How one model is trained: budget, optimizer, stopping, checkpoints; and the control that says whether it helped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.base import SpecModel

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Schedule = Literal["constant", "cosine", "step", "one_cycle"]


class OptimizerSpec(SpecModel):
    """`learning_rate` null means the default of the strategy (from scratch 1e-3 for Adam)."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: float | None = Field(None, gt=0, le=10)
    weight_decay: float | None = Field(None, ge=0, le=1)
    global_clipnorm: float | None = Field(None, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd and rmsprop")
    gradient_accumulation_steps: int = Field(
        1,
        ge=1,
        le=1024,
        description="steps whose gradients are averaged to one update: as a batch so many times as large",
    )


SCRATCH_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2, "rmsprop": 1e-3}
"""The learning rate of each optimizer for a network that starts from nothing."""


class EarlyStopping(SpecModel):
    """Watches the validation value of the verdict's metric; `patience` in evaluations (one an epoch)."""

    patience: int = Field(5, ge=1, le=1000)
    restore_best: bool = True


class CheckpointSpec(SpecModel):
    every_epochs: int = Field(1, ge=1, le=10_000)
    every_seconds: float = Field(60, gt=0, le=86_400)


class Flip(SpecModel):
    """Mirrored with probability ½ along each chosen axis."""

    type: Literal["flip"] = "flip"
    horizontal: bool = True
    vertical: bool = False


class Translation(SpecModel):
    """Shifted by up to `fraction` of height and width."""

    type: Literal["translation"] = "translation"
    fraction: float = Field(0.1, gt=0, le=0.5)


class Rotation(SpecModel):
    """Turned about the middle by up to `degrees`, either way."""

    type: Literal["rotation"] = "rotation"
    degrees: float = Field(10, gt=0, le=180)


class Zoom(SpecModel):
    """Drawn larger or smaller by a factor between 1 - `fraction` and 1 + `fraction`."""

    type: Literal["zoom"] = "zoom"
    fraction: float = Field(0.1, gt=0, le=0.5)


class Noise(SpecModel):
    """Gaussian. `std` is a share of a picture's or a sound's full scale, or of each column's standard deviation."""

    type: Literal["noise"] = "noise"
    std: float = Field(0.05, gt=0, le=10)


class Color(SpecModel):
    """Brightness changed by up to a share of a picture's full scale, contrast by up to a factor 1 ± `contrast` about the picture's mean."""

    type: Literal["color"] = "color"
    brightness: float = Field(0.1, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, lt=1)


class Cutout(SpecModel):
    """A rectangle at a random place, `fraction` of height and width, has the picture's mean (DeVries and Taylor 2017)."""

    type: Literal["cutout"] = "cutout"
    fraction: float = Field(0.25, gt=0, lt=1)


class Crop(SpecModel):
    """A part at a random place, at least `least` of the area and up to a third wider or higher in shape, enlarged to the whole picture
    (Szegedy et al. 2015)."""

    type: Literal["crop"] = "crop"
    least: float = Field(0.5, gt=0, lt=1)


class RandAugment(SpecModel):
    """`ops` of eleven changes, drawn for each picture: nothing, turned, sheared and shifted along each axis, brightness, contrast,
    saturation, posterised, solarised (Cubuk et al. 2020, without the changes that take a histogram)."""

    type: Literal["rand_augment"] = "rand_augment"
    ops: int = Field(2, ge=1, le=8)
    magnitude: float = Field(
        0.3, gt=0, le=1, description="1: turned by 30°, sheared and shifted by 0.3, colours by a factor of 1 ± 0.9"
    )


class TokenDropout(SpecModel):
    """Each byte of a text, or each token where a network sees tokens, is left blank with probability `rate`."""

    type: Literal["token_dropout"] = "token_dropout"
    rate: float = Field(0.1, gt=0, lt=1)


class TimeShift(SpecModel):
    """A sound begins earlier or later by up to `fraction` of its length; what is free is silent, what leaves it is lost."""

    type: Literal["time_shift"] = "time_shift"
    fraction: float = Field(0.1, gt=0, le=0.5)


class SpecAugment(SpecModel):
    """`masks` stretches of a sound are silent, each up to `fraction` of its length, and `bands` bands of frequencies are taken out of it,
    each up to `width` of the mel scale from 0 to half of the rate: the masks of time and of frequency of Park et al. (2019)."""

    type: Literal["spec_augment"] = "spec_augment"
    masks: int = Field(2, ge=0, le=8)
    fraction: float = Field(0.1, gt=0, le=0.5)
    bands: int = Field(0, ge=0, le=8)
    width: float = Field(0.1, gt=0, le=0.5)

    @model_validator(mode="after")
    def _masks_something(self) -> SpecAugment:
        if not self.masks and not self.bands:
            raise ValueError("`masks` and `bands` are both 0: give one of them, or leave spec_augment out")
        return self


class MixUp(SpecModel):
    """λ of each row and 1 − λ of another one of its batch, λ drawn from Beta(`alpha`, `alpha`) for each; the loss is shared between the two
    rows' labels alike (Zhang et al. 2018). It comes after all other changes."""

    type: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0, le=8)


Augmentation = Annotated[
    Flip
    | Translation
    | Rotation
    | Zoom
    | Crop
    | RandAugment
    | Noise
    | Color
    | Cutout
    | TokenDropout
    | TimeShift
    | SpecAugment
    | MixUp,
    Field(discriminator="type"),
]


MIXUP = "mixup"
STILL = frozenset({"noise", "color", "cutout", MIXUP})
"""The augmentations of pictures that leave everything in its place."""


class TrainingSpec(SpecModel):
    """One training: exactly one of `epochs` and `steps` (neither: the kind's default of 10 epochs)."""

    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(
        None, ge=1, le=100_000_000, description="batches; each is an optimizer step but where gradients are accumulated"
    )
    batch_size: int = Field(64, ge=1, le=65_536)
    seed: Seed = 0
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    deterministic: Literal["auto"] | bool = Field("auto", description="auto: on for CPU, off on GPU")
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: Schedule = "constant"
    warmup_epochs: float = Field(
        0.0, ge=0, le=1000, description="over which the rate rises from near 0; of each phase, where a fit has several"
    )
    augmentation: Annotated[list[Augmentation], Field(max_length=8)] = Field(
        [], description="of training rows, drawn anew for each batch, alike in both arms of a pair"
    )
    early_stopping: Literal["off"] | EarlyStopping = "off"
    checkpoint: CheckpointSpec = CheckpointSpec()

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingSpec:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give `epochs` or `steps`, not both")
        return self

    @model_validator(mode="after")
    def _warm_up(self) -> TrainingSpec:
        if self.warmup_epochs and self.schedule == "one_cycle":
            raise ValueError("one_cycle begins with a warm-up of its own: leave `warmup_epochs` out")
        return self

    @model_validator(mode="after")
    def _whole_updates(self) -> TrainingSpec:
        every = self.optimizer.gradient_accumulation_steps
        if self.steps is not None and every > self.steps:
            raise ValueError(
                f"`gradient_accumulation_steps` are {every} of {self.steps} steps: there would be no update"
            )
        return self

    @model_validator(mode="after")
    def _mixed_once(self) -> TrainingSpec:
        if sum(augmentation.type == MIXUP for augmentation in self.augmentation) > 1:
            raise ValueError("mixup is given twice: two rows are mixed, no more")
        return self


class ControlTraining(SpecModel):
    """What the control may do differently; its budget is always the treated arm's."""

    learning_rate: float | None = Field(None, gt=0, le=10)


class ControlSpec(SpecModel):
    """`seeds` pairs of treated and control arms; 0: no control and no verdict.

    Five are advised, under three answer `inconclusive`.
    """

    seeds: int = Field(0, ge=0, le=20)
    margin: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    primary: str | None = Field(None, description="multitask: the task that decides, or delta_m")
    budget: Literal["target", "total"] = Field(
        "target", description="total: the control also gets the steps of source, teachers and earlier generations"
    )
    training: ControlTraining = ControlTraining()

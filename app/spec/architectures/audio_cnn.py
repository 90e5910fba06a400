"""A convolutional network over the mel spectrogram of a sound, which it makes itself: after Hershey et al. (2017), made small.

Frames of 25 ms every 10 ms, as is usual for speech; of mel bands it takes the logarithm of the power.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from app.spec.architectures._base import Architecture, Shape
from app.spec.data import InputSchema

USUAL_RATE = 16_000
MOST_FRAMES = 10_000

Filters = Annotated[
    list[Annotated[int, Field(ge=1, le=1024)]],
    Field(min_length=1, max_length=6, description="of each convolution, behind which time and bands are halved"),
]


class Spec(Architecture):
    inputs: ClassVar[str] = "audio"
    arch: Literal["audio-cnn"] = "audio-cnn"
    rate: int | None = Field(None, ge=1, le=384_000, description="samples a second; the data's when left out")
    window: int | None = Field(
        None,
        ge=8,
        le=16_384,
        multiple_of=2,  # Hann windows of odd length differ between TensorFlow and JAX
        description="samples of a frame; 25 ms when left out",
    )
    hop: int | None = Field(None, ge=1, le=16_384, description="samples from frame to frame; 10 ms when left out")
    mels: int = Field(40, ge=8, le=256, description="bands of the spectrogram")
    filters: Filters = [32, 64, 128]
    dense: int = Field(128, ge=1, le=4096)
    dropout: float = Field(0.0, ge=0, lt=1, description="after the dense layer")

    @model_validator(mode="after")
    def _bounded(self) -> Spec:
        halvings, least = len(self.filters), 2 ** len(self.filters)
        if least > self.mels:
            raise ValueError(f"{halvings} convolutions halve the bands as often: mels must be {least} or more")
        return self

    @property
    def of_rate(self) -> int:
        return self.rate or USUAL_RATE

    @property
    def frame(self) -> int:
        """Samples of a frame."""
        return self.window or max(8, self.of_rate // 80 * 2)

    @property
    def step(self) -> int:
        """Samples from frame to frame."""
        return self.hop or max(1, self.of_rate // 100)

    def fitted(self, shape: Shape, input: InputSchema | None = None) -> Spec:  # noqa: ARG002
        """The rate of the data where none was asked for, and what follows from it."""
        written = self.model_copy(update={"rate": self.rate or (input and input.rate) or USUAL_RATE})
        return written.model_copy(update={"window": written.frame, "hop": written.step})

    def check(self, shape: Shape) -> None:
        frames, needed = 1 + -(-shape[0] // self.step), 2 ** len(self.filters)
        if shape[1] != 1:
            raise ValueError(f"{self.arch} takes sounds of one channel, these have {shape[1]}")
        if frames < needed or shape[0] < self.frame:
            least = max(self.frame, self.step * (needed - 2) + 1)
            raise ValueError(f"{self.arch} needs sounds of {least} samples or more, these have {shape[0]}")
        if frames > MOST_FRAMES:
            raise ValueError(
                f"{self.arch} makes {frames} frames of {shape[0]} samples, at most {MOST_FRAMES}: enlarge `hop`"
            )

"""A causal transformer (Vaswani et al. 2017; Radford et al. 2019) over the bytes or tokens of a text: no place sees what comes
later.

Each byte or token is a place. What a place ends with may therefore say what follows: see the task type `next_token`. Norms stand before
attention and dense layers (Xiong et al. 2020); for other tasks the mean over all places remains.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from app.spec.architectures._base import Shape
from app.spec.architectures._heads import dividing
from app.spec.architectures._text import TextArchitecture
from app.spec.architectures.text_encoder import MOST_PLACES


class Spec(TextArchitecture):
    causal: ClassVar[bool] = True
    arch: Literal["causal-transformer"] = "causal-transformer"
    dim: int = Field(128, ge=8, le=768, description="numbers for each byte or token")
    depth: int = Field(2, ge=1, le=24)
    heads: int = Field(4, ge=1, le=16, validate_default=True)
    mlp_ratio: int = Field(4, ge=1, le=8, description="of `dim`: how wide the layers between are")
    dropout: float = Field(0.0, ge=0, lt=1, description="after attention, and after each dense layer")

    _divide = field_validator("heads")(dividing)

    def check(self, shape: Shape) -> None:
        if shape[0] > MOST_PLACES:
            shorter = "upload the texts with" if self.tokens is None else "see them in tokens of"
            raise ValueError(
                f"{shape[0]:,} {self.unit}s are more than {MOST_PLACES:,} places: {shorter} a smaller `length`"
            )


EXAMPLE = {"arch": "causal-transformer", "dim": 16, "depth": 1, "heads": 2, "mlp_ratio": 2}

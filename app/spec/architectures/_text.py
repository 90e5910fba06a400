"""The base of the architectures for texts, which see bytes or tokens."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from app.spec.architectures._base import Architecture
from app.spec.data import InputSchema, Tokens

BYTES = 256


class TextArchitecture(Architecture):
    """A trunk for texts. `tokens`: how it sees them; None: byte by byte."""

    inputs: ClassVar[str] = "text"
    tokens: Tokens | None = Field(
        None,
        exclude_if=lambda tokens: tokens is None,
        description='how texts are seen: null: byte by byte; {"type": "bpe"}: in tokens, fitted on the rows that train',
    )

    @property
    def unit(self) -> str:
        """What its first layer embeds."""
        return "byte" if self.tokens is None else "token"

    @property
    def units(self) -> int:
        """How many of them there are."""
        return BYTES if self.tokens is None else self.tokens.vocabulary

    @property
    def tokens_seen(self) -> Tokens | None:
        return self.tokens

    def seen(self, input: InputSchema) -> InputSchema:
        return input if input.tokens == self.tokens else input.model_copy(update={"tokens": self.tokens})

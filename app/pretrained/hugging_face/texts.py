"""What networks on texts have in common: ids of tokens and their places come in, and a row of features goes out."""

from __future__ import annotations

from dataclasses import dataclass

from app.pretrained.drawing import Array, Drawing, Tensor
from app.pretrained.hugging_face.layers import Activation, Layers
from app.pretrained.source import Source

PADDING = 0


@dataclass(frozen=True)
class Pooling:
    """How the rows of a text's tokens become one. `first`: that of [CLS]; else their mean. `unit`: it is brought to length 1."""

    first: bool = False
    unit: bool = False

    @property
    def about(self) -> str:
        how = "the row of [CLS]" if self.first else "the mean over a text's tokens"
        return f"its features are {how}{', brought to length 1' if self.unit else ''}"


@dataclass(frozen=True)
class Seen:
    """How a network sees texts. `length`: tokens of one. `words`: tokens that it is told apart."""

    length: int
    words: int
    pooling: Pooling


class Tokens:
    """The input of a network on texts: ids of tokens, filled up with 0. `seen`: the places that attention may look at."""

    def __init__(self, texts: Seen):
        self._texts = texts
        self.drawing = Drawing("tokens", (texts.length,), integers=True)
        self._there = self.drawing.add("is_token", "ops.NotEqual", self.drawing.input, PADDING)
        self.seen = self.drawing.add("attention_mask", "ops.ExpandDims", self._there, axis=1)

    def embedded(self, layers: Layers, words: Array, places: Array) -> Tensor:
        """Each token's row and each place's, added."""
        drawing = self.drawing
        ones = drawing.add("ones", "ops.OnesLike", drawing.input)
        number = drawing.add("place", "ops.Subtract", drawing.add("place_from_1", "ops.Cumsum", ones, axis=1), 1)
        words = words[: self._texts.words]  # some tables are longer than the vocabulary, for the sake of fast kernels
        added = [layers.table("word_embedding", drawing.input, words), layers.table("place_embedding", number, places)]
        return drawing.add("embedding", "Add", added)

    def pooled(self, layers: Layers, x: Tensor) -> Tensor:
        drawing, pooling = self.drawing, self._texts.pooling
        if pooling.first:
            x = layers.first("first", x)
        else:
            ones = drawing.add("one_each", "ops.Cast", self._there, dtype="float32")
            counted = drawing.add("counted", "ops.ExpandDims", ones, axis=-1)
            number = drawing.add("count", "ops.Maximum", drawing.add("tokens_there", "ops.Sum", counted, axis=1), 1.0)
            total = drawing.add("total", "ops.Sum", drawing.add("without_padding", "Multiply", [x, counted]), axis=1)
            x = drawing.add("mean", "ops.Divide", total, number)
        return drawing.add("unit", "UnitNormalization", x) if pooling.unit else x


@dataclass(frozen=True)
class Names:
    """Of a block's arrays, below the block's own. `attention`: query, key, value and what follows them."""

    attention: tuple[str, str, str, str]
    attention_norm: str
    wide: str
    back: str
    norm: str


def block(
    layers: Layers,
    source: Source,
    names: Names,
    ours: str,
    x: Tensor,
    *,
    heads: int,
    activation: Activation,
    seen: Tensor,
) -> Tensor:
    """Self-attention and two dense layers, each added to what it was given and normed after that (Vaswani et al. 2017)."""
    attended = layers.attention(source, f"{ours}_attention", names.attention, x, heads=heads, seen=seen)
    x = layers.drawing.add(f"{ours}_attention_add", "Add", [x, attended])
    x = layers.norm(source, f"{ours}_attention_norm", names.attention_norm, x)
    wide = layers.activated(source, f"{ours}_wide", names.wide, x, activation)
    back = layers.dense(source, f"{ours}_back", names.back, wide)
    x = layers.drawing.add(f"{ours}_add", "Add", [x, back])
    return layers.norm(source, f"{ours}_norm", names.norm, x)

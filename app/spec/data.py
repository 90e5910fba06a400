"""What a data set looks like, how it is split, and how few of its labels a job may use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from app.spec.base import SpecModel
from app.spec.intake import Fit
from app.spec.registered import Registered
from app.spec.registry import modules

Name = Annotated[str, Field(min_length=1, max_length=128)]
InputKind = Annotated[str, Registered(lambda: modules("inputs"), stored=True)]
"""A module of `app.data.inputs`."""


DatePart = Literal[
    "year", "month_sin", "month_cos", "day_sin", "day_cos", "weekday_sin", "weekday_cos", "time_sin", "time_cos"
]


class Feature(SpecModel):
    """One number of a table's stored row; NaN is missing, which only a feature that says `missing` may be.

    A column's value; or with `classes` the place of its word among them; or with `part` a part of its date, see `app.data.dates`; or
    with `equals`, which older data sets have, 1 where the column holds that word, else 0. What a network sees of it:
    `app.data.layout`.
    """

    column: Name
    equals: str | None = None
    classes: list[str] | None = None
    part: DatePart | None = None
    missing: bool = Field(False, description="whether the column has missing values: others of a feature must be there")


class PictureDecoding(SpecModel):
    """How a file of a picture becomes a row; `app.data.decode` does it, alike for a data set and for a request to predict."""

    library: Literal["pillow"] = "pillow"
    version: str = Field(description="of the library that made the rows")
    rules: int = Field(1, description="the version of `preprocess.py`")
    mode: Literal["L", "RGB"]
    size: list[Annotated[int, Field(ge=1)]] = Field(description="height, width")
    fit: Fit | Literal["exact"]


class SoundDecoding(SpecModel):
    """How a file of a sound becomes a row; `app.data.decode_sound` does it, alike for a data set and for a request to predict."""

    library: Literal["soundfile"] = "soundfile"
    version: str = Field(description="of the library that made the rows")
    resampler: str = Field(description="what brought other rates to `rate`, and its version")
    rules: int = Field(1, description="the version of `preprocess.py`")
    rate: int = Field(ge=1, description="samples a second")
    samples: int = Field(ge=1, description="of a row: longer sounds are cut, shorter ones filled with zeros at the end")


def _library(decoding: Any) -> str:
    """That of a stored or made decoding; the first ones need not name it."""
    named = decoding.get("library") if isinstance(decoding, dict) else getattr(decoding, "library", None)
    return named if isinstance(named, str) else "pillow"


Decoding = Annotated[
    Annotated[PictureDecoding, Tag("pillow")] | Annotated[SoundDecoding, Tag("soundfile")], Discriminator(_library)
]


class Tokens(SpecModel):
    """How a network sees texts: in tokens of byte-level BPE, fitted on the rows that train."""

    type: Literal["bpe"] = "bpe"
    vocabulary: int = Field(
        2000, ge=258, le=65_536, description="tokens at most: a filling one, 256 bytes, and merged pairs"
    )
    length: int = Field(128, ge=1, le=4096, description="tokens of a text that the network sees; more are cut")


class Tokenizer(Tokens):
    """A fitted one, as a kept model has it."""

    learnt: int = Field(ge=257, description="tokens that it has: fewer than `vocabulary` where texts are few")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of tokenizer.json")


class WordPiece(SpecModel):
    """How a network sees texts: in tokens of WordPiece (Wu et al. 2016), of a vocabulary that came with a kept model. Nothing is fitted."""

    type: Literal["wordpiece"] = "wordpiece"
    vocabulary: int = Field(ge=4, le=2**18, description="tokens that it has")
    length: int = Field(
        128, ge=3, le=4096, description="tokens of a text that the network sees, the first and the last one among them"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the tokenizer.json in the kept model's file")


class InputSchema(SpecModel):
    """What a model is fed: one tensor per row.

    `image`: shape (height, width, channels), uint8 with `scale` 255 or float32 with `scale` 1; the model divides by
    `scale` itself. `table`: shape (features,), float32, in the order of `features`; the model fills gaps and lays out categories itself.
    `text`: shape (bytes,), uint8. `audio`: shape (samples, 1), int16 with `scale` 32,768, by which the
    model divides. `multimodal`: shape (numbers,), float32, the rows of all `parts`, one after another.
    """

    kind: InputKind
    shape: list[Annotated[int, Field(ge=1)]]
    scale: float = 1.0
    features: list[Feature] = []
    decode: Decoding | None = Field(None, description="how files become rows, where they came as files")
    tokens: Tokenizer | Tokens | WordPiece | None = Field(
        None,
        exclude_if=lambda tokens: tokens is None,
        description="of a model that sees texts in tokens: ids of this tokenizer are what it takes",
    )
    parts: dict[Name, InputSchema] = Field(
        {},
        description="of a multimodal input, what each part is: `file`, a text by its column, `table` for columns of a table",
    )

    @field_validator("parts")
    @classmethod
    def _in_one_order(cls, parts: dict[str, InputSchema]) -> dict[str, InputSchema]:
        """By name: an object's order is lost in a database and wherever JSON is sorted, and a row's numbers follow it."""
        return dict(sorted(parts.items()))

    @property
    def rate(self) -> int | None:
        """Of sounds, the samples a second."""
        return self.decode.rate if isinstance(self.decode, SoundDecoding) else None


class Column(SpecModel):
    """A column that can be a task's target.

    `category`: one of `classes` (stored as their index, int32, -1 missing). `number`: float32 of `shape` (empty: a
    scalar), NaN missing.
    `labels`: a row of 0/1 for each of `classes` (float32, NaN missing).
    `tags`: of a text of `shape` (bytes,), for each byte of a token the index of its tag in `classes` (int16); -1 on blanks and behind
    the end. A row of -1 alone is missing. `bytes`: of a text of `shape` (bytes,), for each byte the one that follows (int16); -1 at
    the last one and behind it.
    `boxes`: of a picture, float32 of `shape` (most boxes of any, 5): left, top, right, bottom in shares of the stored picture's
    width and height, and the number of the class; −1 throughout beyond a picture's last box, NaN throughout where nobody looked
    for any.
    """

    name: Name
    type: Literal["category", "number", "labels", "tags", "bytes", "boxes"]
    classes: list[str] | None = None
    shape: list[int] = []
    missing: int = 0
    counts: list[int] | None = Field(
        None, description="rows of each class, for category and labels; tokens of each tag; boxes of each class"
    )
    minimum: float | None = None
    maximum: float | None = None


class Schema(SpecModel):
    """A data set: how many rows, what goes in, what can be learnt from it.

    `target` is learnt unless a job says otherwise.
    """

    rows: int
    input: InputSchema
    columns: dict[str, Column]
    target: str | None = None


class SplitSpec(SpecModel):
    """How rows are divided. The test rows are never trained on, by any arm or stage; equal inputs stay on one side."""

    train: float = Field(0.7, gt=0, lt=1)
    validation: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**31)
    by: Literal["stratified", "random", "column", "group", "time"] = "stratified"
    column: Name | None = Field(
        None,
        description="by column: its values name the part; by group: rows of equal value stay together; by time: the rows with its "
        "largest values test, those before them validate, the rest trains",
    )

    @model_validator(mode="after")
    def _adds_up(self) -> SplitSpec:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must add up to 1")
        if (self.by in ("column", "group", "time")) != (self.column is not None):
            raise ValueError("`column` goes with by: column, by: group and by: time, and only with them")
        return self


class PerClass(SpecModel):
    """So many labelled rows of each class."""

    per_class: int = Field(ge=1, le=1_000_000)


Limit = Annotated[int, Field(ge=1)] | PerClass

"""Input kinds in training: what is fitted on training rows and stands as stock layers inside a kept model, and how rows are resized for a
trunk. One module each, whose other half is in `app.data.inputs`. Imports `data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from app.data import inputs
from app.spec.registry import module

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.data import InputSchema
    from worker.training.data.rows import Data
    from worker.training.data.scaling import Scaling


Trained = tuple["Source", np.ndarray]
"""A data set's inputs, and the numbers of the rows that train."""


class InputTraining(Protocol):
    """The face of a module. Keras is imported only inside functions.

    SCALED_AS_THE_SOURCE: whether a trunk that was copied goes on with its source's scaling. Where the other half says RESIZED, a module
    also has `adapted`, `about` and `sentence`, as in `image`.
    """

    SCALED_AS_THE_SOURCE: bool

    def fit(self, input: InputSchema, parts: Sequence[Trained]) -> Scaling:
        """What is done to raw inputs before the first layer, fitted on the training rows of each data set; of a kind that is RESIZED, of
        none: a trunk that was fed other rows goes on with what these are scaled by."""

    def layer(self, scaling: Scaling, input: InputSchema) -> Any:
        """The stock layer, named `preprocessing`, that does what the scaling does."""

    def scaling_of(self, layer: Any) -> Scaling:
        """The scaling that `layer` was made of."""


def training(kind: str) -> InputTraining:
    """The training half of an input kind. Raises NotInstalled."""
    return cast("InputTraining", module("training.inputs", kind))


def scaling(parts: Sequence[tuple[Data, np.ndarray]]) -> Scaling:
    """How raw inputs are scaled: fitted on all rows that train."""
    shape = parts[0][0].table.schema.input
    return training(shape.kind).fit(shape, [(data.table.inputs, rows) for data, rows in parts])


def between(fed: Sequence[int], trunk_shape: Sequence[int] | None) -> list[int] | None:
    """What a network has for `input_resize`: `trunk_shape` where it is another shape than `fed`, else None."""
    return None if trunk_shape is None or list(trunk_shape) == list(fed) else list(trunk_shape)


def adapted(kind: str, x: Any, trunk_shape: Sequence[int]) -> Any:
    """A symbolic tensor of scaled inputs as the trunk sees it, (batch, *seen); `x` itself where that is its shape."""
    return module("training.inputs", kind).adapted(x, trunk_shape) if inputs.of(kind).RESIZED else x


def about(kind: str, fed: list[int], trunk_shape: list[int]) -> dict[str, Any] | None:
    """What the report says of resizing; None where the trunk sees what it is fed."""
    resizing: dict[str, Any] | None = (
        module("training.inputs", kind).about(fed, trunk_shape) if inputs.of(kind).RESIZED else None
    )
    return resizing


def sentence(kind: str, fed: Sequence[int], trunk_shape: Sequence[int]) -> str:
    """The same in words, for the user."""
    return str(module("training.inputs", kind).sentence(fed, trunk_shape))

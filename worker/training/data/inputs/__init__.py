"""Input kinds in training: the scaling, fitted on training rows and a stock layer of a kept model, and the resizing of rows for a trunk.
One module each, whose other half is in `app.data.inputs`. Imports `data`."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from app.data import inputs
from app.spec.registry import module
from worker.training.data.augmentation import Augment
from worker.training.data.scaling import Scaling
from worker.training.data.tokens import Tokenizer

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.data import InputSchema
    from app.spec.training import Augmentation
    from worker.training.data.rows import Data


Trained = tuple["Source", np.ndarray]
"""A data set's inputs, and the numbers of the rows that train."""

Features = Callable[[np.ndarray], np.ndarray]
"""Stored rows (n, …) to features (n, d) float32."""


class InputTraining(Protocol):
    """The face of a module. Keras is imported only inside functions.

    SCALED_AS_THE_SOURCE: whether a trunk that was copied goes on with its source's scaling; one that does so only where certain layers
    were copied has `inherited` as below, as in `text`. Where the other half says RESIZED, a module
    also has `adapted`, `about` and `sentence`, as in `image`. A kind from which a linear model can learn has `features(input, trained)`,
    fitted on the rows that train, and FEATURES: what those are, in words. A kind whose stored rows are not just any numbers within its
    scale has `golden(input, scaling, n, rng)`, made ones.
    """

    SCALED_AS_THE_SOURCE: bool

    def fit(self, input: InputSchema, parts: Sequence[Trained]) -> Scaling:
        """The scaling of raw inputs before the first layer, fitted on the training rows of each data set. A kind that is RESIZED uses no
        rows: a trunk that was fed other rows goes on with the scaling of the new ones."""

    def layer(self, scaling: Scaling, input: InputSchema) -> Any:
        """The stock layer, named `preprocessing`, that does what the scaling does."""

    def scaling_of(self, layer: Any) -> Scaling:
        """The scaling that `layer` was made of."""


def training(kind: str) -> InputTraining:
    """The training half of an input kind. Raises NotInstalled."""
    return cast("InputTraining", module("training.inputs", kind))


def scaling(
    parts: Sequence[tuple[Data, np.ndarray]], seen: InputSchema | None = None, tokenizer: str | None = None
) -> Scaling:
    """How raw inputs are scaled: fitted on all rows that train. `seen`: the inputs as an architecture sees them; None: as stored.
    `tokenizer`: the content of the one that comes with a kept model, where it is not fitted."""
    if (given := _in_tokens(seen, tokenizer)) is not None:
        return given
    shape = seen or parts[0][0].table.schema.input
    return training(shape.kind).fit(shape, [(data.table.inputs, rows) for data, rows in parts])


def unscaled(input: InputSchema, tokenizer: str | None = None) -> Scaling:
    """That of a network which takes numbers as they are stored, and pictures and sounds divided by their scale: a user's own. A kind
    whose scaling is else fitted on rows has `unscaled`. `tokenizer`: the content of its own, where it has one."""
    if (given := _in_tokens(input, tokenizer)) is not None:
        return given
    half: Any = training(input.kind)
    return cast("Scaling", half.unscaled(input) if hasattr(half, "unscaled") else half.fit(input, []))


def notes(scaling: Scaling, seen: InputSchema, parts: Sequence[tuple[Data, np.ndarray]]) -> dict[str, str]:
    """{code: sentence} of what fitting a scaling decided that nobody asked for. A kind that decides something has `notes`."""
    own = getattr(training(seen.kind), "notes", None)
    return {} if own is None else own(scaling, seen, [(data.table.inputs, rows) for data, rows in parts])


def given_shape(input: InputSchema) -> list[int]:
    """The shape of a row as a kept model takes it, see `Scaling.given`."""
    return list(input.shape) if input.tokens is None else inputs.prepared_shape(input)


def prepared(x: Any, scaling: Scaling, input: InputSchema) -> Any:
    """A symbolic tensor of raw inputs as it is scaled afterwards: of most kinds `x` itself."""
    prepare = getattr(training(input.kind), "prepared", None)
    return x if prepare is None else prepare(x, scaling, input)


def preprocessed(x: Any, scaling: Scaling, input: InputSchema, *, constants: bool = False) -> Any:
    """A symbolic tensor of raw inputs as the first layer is given it.

    Args:
        constants: numbers stand within the graph, since Normalization's become further inputs of an ONNX file.
    """
    own = getattr(training(input.kind), "preprocessed", None)
    if own is not None:
        return own(x, scaling, input, constants=constants)
    x = prepared(x, scaling, input)
    for layer in _constants(scaling) if constants else [training(input.kind).layer(scaling, input)]:
        x = layer(x)
    return x


def _constants(scaling: Scaling) -> list[Any]:
    """Scaling in two layers: the mean is subtracted first, so that a large one costs no precision."""
    import keras

    mean, std = scaling.mean, scaling.std
    return [
        keras.layers.Rescaling(1.0, [-value for value in mean], name="preprocessing_mean", dtype="float32"),
        keras.layers.Rescaling([1 / value for value in std], name="preprocessing_std", dtype="float32"),
    ]


def _in_tokens(input: InputSchema | None, tokenizer: str | None) -> Scaling | None:
    """The scaling of texts by a tokenizer that is there; None: there is none, or no text is seen in tokens."""
    if input is None or input.tokens is None or tokenizer is None:
        return None
    return Scaling(tokenizer=Tokenizer(tokenizer, input.tokens.length))


def scaling_of(model: Any, input: InputSchema, tokenizer: str | None = None) -> Scaling:
    """The scaling that a kept model was made with. `tokenizer`: the content of its own, where it has one."""
    if (given := _in_tokens(input, tokenizer)) is not None:
        return given
    half: Any = training(input.kind)
    if hasattr(half, "scaling_in"):
        return cast("Scaling", half.scaling_in(model, input))
    scaling, preparation_of = half.scaling_of(model.get_layer("preprocessing")), getattr(half, "preparation_of", None)
    return scaling if preparation_of is None else replace(scaling, preparation=preparation_of(model, input))


def augment(
    spec: Sequence[Augmentation], seed: int, name: str, scaling: Scaling, input: InputSchema, drawn: Trained
) -> Augment:
    """What changes the raw rows of a batch: of rows of several parts, each part by what goes with its kind.

    Args:
        scaling: the network's, which may be its source's or that of several data sets: it says only whether texts are seen in tokens.
        drawn: all training rows of the run seed. They have the unit of `noise`, so that both arms of a pair see the same.
    """
    half: Any = training(input.kind)
    if hasattr(half, "augment"):
        return cast("Augment", half.augment(spec, seed, name, scaling, input, drawn))
    own = replace(half.fit(input, [drawn]), tokenizer=scaling.tokenizer)
    return Augment(spec, seed, name, own, input.rate)


def inherited(
    own: Scaling, input: InputSchema, theirs: Scaling, source: InputSchema, copied: Container[str]
) -> Scaling:
    """The scaling of a network that copied the layers `copied` from one of `source` inputs, scaled as `theirs` says."""
    half: Any = training(input.kind)
    if hasattr(half, "inherited"):
        return cast("Scaling", half.inherited(own, input, theirs, source, copied))
    return theirs if input.kind == source.kind and half.SCALED_AS_THE_SOURCE else own


def features(input: InputSchema, trained: Trained) -> tuple[str, Features] | None:
    """What a linear model sees of raw inputs: in words, and as a function; None: there is nothing so plain."""
    half: Any = training(input.kind)
    made = half.features(input, trained) if hasattr(half, "features") else None
    return None if made is None else (half.FEATURES, made)


def golden(input: InputSchema, scaling: Scaling, n: int) -> np.ndarray:
    """`n` made stored rows, (n, …): the same each time for a schema and a scaling, and like no row of a user."""
    own, rng = getattr(training(input.kind), "golden", None), np.random.default_rng(0)
    if own is not None:
        return np.asarray(own(input, scaling, n, rng))
    return (rng.random((n, *input.shape)) * input.scale).astype(np.float32)


def between(fed: Sequence[int], trunk_shape: Sequence[int] | None) -> list[int] | None:
    """A network's `input_resize`: `trunk_shape` where it differs from `fed`, else None."""
    return None if trunk_shape is None or list(trunk_shape) == list(fed) else list(trunk_shape)


def adapted(kind: str, x: Any, trunk_shape: Sequence[int]) -> Any:
    """A symbolic tensor of scaled inputs resized for the trunk, (batch, *trunk_shape); `x` itself where it has that shape."""
    return module("training.inputs", kind).adapted(x, trunk_shape) if inputs.of(kind).RESIZED else x


def about(kind: str, fed: list[int], trunk_shape: list[int]) -> dict[str, Any] | None:
    """The report's entry on resizing; None where nothing is resized."""
    resizing: dict[str, Any] | None = (
        module("training.inputs", kind).about(fed, trunk_shape) if inputs.of(kind).RESIZED else None
    )
    return resizing


def sentence(kind: str, fed: Sequence[int], trunk_shape: Sequence[int]) -> str:
    """The same as a sentence for the user."""
    return str(module("training.inputs", kind).sentence(fed, trunk_shape))

"""Tables: gaps are filled and categories laid out, then each number is scaled by its mean and deviation; all of it fitted on the rows that
train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data import layout
from app.data.inputs import table
from app.data.source import blocks
from worker.training.data import preparation
from worker.training.data.preparation import Preparation
from worker.training.data.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from worker.training.data.inputs import Features, Trained

SCALED_AS_THE_SOURCE = True
FEATURES = "the prepared columns"

LEAST_STD = (
    1e-7  # what keras.layers.Normalization divides by at least: below it the exported model would scale otherwise
)


def fit(input: InputSchema, parts: Sequence[Trained]) -> Scaling:
    """Sums row after row in float64, so that blocks give the very numbers of NumPy's `mean` and `std` of all rows at once."""
    prepare = preparation.fit(input, parts)
    rows = sum(len(numbers) for _, numbers in parts)
    mean = _sum(parts, prepare, lambda block: block) / rows
    std = np.sqrt(_sum(parts, prepare, lambda block: (block - mean) ** 2) / rows)
    std = np.where(std > np.maximum(LEAST_STD, 1e-12 * np.abs(mean)), std, 1.0)
    return Scaling(tuple(mean.astype(np.float32).tolist()), tuple(std.astype(np.float32).tolist()), prepare)


def unscaled(input: InputSchema) -> Scaling:
    wide = table.prepared_shape(input)[-1]
    return Scaling((0.0,) * wide, (1.0,) * wide)


def golden(input: InputSchema, scaling: Scaling, n: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers about their mean, any class, and gaps where there may be some: in one row everywhere."""
    mean, prepare = np.array(scaling.mean, np.float32), scaling.preparation
    rows = (mean if prepare is None else prepare.of_raw(mean)) + scaling.unit * rng.standard_normal((n, *input.shape))
    for at, feature in enumerate(input.features):
        if feature.classes is not None:
            rows[:, at] = rng.integers(0, len(feature.classes) + layout.capped(feature), n)
        if feature.missing:
            rows[rng.random(n) < 0.2, at] = rows[-1, at] = np.nan
    return rows.astype(np.float32)


def features(input: InputSchema, trained: Trained) -> Features:
    """As a network sees them: gaps filled, categories laid out, scaled."""
    return fit(input, [trained])


def _sum(parts: Sequence[Trained], prepare: Preparation | None, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The sum over all prepared rows, (width,). NumPy adds several numbers row by row, but a single one in pairs: it is added at once."""
    values = (
        of((block if prepare is None else prepare(block)).astype(np.float64))
        for source, rows in parts
        for block in blocks(source, rows)
    )
    if (parts[0][0].shape[1] if prepare is None else len(prepare.layout.source)) == 1:
        return np.asarray(np.add.reduce(np.concatenate(list(values)), axis=0))
    total = np.add.reduce(next(values), axis=0)
    for block in values:
        total = np.add.reduce(np.concatenate([total[None], block]), axis=0)
    return np.asarray(total)


def prepared(x: Any, scaling: Scaling, input: InputSchema) -> Any:  # noqa: ARG001
    """A symbolic tensor of stored rows as it is scaled afterwards."""
    return x if scaling.preparation is None else preparation.symbolic(x, scaling.preparation)


def preparation_of(model: Any, input: InputSchema) -> Preparation | None:
    """What `prepared` was made of."""
    return preparation.of_model(model, input.features)


def layer(scaling: Scaling, input: InputSchema) -> Any:
    import keras

    wide = table.prepared_shape(input)[-1] if len(scaling.mean) == 1 else 1
    variance = [float(std) ** 2 for std in scaling.std]
    return keras.layers.Normalization(
        axis=-1, mean=list(scaling.mean) * wide, variance=variance * wide, name="preprocessing", dtype="float32"
    )


def scaling_of(layer: Any) -> Scaling:
    config = layer.get_config()
    mean, variance = np.ravel(config["mean"]), np.ravel(config["variance"])
    return Scaling(
        tuple(float(value) for value in mean), tuple(float(np.float32(np.sqrt(value))) for value in variance)
    )

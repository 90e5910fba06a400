"""Several inputs side by side: each part is scaled as its kind is."""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.inputs import augmentations, fed
from app.data.inputs.multimodal import PartSource, part_rows, side_by_side
from worker.training.data import inputs
from worker.training.data.augmentation import Augment
from worker.training.data.scaling import Joint, Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from app.spec.training import Augmentation
    from worker.training.data.inputs import Features, Trained

SCALED_AS_THE_SOURCE = True
FEATURES = "what linear models see of the parts"


def fit(input: InputSchema, parts: Sequence[Trained]) -> Scaling:
    return Joint(
        parts=tuple(
            (
                tuple(part.shape),
                inputs.training(part.kind).fit(part, [(PartSource(of, input, name), rows) for of, rows in parts]),
            )
            for name, part in input.parts.items()
        )
    )


def unscaled(input: InputSchema) -> Scaling:
    return Joint(parts=tuple((tuple(part.shape), inputs.unscaled(part)) for part in input.parts.values()))


def preprocessed(x: Any, scaling: Scaling, input: InputSchema, *, constants: bool) -> Any:
    """A nested model, in which each part has one of its own that does what its scaling does."""
    import keras

    assert isinstance(scaling, Joint), "scalings of parts are joint"
    given = keras.Input(tuple(input.shape), name="input", dtype="float32")
    done = []
    for number, (part, cut, (_, of_part)) in enumerate(
        zip(
            input.parts.values(),
            cut_up(given, [part.shape for part in input.parts.values()]),
            scaling.parts,
            strict=True,
        )
    ):
        alone = keras.Input(tuple(part.shape), name="input", dtype="float32")
        model = keras.Model(alone, inputs.preprocessed(alone, of_part, part, constants=constants), name=_name(number))
        flat = keras.layers.Flatten(data_format="channels_last", name=f"flat_{number}", dtype="float32")
        done.append(flat(model(cut)))
    joined = keras.layers.Concatenate(name="joined", dtype="float32")(done)
    return keras.Model(given, joined, name="preprocessing")(x)


def scaling_in(model: Any, input: InputSchema) -> Scaling:
    """The scaling that a kept model was made with."""
    whole = model.get_layer("preprocessing")
    return Joint(
        parts=tuple(
            (tuple(part.shape), inputs.scaling_of(whole.get_layer(_name(number)), part))
            for number, part in enumerate(input.parts.values())
        )
    )


def golden(input: InputSchema, scaling: Scaling, n: int, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Each part's own, side by side."""
    assert isinstance(scaling, Joint), "scalings of parts are joint"
    parts = zip(input.parts.items(), scaling.parts, strict=True)
    return side_by_side({name: inputs.golden(part, of_part, n) for (name, part), (_, of_part) in parts})


class PartsAugment(Augment):
    """Each part changed by the augmentations that go with its kind, drawn for each part anew; (n, numbers) as `Augment` has rows."""

    def __init__(
        self, spec: Sequence[Augmentation], seed: int, name: str, scaling: Scaling, input: InputSchema, drawn: Trained
    ):
        super().__init__(spec, seed, name, scaling)
        assert isinstance(scaling, Joint), "scalings of parts are joint"
        self._joint, self._of_parts = scaling, list[Augment | None]()
        source, rows = drawn
        for (part_name, part), (_, of_part) in zip(input.parts.items(), scaling.parts, strict=True):
            allowed = augmentations(part)
            own = [augmentation for augmentation in spec if allowed is None or augmentation.type in allowed]
            rows_of_part = (PartSource(source, input, part_name), rows)
            part_augment = (
                inputs.augment(own, seed, f"{name}/{part_name}", of_part, part, rows_of_part) if own else None
            )
            self._of_parts.append(part_augment)

    def __call__(self, raw: np.ndarray, step: int) -> np.ndarray:
        parts = self._joint.cut(raw)
        changed = [
            rows if augment is None else augment(rows, step)
            for rows, augment in zip(parts, self._of_parts, strict=True)
        ]
        return np.concatenate([rows.reshape(len(raw), -1) for rows in changed], axis=1)


def augment(
    spec: Sequence[Augmentation], seed: int, name: str, scaling: Scaling, input: InputSchema, drawn: Trained
) -> Augment:
    return PartsAugment(spec, seed, name, scaling, input, drawn)


def inherited(
    own: Scaling, input: InputSchema, theirs: Scaling, source: InputSchema, copied: Container[str]
) -> Scaling:
    """A source's of the same parts; else of the parts that are what the source was fed, as their kind goes on with it."""
    if input.kind == source.kind:
        return theirs
    assert isinstance(own, Joint), "scalings of parts are joint"
    return Joint(
        parts=tuple(
            (shape, inputs.inherited(scaling, part, theirs, source, copied) if fed(part) == fed(source) else scaling)
            for (shape, scaling), part in zip(own.parts, input.parts.values(), strict=True)
        )
    )


def cut_up(x: Any, shapes: Sequence[Sequence[int]]) -> list[Any]:
    """The parts, (batch, *shape) each, of a symbolic (batch, numbers) tensor."""
    from keras import layers, ops

    ends = np.cumsum([prod(shape) for shape in shapes]).tolist()
    cuts = ops.split(x, ends[:-1], axis=1)
    return [layers.Reshape(tuple(shape), dtype="float32")(cut) for cut, shape in zip(cuts, shapes, strict=True)]


def features(input: InputSchema, trained: Trained) -> Features | None:
    """Of the parts from which a linear model can learn; None where it can from none."""
    source, rows = trained
    found = {name: inputs.features(part, (PartSource(source, input, name), rows)) for name, part in input.parts.items()}
    usable = {name: of_part[1] for name, of_part in found.items() if of_part is not None}
    if not usable:
        return None
    return lambda rows: np.hstack([make(part_rows(rows, input, name)) for name, make in usable.items()])


def _name(number: int) -> str:
    return f"part_{number}"

"""Of a named architecture, whose numbers come alone: what it is fed, and its heads, as its sender says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from app.data import inputs
from app.model_files import adopt
from app.spec import architectures, tasks
from app.spec.adopted import Adopted, Head, Part
from app.spec.architectures import Architecture
from app.spec.architectures.keras_graph import RESERVED, Given, Spec
from app.spec.data import Column, InputSchema, Schema
from app.spec.faults import Fault, Invalid, pointer
from app.spec.imports import Scale
from app.spec.models import HeadSpec, TaskManifest
from app.spec.named_weights import HeadOption, WeightsOptions

ASK_SHAPE = (
    "it is not known which rows the network is given",
    "-F shape=32x32x3 (of pictures HEIGHTxWIDTHxCHANNELS), or -F dataset=ID of such rows",
)
ASK_CLASSES = (
    "weights do not say what the network answers",
    "-F classes=cat,dog in the order of the outputs; -F classes=none for a trunk without heads; or -F heads=JSON",
)
AS_GRAPH = "on other pixels than 0..1, which trunks here see, the architecture is kept layer by layer, as a keras-graph behind a Rescaling"
PLAIN: Scale = "0..1"
"""The pixels that every trunk here is given."""


@dataclass(frozen=True)
class Named:
    """`scales`: of pixels, to be tried in this order. `notes`: what was decided without being asked for."""

    architecture: Architecture
    input: InputSchema
    canvas: list[int] | None
    heads: list[Head]
    scales: list[Scale | None]
    notes: list[str]

    @property
    def seen(self) -> list[int]:
        """The shape that the trunk sees."""
        return self.canvas or inputs.prepared_shape(self.input)

    @property
    def has_other_pixels(self) -> bool:
        """Whether an architecture of the catalog may have to see other pixels than its trunk here: that takes a layer, and so a graph."""
        own = isinstance(self.architecture, Spec) or self.architecture.pixels is not None
        return not own and any(scale not in (None, PLAIN) for scale in self.scales)

    def candidates(self, graph: Spec | None) -> list[Adopted]:
        """A reading for each scale. `graph`: the same trunk layer by layer, where it `has_other_pixels`."""
        return [
            Adopted(
                architecture=self._seeing(scale, graph),
                input=self.input,
                canvas=self.canvas,
                heads=self.heads,
                scale=scale,
            )
            for scale in self.scales
        ]

    def _seeing(self, scale: Scale | None, graph: Spec | None) -> Architecture:
        if isinstance(self.architecture, Spec):
            return adopt.scaled(self.architecture, self.input, scale)
        if graph is None or scale in (None, PLAIN):
            return self.architecture
        return adopt.scaled(graph.model_copy(update={"kind": self.input.kind}), self.input, scale)


def described(options: WeightsOptions, schema: Schema | None) -> Named:
    """`schema`: of the data set whose rows the network takes, where one was named.

    Raises:
        Invalid: with all that has to be said first, pointers as the fields of the form.
    """
    faults, notes = list[Fault](), list[str]()
    architecture = options.architecture
    if architecture.tokens_seen is not None:
        message, hint = "weights alone bring no tokenizer", "leave `tokens` out: the network then sees bytes"
        faults.append(Fault("/architecture/tokens", message, hint, "not_applicable"))
    input_ = _input(options, schema, faults, notes)
    heads = list(_heads(options, schema, faults, notes))
    scales = list[Scale | None]()
    canvas = None
    if input_ is not None:
        scales = _scales(architecture, input_, options, schema, faults, notes)
        architecture, canvas = _fitted(architecture, input_, options, faults, notes)
    if faults or input_ is None:
        raise Invalid(faults)
    return Named(architecture, input_, canvas, heads, scales, notes)


def _input(options: WeightsOptions, schema: Schema | None, faults: list[Fault], notes: list[str]) -> InputSchema | None:
    """What the network is fed, None where that has faults."""
    architecture = options.architecture
    given = list(architecture.given) if isinstance(architecture, Spec) else []
    if given and options.shape is not None and [options.shape] != [one.shape for one in given]:
        faults.append(Fault("/shape", "the architecture says another shape", "leave it out", "not_applicable"))
        return None
    shape = options.shape or architecture.known_shape
    if schema is not None:
        if options.shape is not None:
            faults.append(Fault("/shape", "the data set says it", "leave it out", "not_applicable"))
            return None
        shape = tuple(inputs.prepared_shape(schema.input))
    if not given and shape is None:
        faults.append(Fault("/shape", *ASK_SHAPE, "missing"))
        return None
    given = given or [Given(name="input", shape=list(shape or ()))]
    before = len(faults)
    input_ = inputs.of_shape(architecture.input_kind, given[0].shape) if schema is None and len(given) == 1 else None
    input_ = input_ or adopt.input_of(given, options, schema, faults, notes)
    if len(faults) > before or input_ is None:
        return None
    if not isinstance(architecture, Spec) and input_.kind != architecture.input_kind:
        at = "/shape" if schema is None else "/dataset"
        message = f"{architecture.label} takes {architecture.input_kind} inputs, these are {inputs.in_words(input_)}"
        hint = "-F dataset=ID of rows that it takes; of sounds, -F rate=16000 beside the shape"
        faults.append(Fault(at, message, hint, "input_mismatch"))
        return None
    return input_


def _fitted(
    architecture: Architecture, input_: InputSchema, options: WeightsOptions, faults: list[Fault], notes: list[str]
) -> tuple[Architecture, list[int] | None]:
    """The architecture with all that depends on its inputs written down, and the shape that its trunk sees where that is another."""
    fed = inputs.prepared_shape(input_)
    if isinstance(architecture, Spec):
        architecture = adopt.with_bounds(architecture, notes).model_copy(update={"kind": input_.kind})
    try:
        architecture = architecture.fitted(tuple(fed), input_)
        seen = list(architectures.trunk_shape(architecture, fed))
    except ValueError as error:
        at = "/shape" if options.shape is not None else "/dataset" if options.dataset is not None else "/architecture"
        faults.append(Fault(at, str(error), "name the rows that the network was trained on", "input_mismatch"))
        return architecture, None
    return architecture, None if seen == fed else seen


def _scales(
    architecture: Architecture,
    input_: InputSchema,
    options: WeightsOptions,
    schema: Schema | None,
    faults: list[Fault],
    notes: list[str],
) -> list[Scale | None]:
    own = cast("Scale | None", architecture.pixels)
    if own is None or not inputs.of_pixels(input_):
        return adopt.scales_of(input_, options, schema, faults)
    if options.scale is None:
        notes.append(f"{architecture.label} makes pixels of {own} itself, as Keras's own preprocessing does")
    elif options.scale != own:
        message = f"{architecture.label} sees pixels of {own}, which it makes itself"
        hint = "leave `scale` out; a network on other pixels: send it whole, as .keras"
        faults.append(Fault("/scale", message, hint, "not_applicable"))
    return [own]


def _heads(options: WeightsOptions, schema: Schema | None, faults: list[Fault], notes: list[str]) -> Iterator[Head]:
    if options.heads is not None and options.classes is not None:
        faults.append(Fault("/heads", "`classes` says the heads already", "send one or the other", "not_applicable"))
        return
    target = None if schema is None or schema.target is None else schema.columns[schema.target]
    match options.heads or options.classes:
        case "none":
            notes.append(
                "`classes` is none: it is kept as a trunk without heads, to start from; `predict` answers its features"
            )
        case dict() as several:
            for name, said in several.items():
                at = pointer("classes" if options.heads is None else "heads", name)
                yield from _head(name, said if isinstance(said, HeadOption) else HeadOption(classes=said), at, faults)
        case list() as classes:
            name = options.target or ("class" if target is None else target.name)
            yield from _head(name, HeadOption(classes=classes), "/classes", faults)
        case _ if target is not None:
            name = options.target or target.name
            notes.append(
                f"no `classes` were given: the head is that of the data set's {target.name}, its classes in its order"
            )
            yield from _of_column(name, target, HeadOption(classes=target.classes), "/dataset", faults)
        case _:
            faults.append(Fault("/classes", *ASK_CLASSES, "missing"))


def _head(name: str, said: HeadOption, at: str, faults: list[Fault]) -> Iterator[Head]:
    classes = said.classes
    if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        faults.append(
            Fault(at, "expected two classes or more, each named once", "in the order of the outputs", "duplicate")
        )
        return
    shape = [] if said.outputs == 1 else [said.outputs]
    columns: Sequence[Column] = (
        [Column(name=name, type="number", shape=shape)]
        if classes is None
        else [Column(name=name, type="category", classes=classes), Column(name=name, type="labels", classes=classes)]
    )
    kind = said.type or tasks.natural(columns[0])
    column = next((column for column in columns if tasks.of(kind).accepts(column)), None)
    if column is None:
        has = "no classes" if classes is None else "classes"
        message = f"a {kind} head does not go with {has}"
        faults.append(Fault(f"{at}/type", message, "leave `type` out, or say what goes with it", "not_available"))
        return
    yield from _of_column(name, column, said.model_copy(update={"type": kind}), at, faults)


def _of_column(name: str, column: Column, said: HeadOption, at: str, faults: list[Fault]) -> Iterator[Head]:
    kind = said.type or tasks.natural(column)
    if tasks.on_map(kind) or tasks.of_identities(kind):
        message = f"heads of type {kind} cannot be sent as weights"
        faults.append(Fault(at, message, "-F classes=none keeps the trunk without heads", "not_available"))
        return
    if RESERVED.fullmatch(name) or not name.isascii() or not name.isidentifier():
        faults.append(
            Fault("/target", "a task needs another name", "-F target=NAME: letters, digits and _", "name_taken")
        )
        return
    units, classes = tasks.of(kind).units(column), said.classes
    hidden: Mapping[Part, str] = {} if said.units is None else {"hidden": f"{name}_hidden"}
    yield Head(
        task=name,
        manifest=TaskManifest(type=kind, column=name, classes=classes, units=units),
        spec=HeadSpec(units=said.units, activation=said.activation, dropout=said.dropout),
        layers={**hidden, "logits": f"{name}_logits"},
        of_two=units == 1 and classes is not None,
    )

"""From a user's whole network to a trunk and heads that take rows as this service stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import Any

from app.data import inputs
from app.data.inputs import audio, image, text
from app.model_files import heads
from app.model_files.heads import Output
from app.spec.adopted import Adopted
from app.spec.architectures.keras_graph import RESERVED, Call, Given, Spec, StockLayer
from app.spec.data import Feature, InputSchema, Schema, WordPiece
from app.spec.faults import Fault, Invalid
from app.spec.imports import SCALES, ImportOptions, Scale
from app.spec.models import HEAD_PARTS

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels

_RESCALINGS: Mapping[Scale, tuple[Any, Any] | None] = {
    "0..255": (255.0, 0.0),
    "0..1": None,
    "-1..1": (2.0, -1.0),
    "imagenet": ([1 / std for std in _STD], [-mean / std for mean, std in zip(_MEAN, _STD, strict=True)]),
}
"""(scale, offset) from pixels of 0…1, which every trunk here is given."""

BYTES_OF_A_TOKEN = 8
"""Of a text that is read, for each token that is seen: tokens of English words have five with their blank."""

ASK_SCALE = (
    "it is not known which pixels the network expects",
    "-F scale=0..255, 0..1, -1..1 or imagenet; or -F dataset=ID of labelled pictures, on which each is tried",
)


@dataclass(frozen=True)
class Reading:
    """Every way to read a file that its sender left open, one for each scale of pixels; and what was decided without being asked for."""

    candidates: list[Adopted]
    notes: list[str]


def adopt(graph: Spec, outputs: Sequence[Output], options: ImportOptions, schema: Schema | None) -> Reading:
    """`schema`: of the data set whose rows the network takes, where one was named.

    Raises:
        Invalid: with all that has to be said first, pointers as the fields of the form.
    """
    faults, notes = list[Fault](), list[str]()
    input_ = input_of(graph.given, options, schema, faults, notes, graph.tokens)
    scales = scales_of(input_, options, schema, faults)
    try:
        trunk, made, more = heads.cut(graph, outputs, _with_classes(options, outputs, schema, notes))
        notes += more
    except Invalid as invalid:
        raise Invalid([*faults, *invalid.faults]) from None
    if faults or input_ is None:
        raise Invalid(faults)
    if schema is not None and len(made) == 1 and options.target is None and schema.target is not None:
        made = [made[0].model_copy(update={"task": schema.target})]
    taken = set(trunk.layers)
    made = [head.model_copy(update={"task": _task(head.task, taken)}) for head in made]
    trunk = with_bounds(trunk, notes).model_copy(update={"kind": input_.kind})
    _check_vocabulary(trunk)
    canvas = list(graph.given[0].shape) if inputs.of(input_.kind).RESIZED and len(graph.given[0].shape) == 3 else None
    return Reading(
        [
            Adopted(
                architecture=scaled(trunk, input_, scale),
                input=input_,
                canvas=canvas if canvas != input_.shape else None,
                heads=made,
                scale=scale,
            )
            for scale in scales
        ],
        notes,
    )


def _task(name: str, taken: set[str]) -> str:
    """The name of a task whose head has no layer of a name that is taken; its layers' names are taken then."""
    name = f"own-{name[:51]}" if RESERVED.fullmatch(name) else name
    for number in count(1):
        own = name if number == 1 else f"{name[:55]}_{number}"
        layers = {own, *(f"{own}_{part}" for part in HEAD_PARTS)}
        if not layers & taken:
            break
    taken |= layers
    return own


def network(graph: Spec, outputs: Sequence[Output]) -> tuple[Spec, list[str]]:
    """A whole network as the trunk of a job's: its last dense layers are left off, and its first layer sees pixels of 0…1. With notes.

    Raises:
        Invalid: with all that is wrong with it.
    """
    faults, notes = list[Fault](), list[str]()
    options = ImportOptions(classes="none", fit="stretch")
    input_ = input_of(graph.given, options, None, faults, [], graph.tokens)
    trunk, _, _ = heads.cut(graph, outputs, options)
    if faults or input_ is None:
        raise Invalid(faults)
    return with_bounds(trunk, notes).model_copy(update={"kind": input_.kind}), notes


def input_of(
    given: Sequence[Given],
    options: ImportOptions,
    schema: Schema | None,
    faults: list[Fault],
    notes: list[str],
    tokens: WordPiece | None = None,
) -> InputSchema | None:
    """What the network is fed, None where that has faults."""
    if tokens is not None:
        return _of_texts(tokens, options, schema, faults)
    if schema is not None:
        return _of_dataset(given, schema.input, options, faults)
    if len(given) > 1:
        parts = {one.name: _of_shape(one, options, faults, notes) for one in given}
        numbers = sum(prod(part.shape) for part in parts.values())
        return InputSchema(kind="multimodal", shape=[numbers], parts=parts)
    return _of_shape(given[0], options, faults, notes)


def _of_texts(
    tokens: WordPiece, options: ImportOptions, schema: Schema | None, faults: list[Fault]
) -> InputSchema | None:
    """Texts, of which the network is given ids; as long as those of a data set, else so many bytes that few are cut by them first."""
    faults += [
        Fault("/" + field, "the network takes texts", "leave it out", "not_applicable")
        for field in ("rate", "columns", "size")
        if getattr(options, field)
    ]
    if schema is None:
        return text.in_tokens(options.length or BYTES_OF_A_TOKEN * tokens.length, tokens)
    seen = text.in_tokens(schema.input.shape[0], tokens)
    if not inputs.fits(schema.input, seen):
        message = f"the network takes texts, the data set has {inputs.in_words(schema.input)}"
        faults.append(Fault("/dataset", message, "name a data set of texts, or leave it out", "input_mismatch"))
        return None
    return seen


def _of_dataset(
    given: Sequence[Given], input_: InputSchema, options: ImportOptions, faults: list[Fault]
) -> InputSchema | None:
    """The data set's own inputs, if the network can be given them."""
    if options.rate is not None and input_.rate not in (None, options.rate):
        message = f"the network hears {options.rate} samples a second, the data set has {input_.rate}"
        faults.append(Fault("/dataset", message, f"make the data set with -F rate={options.rate}", "input_mismatch"))
        return None
    seen, wanted = inputs.prepared_shape(input_), [list(one.shape) for one in given]
    if inputs.of(input_.kind).RESIZED and len(given) == 1 and len(given[0].shape) == 3:
        fits = given[0].shape[-1] == seen[-1] or (seen[-1], given[0].shape[-1]) == (1, 3)
    else:
        fits = prod(seen) == sum(prod(shape) for shape in wanted)
        if len(given) > 1:
            fits = fits and {one.name: list(one.shape) for one in given} == {
                name: list(inputs.prepared_shape(part)) for name, part in input_.parts.items()
            }
    if fits and list(input_.shape) != list(seen):
        message = "the data set's columns are prepared first (categories, gaps, dates), and the network was not trained on that"
        faults.append(
            Fault(
                "/dataset", message, "use a data set of plain numbers, as the network was trained on", "input_mismatch"
            )
        )
        return None
    if not fits:
        named = ", ".join(f"{one.name} {one.shape}" for one in given)
        message = f"the network is given {named}, the rows of the data set are {seen}"
        parts = f", its parts {', '.join(input_.parts)}" if input_.parts else ""
        faults.append(
            Fault("/dataset", message + parts, "name a data set of such rows, or leave it out", "input_mismatch")
        )
        return None
    return input_


def _of_shape(given: Given, options: ImportOptions, faults: list[Fault], notes: list[str]) -> InputSchema:
    """What an input is taken for, by its shape."""
    shape = list(given.shape)
    if options.rate is not None:
        return _of_sound(given, options.rate, faults)
    if len(shape) == 1:
        names = options.columns or [f"x{number}" for number in range(shape[0])]
        if len(names) != shape[0]:
            message = f"{len(names)} columns were named, the input {given.name} has {shape[0]} numbers"
            faults.append(Fault("/columns", message, "name all of them, in order", "wrong_length"))
        elif not options.columns:
            notes.append(f"{given.name}: a row of {shape[0]} numbers, named x0 and on; `columns` names them")
        return InputSchema(kind="table", shape=shape, features=[Feature(column=name) for name in names[: shape[0]]])
    if options.columns:
        faults.append(Fault("/columns", "the network takes no table", "leave it out", "not_applicable"))
    if len(shape) == 2:
        notes.append(f"{given.name}: an array of {shape[0]}x{shape[1]} numbers, kept as a picture of one channel")
        return InputSchema(kind="image", shape=[*shape, 1])
    if len(shape) != 3:
        message = f"the input {given.name} has the shape {shape}: rows of one to three dimensions are taken"
        faults.append(Fault("/file", message, "save a model with another input", "not_available"))
        return InputSchema(kind="image", shape=[1, 1, 1])
    decoding = None
    if shape[-1] in (1, 3):
        fit = options.fit or "stretch"
        if options.fit is None:
            notes.append("files of pictures are stretched to its size; `fit` crop or pad keeps their sides' ratio")
        decoding = image.decoded(shape, fit)
    return InputSchema(kind="image", shape=shape, scale=255.0, decode=decoding)


def _of_sound(given: Given, rate: int, faults: list[Fault]) -> InputSchema:
    samples, *channels = given.shape
    if channels not in ([], [1]):
        message = f"the input {given.name} has the shape {list(given.shape)}: sounds are samples of one channel"
        faults.append(Fault("/rate", message, "leave it out", "not_applicable"))
    return audio.schema(audio.decoded(rate, samples))


def scales_of(
    input_: InputSchema | None, options: ImportOptions, schema: Schema | None, faults: list[Fault]
) -> list[Scale | None]:
    """The scales of pixels to try, in the order of preference: one where it is known."""
    pictures = input_ is not None and any(map(inputs.of_pixels, (input_, *input_.parts.values())))
    if not pictures:
        if options.scale is not None and input_ is not None:
            message = "the network takes no pictures of 0 to 255, so there is no scale to say"
            faults.append(Fault("/scale", message, "leave it out", "not_applicable"))
        return [None]
    channels = 0 if input_ is None else input_.shape[-1]
    if options.scale is not None:
        return [options.scale]
    if schema is None or schema.target is None:
        faults.append(Fault("/scale", *ASK_SCALE, "missing"))
        return [None]
    return [scale for scale in SCALES if scale != "imagenet" or channels == 3]


def _with_classes(
    options: ImportOptions, outputs: Sequence[Output], schema: Schema | None, notes: list[str]
) -> ImportOptions:
    """The options; where no classes are named, those of the data set's target, in its order."""
    target = None if schema is None or schema.target is None else schema.columns[schema.target]
    if options.classes is not None or target is None or not target.classes or len(outputs) != 1:
        return options
    notes.append(
        f"no `classes` were given: those of the data set's {target.name}, in its order, {', '.join(target.classes[:8])}"
    )
    return options.model_copy(update={"classes": list(target.classes)})


def with_bounds(trunk: Spec, notes: list[str]) -> Spec:
    """The trunk with the largest id that its embeddings know, for each input of ids."""
    most = dict[str, int]()
    for call in trunk.calls:
        layer = trunk.layers[call.layer]
        if layer.kind == "Embedding":
            for name in heads.tensors(call.args):
                most[name] = min(most.get(name, layer.config["input_dim"]), layer.config["input_dim"])
    notes += [
        f"{given.name}: whole numbers from 0 to {most[given.name] - 1}; others are taken for the nearest of these"
        for given in trunk.given
        if given.integers and given.name in most
    ]
    given_ = [
        given.model_copy(update={"largest": most[given.name] - 1}) if given.integers and given.name in most else given
        for given in trunk.given
    ]
    return trunk.model_copy(update={"given": given_})


def _check_vocabulary(trunk: Spec) -> None:
    """Raises Invalid: the vocabulary has more tokens than the network, or fewer."""
    known = trunk.given[0].largest
    if trunk.tokens is not None and known is not None and trunk.tokens.vocabulary != known + 1:
        message = f"the vocabulary has {trunk.tokens.vocabulary} tokens, the network knows {known + 1}"
        raise Invalid([Fault("/file", message, "send the vocabulary that the network was trained with", "vocabulary")])


def scaled(trunk: Spec, input_: InputSchema, scale: Scale | None) -> Spec:
    """The trunk on pixels of 0…1: what its first layer expects is made of them."""
    rescaling = None if scale is None else _RESCALINGS[scale]
    if rescaling is None:
        return trunk
    pictures = [given.name for given in trunk.given if inputs.of_pixels(input_.parts.get(given.name, input_))]
    layers, first = dict(trunk.layers), list[Call]()
    renamed = dict[str, str]()
    for name in pictures:
        own = renamed[name] = trunk.free_name(f"{name}_pixels")
        layers[own] = StockLayer(kind="Rescaling", config={"scale": rescaling[0], "offset": rescaling[1]})
        first.append(Call(name=own, layer=own, args=[{"tensor": name}]))
    calls = [
        call.model_copy(update={"args": _put(call.args, renamed), "kwargs": _put(call.kwargs, renamed)})
        for call in trunk.calls
    ]
    features = renamed.get(trunk.features, trunk.features)
    return trunk.model_copy(update={"layers": layers, "calls": [*first, *calls], "features": features})


def _put(value: Any, renamed: Mapping[str, str]) -> Any:
    """Arguments with other names of tensors."""
    if isinstance(value, dict):
        if isinstance(value.get("tensor"), str):
            return {**value, "tensor": renamed.get(value["tensor"], value["tensor"])}
        return {key: _put(inner, renamed) for key, inner in value.items()}
    return [_put(inner, renamed) for inner in value] if isinstance(value, list) else value

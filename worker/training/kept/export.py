"""A finished network as files: an inference `.keras` of stock layers, its manifest, and the hashes of the rows that trained it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from app import durable
from app.data import file_rows, tokens
from app.data.inputs import came_as_file
from app.spec import architectures, tasks
from app.spec.base import plain
from app.spec.data import InputSchema
from app.spec.faults import validate
from app.spec.models import FEATURES, Manifest
from app.spec.registry import modules
from worker.training.data import inputs as input_kinds
from worker.training.kept import golden as golden_rows
from worker.training.kept.golden import Golden
from worker.training.networks import build, opened
from worker.training.networks.network import Network
from worker.training.process.failures import Failure
from worker.training.tasks import heads

LOADING = (
    'model = keras.saving.load_model("{file}")\n'
    "answers = model.predict(rows)  # rows: float32, or as they are stored, of shape (n, {shape})\n"
    "# {tasks}"
    "\n# five made rows, and what the trained network answered to them:"
    "\n# import zipfile; import numpy as np"
    '\n# golden = np.load(zipfile.ZipFile("{file}").open("golden.npz"))'
    '\n# np.abs(model.predict({golden})["{first}"] - golden["answers/{first}"]).max()'
)

MOST_STEPS = 256
"""Of a loop that is written out: each step is a copy of its cell."""

PREPROCESS = "preprocess.py"
"""The file beside a model that turns a user's files into rows, as the service does: a module of ours as it is."""


def inference_model(network: Network, *, constants: bool = False) -> Any:
    """Raw inputs to {task: answers}: preprocessing, trunk, `<task>_logits`, and the output layer `<task>`; stock layers only.

    `constants`: for other programs: preprocessing as numbers within the graph, since Normalization's become further inputs of an ONNX
    file; nothing random, whatever a caller says of `training`; and loops over time step by step, since LiteRT has no lists of tensors.
    """
    keras_layers = build.keras_layers(network)
    for layer in keras_layers.layers.values() if constants else ():
        build.set_inert(layer, True)
        for part in opened.inner(layer):
            if isinstance(part, keras.layers.RNN):
                part.unroll = part.unroll or _steps(part) <= MOST_STEPS
    inputs = keras.Input(tuple(input_kinds.given_shape(network.input)), name="input", dtype="float32")
    x = input_kinds.preprocessed(inputs, network.scaling, network.input, constants=constants)
    reached = build.through(
        keras_layers.graph, keras_layers.steps, input_kinds.adapted(network.input.kind, x, network.trunk_shape)
    )
    trunk_only = not network.tasks
    outputs = {FEATURES: reached[next(iter(keras_layers.graph.features.values()))]} if trunk_only else {}
    for name, task in network.tasks.items():
        out = reached[keras_layers.graph.features[name]]
        for layer in heads.layer_names(name):
            if layer in keras_layers.layers:
                out = keras_layers.layers[layer](out)
        outputs[name] = heads.output_layer(task)(out)
    return keras.Model(inputs, outputs, name="model")


def _steps(layer: Any) -> int:
    """The length of what a recurrent layer reads."""
    return int(next(iter(layer._build_shapes_dict.values()))[1])


def write(network: Network, path: Path, golden: Golden | None = None) -> str:
    """Saves the inference model at `path`, with its golden rows and its tokenizer where it has one, whole or not at all; returns the
    file's sha256."""
    with durable.write(path) as beside:
        inference_model(network).save(beside)
        if network.scaling.tokenizer is not None:
            tokens.put_into(beside, network.scaling.tokenizer.content)
        if golden is not None:
            golden_rows.add(golden, beside)
    return file_sha256(path)


def check(path: Path, network: Network, rows: np.ndarray, expected: dict[str, np.ndarray]) -> None:
    """Checks that the saved model loads in plain Keras and answers as the trained network did, to `rows` and to its golden rows.

    Raises:
        Failure: `internal`, since no spec can be at fault: it does not.
    """
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    answers = model(network.scaling.given(rows), training=False)  # called once: tracing would cost more
    for name, task in network.tasks.items():
        answer = keras.ops.convert_to_numpy(answers[name])
        if not np.isfinite(answer).all() or heads.difference(task, answer, expected[name]) > golden_rows.TOLERANCE:
            raise Failure("internal", f"the saved model's answers for {name} differ from the trained network's")
    golden = golden_rows.read(path)
    differences = (
        []
        if golden is None
        else golden_rows.differences(golden, lambda some: model(network.scaling.given(some), training=False))
    )
    if differences:
        raise Failure("internal", f"the saved model differs from the trained network: {'; '.join(differences)}")


def manifest(
    network: Network,
    role: str,
    sha256: str,
    *,
    file: str,
    rows_file: str | None,
    dataset: dict[str, Any],
    training: dict[str, Any],
    rows_shapes: Sequence[Sequence[int]] = (),
    edges: Sequence[tuple[str, str]] = (),
) -> Manifest:
    shape = ", ".join(str(side) for side in input_kinds.given_shape(network.input))
    kinds = "; ".join(
        f"answers[{name!r}]: {tasks.of(task.type).meaning(task.classes or ())}" for name, task in network.tasks.items()
    )
    kinds = kinds or f"answers[{FEATURES!r}]: the numbers that a head would stand on"
    return Manifest(
        role=role,
        architecture=architectures.as_data(network.architecture),
        sharing=plain(network.sharing),
        input=_described(network),
        canvas=network.input_resize,
        tasks={name: task.manifest() for name, task in network.tasks.items()},
        heads=dict(network.heads),
        layers=list(network.weights),
        parameters=network.parameters,
        sha256=sha256,
        versions={"bequest": _version("bequest"), "keras": keras.__version__, "backend": keras.backend.backend()},
        dataset=dataset,
        training=training,
        rows_file=rows_file,
        rows_shapes=[list(shape) for shape in rows_shapes],
        edges=[{"relation": relation, "target": target} for relation, target in edges],
        loading=_preparing(network)
        + LOADING.format(
            file=file,
            shape=shape,
            tasks=kinds,
            first=next(iter(network.tasks), FEATURES),
            golden=_golden_rows(network),
        ),
    )


def _described(network: Network) -> InputSchema:
    """What it is fed, with the tokenizer that it has."""
    tokenizer, asked = network.scaling.tokenizer, network.input.tokens
    if tokenizer is None or asked is None:
        return network.input
    return network.input.model_copy(update={"tokens": tokenizer.described(asked)})


def _preparing(network: Network) -> str:
    """How files or texts become rows, in the user's own program; empty where rows need nothing."""
    if network.input.tokens is not None:
        return tokens.example(network.input.shape[0], network.input.tokens.length)
    how = came_as_file(network.input)
    example = "" if how is None else file_rows.example(how)
    if not network.input.parts:
        return example
    example = example.replace("rows =", "file =") or "import keras\nimport numpy as np\n"
    shapes = ", ".join(f"{name} (n, {', '.join(map(str, part.shape))})" for name, part in network.input.parts.items())
    return (
        f"{example}# each part as it is stored, see `input.parts`: {shapes}\n"
        f"parts = [{', '.join('file' if name == 'file' else '...' for name in network.input.parts)}]\n"
        "rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)\n"
    )


def _golden_rows(network: Network) -> str:
    """In Python, the golden rows as the model takes them."""
    asked = network.input.tokens
    return 'golden["rows"]' if asked is None else f'of_rows(golden["rows"], tokenizer, {asked.length})'


def write_beside(network: Network, out: Path) -> list[str]:
    """Writes what the example of `loading` needs besides the model: a module of ours, a tokenizer. Returns the files' names."""
    how, tokenizer = came_as_file(network.input), network.scaling.tokenizer
    module = Path(tokens.__file__) if tokenizer is not None else None if how is None else file_rows.module(how)
    written = []
    if module is not None:
        with durable.write(out / PREPROCESS) as beside:
            shutil.copyfile(module, beside)
        written.append(PREPROCESS)
    if tokenizer is not None:
        with durable.write(out / tokens.FILE) as beside:
            beside.write_text(tokenizer.content, encoding="utf-8")
        written.append(tokens.FILE)
    return written


def read(path: Path, manifest: Manifest) -> Network:
    """The network in a kept model.

    Raises:
        Failure: the file is not what its manifest says.
    """
    architecture = architectures.resolve(manifest.architecture)
    sharing = modules("sharing").get(manifest.sharing["name"])
    if sharing is None:
        raise Failure("weights_unavailable", f"the model {manifest.role!r} shares as no module here knows")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise Failure("weights_unavailable", f"the model {manifest.role!r} cannot be loaded") from error
    layers = {layer.name: layer for layer in model.layers if not layer.name.startswith("preprocessing")}
    names = list[str]()
    for name in manifest.layers:
        # A model that was kept while a nested network was one layer.
        nested = opened.leaves(layers[name]) if isinstance(layers.get(name), keras.Model) else {}
        layers |= {inner: layer for inner, (_, layer) in nested.items()}
        names += [inner for inner, (_, layer) in nested.items() if layer.weights] or [name]
    weights = {
        name: [keras.ops.convert_to_numpy(variable.value) for variable in layer.weights]
        for name, layer in layers.items()
        if layer.weights
    }
    missing = [name for name in names if name not in weights]
    if missing:
        raise Failure("weights_unavailable", f"the model {manifest.role!r} lacks the layers {', '.join(missing)}")
    return Network(
        architecture,
        manifest.input,
        {name: heads.of_manifest(name, task) for name, task in manifest.tasks.items()},
        {name: manifest.heads[name] for name in manifest.tasks},
        input_kinds.scaling_of(model, manifest.input, tokens.within(path)),
        {name: weights[name] for name in names},
        input_resize=manifest.canvas,
        sharing=validate(sharing.Spec, manifest.sharing),
    )


def write_manifest(manifest: Manifest, path: Path) -> None:
    with durable.write(path) as beside:
        beside.write_text(manifest.model_dump_json(indent=2))


def write_rows(hashes: np.ndarray, path: Path) -> None:
    with durable.write(path) as beside:
        np.save(beside, hashes, allow_pickle=False)


def read_rows(path: Path) -> np.ndarray:
    """(n, 16) uint8, as `write_rows` wrote them; in the file until they are looked at, for a model may stand on millions."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"

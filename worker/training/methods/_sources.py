"""Models that a method begins from or learns from, as they take the rows of the job: kept ones, and networks of keras.applications."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from app.data import inputs as input_kinds
from app.data.lists import times
from app.data.table import HASH_BYTES
from app.spec import architectures, files
from app.spec.architectures import applications
from app.spec.base import plain
from app.spec.data import InputSchema
from app.spec.lookup import Missing
from app.spec.models import Manifest
from worker.training.data import inputs
from worker.training.data.scaling import Scaling
from worker.training.kept.store import Model
from worker.training.networks import backbone
from worker.training.networks.initial import drawn
from worker.training.networks.network import Network
from worker.training.process.failures import Failure

if TYPE_CHECKING:
    from app.spec.models import Backbone
    from worker.training.data.rows import Data
    from worker.training.experiment.run import Run


def resized(network: Network, input_: InputSchema) -> Network:
    """`network` as it takes pictures of `input_`, divided by their own scale; its trunk sees what it always saw.

    The very same where nothing differs, and for tables, whose columns are always the same.
    """
    same = (network.input.shape, network.input.scale) == (input_.shape, input_.scale)
    if same or not input_kinds.of(input_.kind).RESIZED:
        return network
    scaling = inputs.training(input_.kind).fit(input_, [])
    return replace(
        network, input=input_, scaling=scaling, input_resize=inputs.between(input_.shape, network.trunk_shape)
    )


def adapted(run: Run, model: Model, data: Data) -> Model:
    """A kept model as it takes the rows of `data`. Warnings say where its trunk sees pictures of another shape, and where the rows
    behind the model cannot be compared with the test rows: a picture has another hash at another size."""
    own = data.table.schema.input
    network = resized(model.network, own)
    if network.input_resize is not None:
        message = f"{model.id} sees {times(network.trunk_shape)}, {data.ref} has {times(own.shape)}"
        run.warn("input_adapted", f"{message}: {inputs.sentence(own.kind, own.shape, network.trunk_shape)}")
    if model.shapes and input_kinds.part_like(own, network.input):
        run.borrowed.overlap_unknown = True
        message = f"{model.id} saw one part of each row: whether it was that of a test row of {data.ref} cannot be told"
        run.warn("overlap_unknown", message)
    elif any(shape != own.shape for shape in model.shapes):
        run.borrowed.overlap_unknown = True
        message = f"rows of another shape than those of {data.ref} are behind {model.id}"
        run.warn("overlap_unknown", f"{message}: whether a test row is among them cannot be told")
    return replace(model, network=network)


def of_backbone(run: Run, spec: Backbone, seed: int) -> Model:
    """A backbone as a model to inherit from: a trunk without heads. Its rows are not known, but for random numbers there are none.

    Raises:
        Failure: `weights_unavailable`: the file is not there, has changed, or is not of this network.
    """
    architecture = architectures.resolve(spec.architecture)
    assert isinstance(architecture, applications.Spec)
    assert architecture.size is not None, "a resolved spec has a size"
    whole, layers = backbone.layers(architecture)
    size, sha256 = 0, ""
    if spec.weights == "none":
        weights = {name: drawn(layer, seed, drawn_as) for name, (drawn_as, layer) in layers.items()}
    else:
        name = weights_file(spec, architecture)
        try:
            path, sha256 = files.find(name, spec.sha256)
        except Missing as missing:
            raise Failure(
                "weights_unavailable", f"{name}: {missing.message}", missing.hint, "/source/weights"
            ) from None
        backbone.load(whole, str(path), spec)
        weights = {
            name: [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in layer.weights]
            for name, (_, layer) in layers.items()
        }
        size = path.stat().st_size
        run.borrowed.overlap_unknown = True
        run.warn(
            "overlap_unknown", f"the rows that trained {name} are not known: overlap with the test rows is unknown"
        )
    input_ = InputSchema(kind="image", shape=[*architecture.size, 3], scale=255.0)
    network = Network(architecture, input_, {}, {}, Scaling((0.0,), (255.0,)), weights)
    manifest = Manifest(
        role="source",
        architecture=architectures.as_data(architecture),
        input=input_,
        tasks={},
        layers=list(weights),
        parameters=network.parameters,
        sha256=sha256,
        versions={"keras": keras.__version__},
        training={"steps": 0},
    )
    rows = np.zeros((0, HASH_BYTES), np.uint8) if spec.weights == "none" else None
    return Model(f"{applications.PREFIX}{spec.applications}", network, manifest, rows, size)


def weights_file(spec: Backbone, architecture: applications.Spec) -> str:
    return applications.imagenet_file(architecture) if spec.weights == "imagenet" else spec.weights


def about(spec: Any) -> dict[str, Any] | None:
    """The report's entry for a source that is a backbone; None for another source."""
    return plain(spec) if hasattr(spec, "applications") else None

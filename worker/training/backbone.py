"""Networks of keras.applications as one layer of a trunk, and the numbers to start one from. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from app.data.table import HASH_BYTES
from app.spec import architectures, files
from app.spec.architectures import applications
from app.spec.base import plain
from app.spec.data import InputSchema
from app.spec.models import Manifest
from app.spec.world import Missing
from worker.training.failures import Failure
from worker.training.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.models import Backbone
    from worker.training.keeping import Model
    from worker.training.run import Run


def made(options: Mapping[str, Any], name: str, dtype: Any) -> Any:
    """The layer: pixels as its own preprocessing leaves them, (batch, *size, 3), to features averaged over all places.

    Keras builds an application in the policy that holds everywhere, so it is set meanwhile.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        own: dict[str, Any] = {"alpha": options["alpha"]} if options["name"] == "MobileNetV2" else {}
        own |= {"include_preprocessing": False} if options["name"].startswith("EfficientNetV2") else {}
        shape = (*(options["size"] or (None, None)), 3)
        whole = getattr(keras.applications, options["name"])(
            include_top=False, weights=None, input_shape=shape, pooling="avg", **own
        )
    finally:
        keras.config.set_dtype_policy(before)
    return keras.Model(whole.inputs, whole.outputs[0], name=name)  # not all of them take a name


def parts(name: str, layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers of which a layer is made, itself where it is one; each with a name that is the same in every process.

    Numbered, since in an application some layers are named by a counter of the process.
    """
    if not isinstance(layer, keras.Model):
        yield name, layer
        return
    for number, one in enumerate(layer.layers):
        yield from parts(f"{name}/{number}", one)


def source(run: Run, words: Backbone, seed: int) -> Model:
    """A backbone as a model to inherit from: a trunk without heads. Its rows are not known, but for random numbers there are none.

    Raises:
        Failure: `weights_unavailable`: the file is not there, has changed, or is not of this network.
    """
    from worker.training import build
    from worker.training.keeping import Model

    architecture = architectures.resolve(words.architecture)
    assert isinstance(architecture, applications.Spec)
    assert architecture.size is not None, "a resolved spec has a size"
    (layer,) = (one for one in architecture.layers() if one.kind == "application")
    live = made(layer.options, layer.name, keras.dtype_policies.get("float32"))
    weights = build.drawn({layer.name: live}, seed)
    size, sha256 = 0, ""
    if words.weights != "none":
        name = weights_file(words, architecture)
        try:
            path, sha256 = files.find(name, words.sha256)
        except Missing as missing:
            raise Failure(
                "weights_unavailable", f"{name}: {missing.message}", missing.hint, "/source/weights"
            ) from None
        weights[layer.name], size = _loaded(live, str(path), words), path.stat().st_size
        run.overlap_unknown = True
        run.warn(
            "overlap_unknown", f"the rows that trained {name} are not known: overlap with the test rows is unknown"
        )
    input_ = InputSchema(kind="image", shape=[*architecture.size, 3], scale=255.0)
    network = build.Network(architecture, input_, {}, {}, Scaling((0.0,), (255.0,)), weights)
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
    rows = np.zeros((0, HASH_BYTES), np.uint8) if words.weights == "none" else None
    return Model(f"{applications.PREFIX}{words.applications}", network, manifest, rows, size)


def weights_file(words: Backbone, architecture: applications.Spec) -> str:
    return applications.imagenet_file(architecture) if words.weights == "imagenet" else words.weights


def about(words: Any) -> dict[str, Any] | None:
    """What the report says of a source that is a backbone."""
    return plain(words) if hasattr(words, "applications") else None


def _loaded(live: Any, path: str, words: Backbone) -> list[np.ndarray]:
    """The numbers of a Keras file of weights, `.weights.h5` or the older `.h5`: read layer by layer, counts and shapes compared."""
    expected = f"weights of {words.applications} without its top"
    if words.alpha != 1:
        expected += f" at width {words.alpha:g}"
    try:
        live.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        message = f"the file holds no {expected}: layers or shapes differ, or it is no Keras file of weights"
        raise Failure(
            "weights_unavailable", message, "give the file that ends in no_top.h5", "/source/weights"
        ) from error
    found = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in live.weights]
    if not all(np.isfinite(array).all() for array in found):
        raise Failure("weights_unavailable", "the file holds numbers that are not finite", param="/source/weights")
    return found

"""A transfer's source that is a network of keras.applications, resolved: its size, its file, its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.spec import architectures, files
from app.spec.architectures import applications
from app.spec.data import InputSchema
from app.spec.faults import Invalid, nearest
from app.spec.lookup import Missing
from app.spec.models import Backbone
from worker.training.methods._resolve import MISMATCH, Faults, ModelFacts

if TYPE_CHECKING:
    from app.spec.models import TrainedHere


def written_out(source: str | TrainedHere | Backbone, at: str, faults: Faults) -> str | TrainedHere | Backbone | None:
    """`applications:NAME` as {"applications": NAME}; None where there is no such network."""
    if not isinstance(source, str) or not source.startswith(applications.PREFIX):
        return source
    name = source.removeprefix(applications.PREFIX)
    networks = {network: network for network in applications.NAMES}
    if name not in networks:
        hint = nearest(name, networks, "networks")
        faults.add(at, "there is no such network of keras.applications here", hint, "unknown_name")
        return None
    return Backbone(applications=networks[name])


def resolved(spec: Backbone, fed: InputSchema | None, at: str, faults: Faults) -> tuple[Backbone, ModelFacts | None]:
    """`spec` with its size and, but for random numbers, the sha256 of its file; and the model's facts, None where it has faults."""
    before = len(faults.gathered)
    if fed is not None and fed.kind != applications.Spec.inputs:
        message = f"{spec.applications} takes pictures, the data set is a {fed.kind}"
        faults.add(at, message, "use another source", MISMATCH)
        return spec, None
    try:
        architecture = architectures.resolve(spec.architecture, at)
        architecture = architecture.fitted((1, 1, 3) if fed is None else tuple(fed.shape))
    except Invalid as invalid:
        faults.gathered += invalid.faults
        return spec, None
    except ValueError as error:
        faults.add(at, str(error), "use a data set of grey or coloured pictures", MISMATCH)
        return spec, None
    assert isinstance(architecture, applications.Spec)
    assert architecture.size is not None
    spec = spec.model_copy(update={"size": architecture.size})
    if spec.weights == "none":
        if spec.sha256 is not None:
            faults.add(f"{at}/sha256", "random numbers come from no file", "leave it out")
    else:
        spec = _with_file(spec, architecture, at, faults)
    trunk_input = InputSchema(kind="image", shape=[*architecture.size, 3], scale=255.0)
    facts = ModelFacts(architecture, {}, trunk_input, {}, faults.traced(architecture, trunk_input))
    return spec, facts if len(faults.gathered) == before else None


def _with_file(spec: Backbone, architecture: applications.Spec, at: str, faults: Faults) -> Backbone:
    imagenet = spec.weights == "imagenet"
    name = applications.imagenet_file(architecture) if imagenet else spec.weights
    try:
        return spec.model_copy(update={"sha256": files.find(name, spec.sha256)[1]})
    except Missing as missing:
        own = "nothing is downloaded here: " if imagenet else ""
        hint = "give `weights` the name of a .h5 file in a folder of BEQUEST_FILE_ROOTS, or set it to none for random numbers"
        hint = f"put {name} into a folder of BEQUEST_FILE_ROOTS; or {hint}" if imagenet else f"{missing.hint}; {hint}"
        faults.add(f"{at}/weights", f"{own}{missing.message}", hint, "weights_unavailable")
        return spec

"""The data sets and models behind a spec's references, for resolving the spec and for a trainer's assignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from app import artifacts, data, datasets, methods, models, traces
from app.data.table import Hashes
from app.errors import Conflict
from app.spec.architectures import Architecture
from app.spec.base import FREE_WORDS, JobSpec
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid, pointer
from app.spec.lookup import Missing
from app.spec.models import UNFINISHED, Manifest
from app.spec.trace import Trace
from app.tables import Job, Model


class DatabaseLookup:
    """The lookup in the database, against which methods resolve their specs."""

    def __init__(self, session: Session):
        self._session = session
        # A spec may name one data set a hundred times, and a schema may be megabytes.
        self._schemas: dict[str, Schema] = {}
        self._manifests: dict[str, Manifest] = {}

    def schema(self, ref: str) -> Schema:
        if ref not in self._schemas:
            self._schemas[ref] = datasets.schema(self._session, ref)
        return self._schemas[ref]

    def manifest(self, ref: str) -> Manifest:
        if ref not in self._manifests:
            self._manifests[ref] = self._manifest(ref)
        return self._manifests[ref]

    def trace(self, architecture: Architecture, shape: Sequence[int]) -> Trace:
        return traces.find(self._session, architecture, shape)

    def _manifest(self, ref: str) -> Manifest:
        model = models.find(self._session, ref)
        job = self._session.get(Job, model.job_id) if model.role == UNFINISHED else None
        if job is not None and job.finished_at is None:
            raise Missing(
                ref, "this unfinished model is replaced when its job goes on", "wait until that job has ended"
            )
        return models.manifest(model)


def resolve(session: Session, body: object) -> JobSpec:
    """The resolved spec of a body.

    Raises:
        Untraced: a network in it was never looked at before.
        Invalid: with every fault; a split that leaves a class or a task without rows is one, `data_overlap` another: a named model
            was trained on rows that this job tests on.
        Conflict: a model or a data set was deleted after it had been looked at. Those that are there stay, until the transaction ends.
    """
    spec = methods.check(body, DatabaseLookup(session))
    try:
        inherited = {ref: models.find(session, ref) for ref in sorted(methods.inputs(spec).models)}
        models.hold(session, {model.id for model in inherited.values()})
        tested = methods.test_hashes(spec, lambda ref: datasets.entry(session, ref))
    except Missing as gone:
        raise Conflict(f"{gone.ref} was deleted just now.") from None
    faults = _overlaps(inherited, tested, body)
    if faults:
        raise Invalid(faults)
    return _pinned(spec, {ref: model.id for ref, model in inherited.items()})


def named_datasets(session: Session, spec: JobSpec) -> list[dict[str, Any]]:
    """[{ref, id, sha256}] of every data set that a resolved spec uses."""
    entries = ((ref, datasets.entry(session, ref)) for ref in sorted(methods.inputs(spec).datasets))
    return [{"ref": ref, "id": entry.get("id", ref), "sha256": entry["sha256"]} for ref, entry in entries]


def assignment(session: Session, job: Job) -> dict[str, Any]:
    """The trainer's input: JSON types and absolute paths, no address of any server.

    Raises:
        spec.lookup.Missing: something that the job needs has been deleted since.
    """
    spec = methods.restore(job.resolved_spec)
    needed = methods.inputs(spec)
    return {
        "id": job.id,
        "attempt": job.attempt,
        "kind": job.kind,
        "spec": job.resolved_spec,
        "datasets": {ref: datasets.entry(session, ref) for ref in sorted(needed.datasets)},
        "models": {ref: _model(models.find(session, ref)) for ref in sorted(needed.models)},
        "kept": {
            model.role: _model(model)
            for model in models.of_job(session, job.id)
            if model.role != UNFINISHED  # the stage goes on from its checkpoint
        },
    }


def _model(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "path": str(artifacts.model_file(model.sha256)),
        "manifest": model.manifest,
        "rows": str(artifacts.blob(model.rows_sha256)) if model.rows_sha256 else None,
    }


def _pinned(spec: JobSpec, ids: dict[str, str]) -> JobSpec:
    """The spec with every reference to a model replaced by that model's id: each attempt inherits from the same one, which
    cannot be deleted meanwhile. What the client wrote stays in `spec`."""
    free = {name: getattr(spec, name) for name in FREE_WORDS}
    pinned: JobSpec = _replaced(spec, ids)
    return pinned.model_copy(update=free)


def _replaced(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, BaseModel):
        changed = {name: new for name, inner in value if (new := _replaced(inner, ids)) != inner}
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, dict):
        return {key: _replaced(inner, ids) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, ids) for inner in value]
    return ids.get(value, value) if isinstance(value, str) else value


def _overlaps(inherited: dict[str, Model], tested: Hashes, body: object) -> list[Fault]:
    """A fault wherever the body names a model whose recorded training rows meet this job's test rows: the model would be examined
    on rows that it has seen."""
    faults = []
    for ref, model in inherited.items():
        if model.rows_sha256 is None:
            continue
        seen = data.count_common(tested, artifacts.blob(model.rows_sha256))
        if seen:
            message = f"{seen} of this job's {len(tested)} test rows trained {ref} or a model that it inherits from"
            hint = (
                "give both jobs one `split` with `by: random`: a stratified one follows the first target, "
                "so jobs on other columns test other rows"
            )
            faults += [Fault(place, message, hint, "data_overlap") for place in _places(body, ref)]
    return faults


def _places(node: object, ref: str, at: str = "") -> list[str]:
    """Pointers to every place at which a body names `ref`."""
    if node == ref:
        return [at]
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [
        place for key, value in inner if at or key not in FREE_WORDS for place in _places(value, ref, at + pointer(key))
    ]

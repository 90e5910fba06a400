"""Kept Keras models.

Every finished stage of a job is one, with a manifest, and edges that say what it inherits from.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import Any

from sqlalchemy import Cast, Text, cast, false, func, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH
from sqlalchemy.orm import Session

from app import artifacts, ids
from app.artifacts import Stored
from app.db import after_commit, stream
from app.errors import Conflict, NotFound
from app.pretrained.table import how_to_add
from app.spec.base import FREE_WORDS
from app.spec.lookup import Missing
from app.spec.models import UNFINISHED, Manifest
from app.tables import Artifact, Edge, Job, Model

JOBS_OWN = "model"
"""The role of the model that a job was submitted for."""

IMPORTED = "imported"
"""The role of a model that was sent as a file."""


def keep(
    session: Session,
    job: Job,
    attempt: int,
    role: str,
    stored: Stored,
    rows: Stored | None,
    manifest: Manifest,
    edges: Sequence[tuple[str, str]],
) -> Model:
    """Records a model whose file is in the store. The caller holds the fence of `attempt`. A role that is kept already
    stays as it is, but an unfinished model goes with the next one, and is not kept at all once the job has its own.

    `edges` are (relation, target): a target that is a role of this job becomes that model's id.
    """
    kept_already = {kept.role: kept for kept in of_job(session, job.id)}
    existing = kept_already.get(JOBS_OWN if role == UNFINISHED else role)
    if existing is not None:
        return existing
    name = (job.name or job.id) if role == JOBS_OWN else f"{job.name or job.id}/{role}"
    _lock_name(session, name)
    if UNFINISHED in kept_already:
        forget(session, [kept_already[UNFINISHED]], _unfinished_files(session, job.id))
    model = _recorded(session, name, stored, rows, manifest, role=role, job_id=job.id, attempt=attempt)
    own = {kept.role: kept.id for kept in of_job(session, job.id)}
    session.add_all(
        Edge(model_id=model.id, relation=relation, target=own.get(target, target))
        for relation, target in dict.fromkeys(edges)
    )
    session.flush()
    return model


def add(session: Session, name: str, stored: Stored, manifest: Manifest) -> tuple[Model, bool]:
    """Records a model that was sent as a file and whose own file is in the store: the next version of its name.

    Returns:
        The model, and whether it is new: of two that send the same at once the second gets the first one's.
    """
    assert manifest.origin is not None
    _lock_name(session, name)
    existing = of_file(session, manifest.origin.sha256, name, manifest.origin.options)
    if existing is not None:
        return existing, False
    return _recorded(session, name, stored, None, manifest, role=IMPORTED, job_id=None, attempt=None), True


def of_file(session: Session, sha256: str, name: str, options: dict[str, Any]) -> Model | None:
    """The model that the same bytes, name and options made before."""
    query = select(Model).where(
        Model.job_id.is_(None), Model.name == name, Model.manifest["origin"]["sha256"].as_string() == sha256
    )
    models = session.scalars(query.order_by(Model.version.desc())).all()
    return next((model for model in models if model.manifest["origin"]["options"] == options), None)


def delete(session: Session, ref: str) -> None:
    """Forgets a model that was sent as a file, bytes and all.

    Raises:
        NotFound: there is none.
        Conflict: it is a job's, or a job or a model still rests on it; the detail names them.
    """
    model = get(session, ref)
    if model.job_id is not None:
        raise Conflict(f"This model is of {model.job_id} and goes with it: DELETE /v1/jobs/{model.job_id}.")
    if session.scalars(select(Model.id).where(Model.id == model.id).with_for_update()).one_or_none() is None:
        raise NotFound("This model was deleted just now.")
    heirs = _heirs(session, [model.id], None)
    if heirs:
        raise Conflict(f"Still needed by {', '.join(heirs[:20])}. Delete those first.")
    forget(session, [model], [])


def outcome(session: Session, job_id: str) -> str | None:
    """The id of a job's resulting model: its own, else its unfinished one."""
    kept = {model.role: model.id for model in of_job(session, job_id)}
    return kept.get(JOBS_OWN) or kept.get(UNFINISHED)


def forget(session: Session, models: Sequence[Model], files: Sequence[Artifact]) -> None:
    """Removes models and artifacts; their bytes go after the commit."""
    hashes = {sha256 for model in models for sha256 in (model.sha256, model.rows_sha256) if sha256}
    hashes |= {file.sha256 for file in files}
    for row in (*models, *files):
        session.delete(row)
    session.flush()
    after_commit(session, lambda: artifacts.collect(hashes))


def get(session: Session, ref: str) -> Model:
    """The model that a reference names: `mdl_…`, `job:ID`, `job:ID/ROLE`, `model:NAME`, `model:NAME@VERSION`,
    `pretrained:NAME`.

    Raises:
        NotFound: there is none; the detail says whether the job exists and has not got that far.
    """
    try:
        return find(session, ref)
    except Missing as missing:
        raise NotFound(f"{missing.message[:1].upper()}{missing.message[1:]}. {missing.hint or ''}".strip()) from None


def find(session: Session, ref: str) -> Model:
    """As `get`, for specs: raises Missing."""
    prefix, _, rest = ref.partition(":")
    if prefix == "job":
        return _of_job(session, ref, *rest.partition("/")[::2])
    query = select(Model)
    if prefix == "model":
        name, _, version = rest.partition("@")
        query = query.where(Model.name == name).order_by(Model.version.desc()).limit(1)
        if version:
            query = query.where(Model.version == int(version) if version.isdecimal() and len(version) < 10 else false())
    elif prefix == "pretrained":
        query = query.where(Model.name == ref, Model.job_id.is_(None)).order_by(Model.version.desc()).limit(1)
    else:
        query = query.where(Model.id == ref)
    model = session.scalars(query).one_or_none()
    if model is None and prefix == "pretrained":
        raise Missing(ref, *how_to_add(rest))
    if model is None:
        raise Missing(
            ref, "there is no such model", "GET /v1/models lists those that are kept; a finished job's is job:ID"
        )
    return model


def manifest(model: Model) -> Manifest:
    return Manifest.model_validate(model.manifest)


def of_job(session: Session, job_id: str) -> Sequence[Model]:
    return session.scalars(select(Model).where(Model.job_id == job_id).order_by(Model.created_at, Model.id)).all()


def edges(session: Session, model_ids: Sequence[str]) -> Sequence[Edge]:
    return session.scalars(select(Edge).where(Edge.model_id.in_(model_ids)).order_by(Edge.relation, Edge.target)).all()


def page(
    session: Session,
    *,
    limit: int = 50,
    before: str | None = None,
    name: str | None = None,
    job_id: str | None = None,
    role: str | None = None,
) -> Generator[Model]:
    """Newest first, ids below `before`; at most `limit`. A few at a time are in memory."""
    query = select(Model).order_by(Model.id.desc()).limit(limit)
    for condition, value in (
        (Model.id < (before or ""), before),
        (Model.name == name, name),
        (Model.job_id == job_id, job_id),
        (Model.role == role, role),
    ):
        if value is not None:
            query = query.where(condition)
    return stream(session, query)


def dependents(session: Session, job_id: str) -> list[str]:
    """The heirs of this job's models: models of other jobs by edges, unfinished jobs by their specs.

    No heir is added until the transaction ends: a job that is being submitted waits.
    """
    own = session.scalars(select(Model.id).where(Model.job_id == job_id).order_by(Model.id).with_for_update()).all()
    return _heirs(session, own, job_id)


def _heirs(session: Session, own: Sequence[str], job_id: str | None) -> list[str]:
    """The heirs of the models `own`, which are locked, outside their job."""
    others = true() if job_id is None else Job.id != job_id
    waiting = session.scalars(
        select(Job.id).where(
            Job.finished_at.is_(None),
            others,
            func.jsonb_path_exists(
                _without_free_words(Job.resolved_spec), _mentions([*own, *([job_id] if job_id else [])])
            ),
        )
    ).all()
    # After those that wait: one that ends in between is seen here.
    heirs = session.scalars(
        select(Model.id)
        .join(Edge, Edge.model_id == Model.id)
        .where(Edge.target.in_(own), true() if job_id is None else Model.job_id.is_distinct_from(job_id))
    ).all()
    return sorted({*heirs, *waiting})


def hold(session: Session, model_ids: Collection[str]) -> None:
    """Until the transaction ends they cannot be deleted: a job that is being submitted will find them.

    Raises:
        Conflict: one was deleted just now.
    """
    if not model_ids:
        return
    held = select(Model.id).where(Model.id.in_(model_ids)).order_by(Model.id)
    gone = set(model_ids) - set(session.scalars(held.with_for_update(read=True, key_share=True)))
    if gone:
        raise Conflict(f"{', '.join(sorted(gone))}, which this job inherits from, was deleted just now.")


def _recorded(
    session: Session, name: str, stored: Stored, rows: Stored | None, manifest: Manifest, **whose: Any
) -> Model:
    """A new row, the next version of `name`, which is locked. `whose`: its role, job and attempt."""
    artifacts.hold(session, stored.sha256, *([rows.sha256] if rows else []))
    model = Model(
        id=ids.new("mdl"),
        name=name,
        version=_next_version(session, name),
        manifest=manifest.model_dump(mode="json"),
        sha256=stored.sha256,
        rows_sha256=rows.sha256 if rows else None,
        bytes=stored.bytes,
        **whose,
    )
    session.add(model)
    session.flush()
    return model


def _lock_name(session: Session, name: str) -> None:
    """Until the transaction ends nobody else adds a version of this name."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7))"), {"name": name})


def _next_version(session: Session, name: str) -> int:
    return session.execute(select(func.coalesce(func.max(Model.version), 0) + 1).where(Model.name == name)).scalar_one()


def _without_free_words(spec: Any) -> Any:
    return cast(spec, JSONB).op("-")(cast(list(FREE_WORDS), ARRAY(Text)))


def _mentions(names: Sequence[str]) -> Cast[Any]:
    """A JSON path that finds any string in a spec which is one of `names` or a reference to it."""
    pattern = "|".join(names)
    return cast(f'$.** ? (@.type() == "string" && @ like_regex "^(job:)?({pattern})(/|$)")', JSONPATH)


def _unfinished_files(session: Session, job_id: str) -> list[Artifact]:
    return [file for file in artifacts.of_job(session, job_id) if file.name.startswith(f"{UNFINISHED}.")]


def _of_job(session: Session, ref: str, job_id: str, role: str) -> Model:
    role = role if role not in ("", "best") else JOBS_OWN
    models = {model.role: model for model in of_job(session, job_id)}
    if role in models:
        return models[role]
    job = session.get(Job, job_id)
    if job is None:
        raise Missing(ref, "there is no such job", "GET /v1/jobs lists the jobs")
    if role == JOBS_OWN and job.finished_at and UNFINISHED in models:
        return models[UNFINISHED]
    roles = ", ".join(models) or "none"
    hint = (
        f"it keeps: {roles}"
        if job.finished_at
        else f"it is {job.state}: wait until it has succeeded; kept so far: {roles}"
    )
    raise Missing(ref, f"the job has kept no model as {role}", hint)

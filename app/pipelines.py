"""Pipelines: jobs that are submitted at once, where one may inherit from another.

A step becomes a job once the jobs of all the steps that it refers to have succeeded. After one that ended otherwise no further step
begins. A step's job and the note that it has one are one transaction, under a lock of the pipeline's row, so that a step is one job
however many processes look at it, and whichever of them dies.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app import ids, jobs, logs, submissions, traces
from app.data import builtins
from app.db import stream, transaction
from app.errors import Conflict, NotFound, Problem, refused
from app.spec.faults import Fault, Invalid, pointer, validate, written
from app.spec.pipeline import PipelineSpec, needs, references, with_jobs
from app.states import JobState
from app.tables import Job, Pipeline, Step

log = logs.get(__name__)

_SOME_JOB = "job_" + "0" * 32
"""Stands for a job that is yet to be, while the rest of a body is checked."""

_DUE = text(
    """
    SELECT id FROM pipelines AS pipeline WHERE finished_at IS NULL AND (
        NOT EXISTS (
            SELECT FROM pipeline_steps JOIN jobs ON jobs.id = job_id
            WHERE pipeline_id = pipeline.id AND jobs.finished_at IS NULL
        ) OR EXISTS (
            SELECT FROM pipeline_steps AS step
            WHERE pipeline_id = pipeline.id AND job_id IS NULL AND problem IS NULL AND NOT EXISTS (
                SELECT FROM unnest(step.needs) AS need
                LEFT JOIN pipeline_steps AS needed ON needed.pipeline_id = pipeline.id AND needed.name = need
                LEFT JOIN jobs ON jobs.id = needed.job_id
                WHERE jobs.state IS DISTINCT FROM 'succeeded'
            )
        )
    ) ORDER BY id
    """
)
"""Pipelines of which no job runs any more, or a step's turn has come. Of thousands whose jobs run none is looked at closely."""


class StepState(StrEnum):
    """Of a step that has a job, the job's; the others are a step's own."""

    WAITING = "waiting"  # for the jobs of other steps
    QUEUED = JobState.QUEUED
    RUNNING = JobState.RUNNING
    PAUSED = JobState.PAUSED
    SUCCEEDED = JobState.SUCCEEDED
    FAILED = JobState.FAILED
    CANCELLED = JobState.CANCELLED
    REFUSED = "refused"  # as a job: `problem` says why
    SKIPPED = "skipped"  # the pipeline was stopped before its turn came
    DELETED = "deleted"  # its job was


class PipelineState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class View:
    """A pipeline as it stands: its steps in the order in which they were sent, each with its state."""

    pipeline: Pipeline
    steps: Sequence[tuple[Step, StepState]]

    @property
    def state(self) -> PipelineState:
        """Its outcome, whatever becomes of its jobs later; else what they make of it now."""
        if self.pipeline.outcome is not None:
            return PipelineState(self.pipeline.outcome)
        found = {state for _, state in self.steps}
        if found & {StepState.WAITING, StepState.QUEUED, StepState.RUNNING, StepState.PAUSED}:
            return PipelineState.RUNNING
        if found == {StepState.SUCCEEDED}:
            return PipelineState.SUCCEEDED
        failed = found & {StepState.FAILED, StepState.REFUSED, StepState.DELETED}
        return PipelineState.FAILED if failed else PipelineState.CANCELLED

    @property
    def ready(self) -> list[Step]:
        """The steps whose turn has come."""
        done = {step.name for step, state in self.steps if state == StepState.SUCCEEDED}
        return [step for step, state in self.steps if state == StepState.WAITING and done.issuperset(step.needs)]


def submit(session: Session, body: object, key: str | None = None) -> tuple[View, bool]:
    """Records a pipeline, and the jobs of those steps that need no other; with a `key`, once. The pipeline, and whether it is new.

    All steps are checked as far as can be before there are the models that they refer to.

    Raises:
        Invalid: with every fault. Nothing is stored.
        Untraced: a network in it was never looked at before; nothing is stored.
        Problem: as `submissions.submit`.
    """
    digest = None if key is None else submissions.digest(body)
    if key is not None and (first := _first(session, key, digest)) is not None:
        return view(session, first), False
    spec, waits_for = check(session, body)
    pipeline = Pipeline(id=ids.new("pipe"), name=spec.name, idempotency_key=key, idempotency_hash=digest)
    if submissions.unless_a_twin(session, lambda: _add(session, pipeline)) is None:
        return submit(session, body, key)
    for position, (name, sent) in enumerate(spec.steps.items()):
        session.add(Step(pipeline_id=pipeline.id, name=name, position=position, spec=sent, needs=waits_for[name]))
    session.flush()
    for step in view(session, pipeline).ready:
        _begin(session, step, {})
    return view(session, pipeline), True


def check(session: Session, body: object) -> tuple[PipelineSpec, dict[str, list[str]]]:
    """What was sent, and the steps that each step refers to.

    Raises Invalid with every fault of every step, but for what depends on models that are yet to be; Untraced.
    """
    spec = validate(PipelineSpec, body)
    waits_for, faults = dict[str, list[str]](), list[Fault]()
    try:
        waits_for = needs(spec.steps)
    except Invalid as invalid:
        faults += invalid.faults
    for name, step in spec.steps.items():
        yet_to_be = dict(references(step))
        try:
            jobs.validate(session, with_jobs(step, dict.fromkeys(yet_to_be.values(), _SOME_JOB)))
        except Invalid as invalid:
            faults += _of_step(name, [fault for fault in invalid.faults if fault.pointer not in yet_to_be])
    if faults:
        raise Invalid(faults)
    return spec, waits_for


def get(session: Session, pipeline_id: str, lock: bool = False) -> Pipeline:
    """The pipeline; with `lock`, locked until the transaction ends. Raises NotFound."""
    pipeline = session.get(Pipeline, pipeline_id, with_for_update=lock)
    if pipeline is None:
        raise NotFound("There is no pipeline with this id. GET /v1/pipelines lists them.")
    return pipeline


def view(session: Session, pipeline: Pipeline) -> View:
    """A pipeline with its steps, as they stand now."""
    query = select(Step).where(Step.pipeline_id == pipeline.id).order_by(Step.position)
    steps = session.scalars(query).all()
    of_steps = select(Job.id, Job.state).where(Job.id.in_([step.job_id for step in steps if step.job_id]))
    states = {row.id: row.state for row in session.execute(of_steps)}
    first = [(step, _state(step, states)) for step in steps]
    ended_otherwise = {StepState.FAILED, StepState.CANCELLED, StepState.REFUSED, StepState.DELETED}
    stopped = pipeline.cancelled or any(state in ended_otherwise for _, state in first)
    return View(
        pipeline,
        [(step, StepState.SKIPPED if stopped and state == StepState.WAITING else state) for step, state in first],
    )


def page(session: Session, *, limit: int, before: str | None = None) -> Generator[Pipeline]:
    """Newest first: pipelines with ids below `before`."""
    query = select(Pipeline).order_by(Pipeline.id.desc()).limit(limit)
    return stream(session, query if before is None else query.where(Pipeline.id < before))


def cancel(session: Session, pipeline_id: str) -> tuple[View, bool]:
    """Begins no further step, and cancels the jobs of those that have not ended. Whether anything changed.

    Raises NotFound, or Conflict where it has ended otherwise.
    """
    pipeline = get(session, pipeline_id, lock=True)
    now = view(session, pipeline)
    if now.state in (PipelineState.SUCCEEDED, PipelineState.FAILED):
        raise Conflict(f"This pipeline has already {now.state}; only one that has not ended can be cancelled.")
    if pipeline.cancelled or now.state == PipelineState.CANCELLED:
        return now, False
    pipeline.cancelled = True
    for step, _ in now.steps:
        if step.job_id is not None:
            with suppress(Conflict, NotFound):  # it has ended meanwhile
                jobs.cancel(session, step.job_id)
    session.flush()
    return _settle(session, pipeline), True


def resume(session: Session, pipeline_id: str) -> tuple[View, bool]:
    """Goes on with a pipeline that was stopped: what has succeeded stays, all else is begun anew. Whether anything changed.

    Raises NotFound, or Conflict where it has succeeded or is being cancelled.
    """
    pipeline = get(session, pipeline_id, lock=True)
    now = view(session, pipeline)
    if now.state == PipelineState.SUCCEEDED:
        raise Conflict("This pipeline has already succeeded; only one that was stopped can be resumed.")
    if now.state == PipelineState.RUNNING:
        if all(state != StepState.SKIPPED for _, state in now.steps):
            return now, False
        raise Conflict("This pipeline is being stopped: resume it when the jobs of its steps have ended.")
    pipeline.cancelled, pipeline.outcome, pipeline.finished_at = False, None, None
    for step, state in now.steps:
        if state != StepState.SUCCEEDED:
            step.job_id, step.problem = None, None
    session.flush()
    return view(session, pipeline), True


def delete(session: Session, pipeline_id: str) -> None:
    """Forgets a pipeline that has ended; the jobs that it made stay. Raises NotFound, or Conflict while it runs."""
    pipeline = get(session, pipeline_id, lock=True)
    if view(session, pipeline).state == PipelineState.RUNNING:
        raise Conflict("This pipeline runs. Cancel it first: POST /v1/pipelines/ID/cancel.")
    session.delete(pipeline)


def advance() -> int:
    """Submits the steps whose turn has come. How many. What fails is logged, and tried again by the next call."""
    with transaction() as session:
        due = session.scalars(_DUE).all()
    return sum(map(_advance, due))


def _advance(pipeline_id: str) -> int:
    try:
        for _ in range(traces.MOST_OF_A_BODY):
            try:
                return _submit_ready(pipeline_id)
            except traces.Untraced as missing:
                traces.make(missing)
    except Exception as error:  # of one pipeline; the others go on
        log.warning("a pipeline waits", pipeline=pipeline_id, error=type(error).__name__, exc_info=error)
    return 0


def _submit_ready(pipeline_id: str) -> int:
    with transaction() as session:
        pipeline = session.get(Pipeline, pipeline_id)
        specs = [] if pipeline is None else [step.spec for step in view(session, pipeline).ready]
    builtins.make(specs)  # may take seconds, and so never within a transaction
    with transaction() as session:
        locked = select(Pipeline).where(Pipeline.id == pipeline_id, Pipeline.finished_at.is_(None))
        pipeline = session.scalars(locked.with_for_update(skip_locked=True)).one_or_none()
        if pipeline is None:  # it has ended, or another process looks after it
            return 0
        now = view(session, pipeline)
        jobs_of = {step.name: step.job_id for step, _ in now.steps if step.job_id is not None}
        begun = 0
        for step in now.ready:
            try:
                with session.begin_nested():
                    _begin(session, step, jobs_of)
                begun += 1
            except Problem as problem:
                if problem.code == "queue_full":
                    break
                step.problem = _kept(problem)
        session.flush()
        _settle(session, pipeline)
        return begun


def _begin(session: Session, step: Step, jobs_of: Mapping[str, str]) -> None:
    """Raises Problem: it is refused, or as many jobs wait as may; Untraced."""
    try:
        job, _ = submissions.submit(session, with_jobs(step.spec, jobs_of))
    except Invalid as invalid:
        raise refused(_of_step(step.name, invalid.faults)) from None
    job.parent = step.pipeline_id
    step.job_id = job.id
    session.flush()


def _settle(session: Session, pipeline: Pipeline) -> View:
    """The pipeline as it stands; finished, where nothing of it will change any more."""
    now = view(session, pipeline)
    if now.state != PipelineState.RUNNING and pipeline.finished_at is None:
        pipeline.outcome, pipeline.finished_at = str(now.state), func.clock_timestamp()
        session.flush()
        session.refresh(pipeline)
    return now


def _state(step: Step, states: Mapping[str, str]) -> StepState:
    if step.problem is not None:
        return StepState.REFUSED
    if step.job_id is None:
        return StepState.WAITING
    return StepState(states[step.job_id]) if step.job_id in states else StepState.DELETED


def _of_step(name: str, faults: Iterable[Fault]) -> list[Fault]:
    return [fault.under(pointer("steps", name)) for fault in faults]


def _add(session: Session, pipeline: Pipeline) -> Pipeline:
    session.add(pipeline)
    session.flush()
    session.refresh(pipeline)
    return pipeline


def _first(session: Session, key: str, digest: str | None) -> Pipeline | None:
    pipeline = session.scalars(select(Pipeline).where(Pipeline.idempotency_key == key)).one_or_none()
    if pipeline is not None and pipeline.idempotency_hash != digest:
        raise submissions.reused(pipeline.id)
    return pipeline


def _kept(problem: Problem) -> dict[str, Any]:
    return {"code": problem.code, "detail": problem.detail, "errors": written(problem.errors)}

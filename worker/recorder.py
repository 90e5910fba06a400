"""A trainer's reports become rows: metrics, events, kept models, artifacts. Every write names the attempt and may be refused.

Files are copied into the store before the transaction that names them. Reports wait here while the database is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice, takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from app import artifacts, jobs, metrics, models
from app.artifacts import Stored
from app.db import Session, transaction
from app.jobs import Claim
from app.spec.models import Manifest
from app.tables import Event, Job
from worker import reports

_BATCH = 2000
_MOST_ROWS = 10_000
_LONGEST_LOG = 16 * 2**20


class BadFile(Exception):
    """A report names a file that is not there, lies elsewhere, or is not what it should be."""


@dataclass(frozen=True)
class StoredModel:
    """A model whose files are in the store and wait for their rows. `files` are its artifacts by name."""

    role: str
    stored: Stored
    rows: Stored | None
    manifest: Manifest
    edges: Sequence[tuple[str, str]]
    files: dict[str, Stored]


@dataclass
class Recorder:
    """One attempt's reports, in their order, on their way to the database."""

    claim: Claim
    out: Path
    stage: str | None = None
    result: reports.Result | None = None
    failed: reports.Failed | None = None
    _sources: list[Path] = field(default_factory=list)
    _files: dict[str, Stored] = field(default_factory=dict)
    _waiting: deque[Any] = field(default_factory=deque)
    _epochs: dict[str, int] = field(default_factory=dict)
    _not_finite: set[str] = field(default_factory=set)
    _rows: int = 0
    _no_metrics: bool = False
    _torn: bool = False

    def take(self, arrived: Sequence[Any]) -> bool:
        """Notes the reports that have come, and stores the files that they name; whether any should be written without delay.

        After an error nothing more is taken: a checkpoint beyond what was lost would make the next attempt begin behind a gap.

        Raises:
            BadFile: a report names a file that cannot be kept.
            OSError: the store cannot take it.
        """
        if self._torn:
            return False
        try:
            return self._take(arrived)
        except BaseException:
            self.tear()
            raise

    def tear(self) -> None:
        """Takes nothing more: some report is lost."""
        self._torn = True

    def _take(self, arrived: Sequence[Any]) -> bool:
        urgent = False
        for report in arrived:
            match report:
                case reports.Ready():
                    continue
                case reports.Result():
                    self.result = report
                    continue
                case reports.Failed():
                    self.failed = report
                    continue
                case reports.ArtifactReport():
                    self._files[report.name] = self._keep_file(report.path)
                    continue
                case reports.Kept():
                    report = self._store(report)  # noqa: PLW2901 - from here on its files are durable
                    urgent = True
                case reports.Metrics() if self._no_metrics:
                    continue
                case reports.Stage():
                    self.stage, urgent = report.name, True
                case reports.Started() | reports.Resumed() | reports.Checkpoint():
                    urgent = True
            self._waiting.append(report)
            self._rows += _rows_of(report)
        return urgent

    def pending(self) -> int:
        """How many rows wait, about."""
        return self._rows

    def refuse_metrics(self) -> None:
        """Takes no more metrics, and forgets those that wait."""
        self._no_metrics = True
        self._waiting = deque(report for report in self._waiting if not isinstance(report, reports.Metrics))
        self._rows = sum(map(_rows_of, self._waiting))

    def forget(self) -> None:
        """Gives up the waiting reports: the database refuses them."""
        self._waiting.clear()
        self._rows = 0

    def write(self) -> None:
        """Writes the waiting reports in one transaction, short enough that no heartbeat is late. On an error none is lost: they wait on.

        Raises:
            Stale: the attempt is over.
            sqlalchemy errors: the database is away.
        """
        if self._waiting:
            with transaction() as session:
                count = self.apply(session, _MOST_ROWS)
            self.written(count)

    def apply(self, session: Session, most: int | None = None) -> int:
        """Writes the waiting reports, all or about `most` rows of them, in the caller's transaction; how many `written` may forget
        after its commit."""
        batch = _first(self._waiting, most)
        job = jobs.fence(session, self.claim)
        # Copies: an epoch or a warning is told once, and again where this transaction is rolled back.
        epochs, not_finite = dict(self._epochs), set(self._not_finite)
        rows: dict[int, dict[str, float | None]] = {}
        progress = next((report for report in reversed(batch) if isinstance(report, reports.Progress)), None)
        for report in batch:
            match report:
                case reports.Metrics():
                    rows.setdefault(report.step, {}).update(report.values)
                    self._note_not_finite(session, report, not_finite)
                    if sum(map(len, rows.values())) >= _BATCH:
                        self._record(session, rows)
                case reports.Progress():
                    self._note_epoch(session, report, epochs)
                    if report is progress:
                        shown = report.model_dump(exclude={"report", "latest"})
                        jobs.note_progress(session, self.claim, shown, report.latest)
                case reports.Resumed():
                    self._record(session, rows)
                    gone = metrics.rewind(session, self.claim.job_id, report.metric_prefix, report.step)
                    if report.step or gone:  # `recorded_checkpoints` goes by it
                        jobs.note_resume(session, self.claim, report.stage, report.step)
                case reports.Started():
                    jobs.note_start(session, self.claim, report.environment)
                case reports.Stage():
                    jobs.note_stage(session, self.claim, report.name)
                case reports.Checkpoint():
                    saved = {"stage": report.stage, "step": report.step, "name": Path(report.path).name}
                    jobs.note(session, self.claim, "checkpoint", saved)
                case reports.Warned():
                    jobs.note(session, self.claim, "warning", {"code": report.code, "message": report.message})
                case StoredModel():
                    self._keep(session, job, report)
        self._record(session, rows)
        return len(batch)

    def written(self, count: int) -> None:
        """The first `count` waiting reports are durable."""
        for _ in range(count):
            first = self._waiting.popleft()
            self._rows -= _rows_of(first)
            match first:
                case reports.Progress() as report:
                    self._epochs[report.stage] = max(report.epoch or 0, self._epochs.get(report.stage, 0))
                case reports.Metrics() as report:
                    self._not_finite.update(name for name, value in report.values.items() if value is None)

    def store_again(self) -> None:
        """Puts back files that the store has lost before a row could name them."""
        for path in self._sources:
            artifacts.keep_file(path)

    def has_own_model(self, session: Session) -> bool:
        """Whether the job's own model is kept, by this attempt or an earlier one."""
        return any(model.role == models.JOBS_OWN for model in models.of_job(session, self.claim.job_id))

    def keep_files(self, session: Session) -> None:
        """The artifacts that were reported, in the caller's transaction."""
        for name, stored in self._files.items():
            artifacts.add(session, self.claim.job_id, self.claim.attempt, name, stored)

    def keep_log(self, session: Session, stored: Stored | None) -> None:
        if stored is not None:
            artifacts.add(session, self.claim.job_id, self.claim.attempt, "trainer.log", stored)

    def _keep(self, session: Session, job: Job, kept: StoredModel) -> None:
        model = models.keep(
            session, job, self.claim.attempt, kept.role, kept.stored, kept.rows, kept.manifest, kept.edges
        )
        if (model.role, model.sha256) != (kept.role, kept.stored.sha256):
            return  # there was one already, and its files are the job's
        for name, stored in kept.files.items():
            artifacts.add(session, job.id, self.claim.attempt, name, stored)
        jobs.note(session, self.claim, "model", {"role": kept.role, "model": model.id})

    def _store(self, report: reports.Kept) -> StoredModel:
        manifest_path = self._path(report.manifest)
        try:
            manifest = Manifest.model_validate_json(manifest_path.read_bytes())
        except ValidationError as error:
            raise BadFile(f"{report.manifest} is not a manifest: {error.error_count()} faults") from None
        stored = self._keep_file(report.model)
        if manifest.sha256 != stored.sha256:
            raise BadFile(f"{report.model} is not the file that {report.manifest} describes")
        rows = self._keep_file(report.rows) if report.rows else None
        edges = [(edge.relation, edge.target) for edge in report.edges]
        files = {Path(report.model).name: stored, Path(report.manifest).name: self._keep_file(report.manifest)}
        return StoredModel(report.role, stored, rows, manifest, edges, files)

    def _keep_file(self, name: str) -> Stored:
        path = self._path(name)
        self._sources.append(path)
        return artifacts.keep_file(path)

    def _path(self, name: str) -> Path:
        """A file in the output folder; a trainer that was fed hostile data may not name another."""
        path = (self.out / name).resolve()
        if not path.is_relative_to(self.out.resolve()) or not path.is_file():
            raise BadFile(f"the trainer named {Path(name).name}, which is not a file in its output folder")
        return path

    def _record(self, session: Session, rows: dict[int, dict[str, float | None]]) -> None:
        metrics.record(session, self.claim.job_id, self.claim.attempt, list(rows.items()))
        rows.clear()

    def _note_epoch(self, session: Session, report: reports.Progress, noted: dict[str, int]) -> None:
        epoch = report.epoch or 0
        if epoch > noted.get(report.stage, 0):
            noted[report.stage] = epoch
            data = {"stage": report.stage, "epoch": epoch, "epochs": report.epochs, "latest": report.latest}
            jobs.note(session, self.claim, "epoch", data)

    def _note_not_finite(self, session: Session, report: reports.Metrics, noted: set[str]) -> None:
        for name in sorted(name for name, value in report.values.items() if value is None):
            if name not in noted:
                noted.add(name)
                message = f"{name} was not finite at step {report.step}; such values are recorded as null"
                jobs.note(session, self.claim, "warning", {"code": "metric_not_finite", "message": message})


def _rows_of(report: Any) -> int:
    return len(report.values) if isinstance(report, reports.Metrics) else 1


def _first(waiting: deque[Any], most: int | None) -> list[Any]:
    if most is None:
        return list(waiting)
    ends = takewhile(lambda rows: rows < most, accumulate(map(_rows_of, waiting)))
    return list(islice(waiting, sum(1 for _ in ends) + 1))


def recorded_checkpoints(session: Session, claim: Claim) -> set[str]:
    """Names of the checkpoints that were reported while their attempt owned the job: everything before them is recorded too.

    Where a later attempt began further back, a name beyond that step counts no more until it is reported again.
    """
    query = select(Event.type, Event.data).where(Event.job_id == claim.job_id).order_by(Event.seq)
    names: dict[tuple[str, int], str] = {}
    for kind, data in session.execute(query.where(Event.type.in_(["checkpoint", "resumed"]))):
        if kind == "checkpoint":
            names[data["stage"], data["step"]] = data["name"]
        else:
            names = {at: name for at, name in names.items() if at[0] != data["stage"] or at[1] <= data["step"]}
    return set(names.values())


def stored_log(path: Path) -> Stored | None:
    """The trainer's log in the store, its end if it is very long; None where there is none or no room for it."""
    try:
        if path.stat().st_size <= _LONGEST_LOG:
            return artifacts.keep_file(path)
        with path.open("rb") as whole:
            whole.seek(-_LONGEST_LOG, 2)
            tail = whole.read()
        cut = path.with_suffix(".tail")
        cut.write_bytes(b"[the beginning was left out]\n" + tail)
        return artifacts.keep_file(cut)
    except OSError:
        return None

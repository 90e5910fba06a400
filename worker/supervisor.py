"""One job, from claim to last word. Every way in which an attempt can end is listed in `_last_word`."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import time
from collections.abc import Callable, Container
from enum import Enum
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import exc

from app import assignments, jobs
from app.artifacts import Stored
from app.db import Session, transaction
from app.errors import FAILURES
from app.jobs import Claim, Stale
from app.settings import settings
from app.spec.faults import Invalid
from app.spec.world import Missing
from app.states import JobState, is_terminal
from worker.fuse import Fuse, now
from worker.recorder import MOST_METRICS, BadFile, Recorder, recorded_checkpoints, stored_log
from worker.reports import Exit
from worker.trainers import Ended, Garbled, Trainer, Trainers

AWAY = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
"""What SQLAlchemy raises when the database cannot be reached; it may be back in a moment."""

STALL_SECONDS = 900.0
_RHYTHM = 0.1
_MOST_PENDING = 20_000
_LAST_WORD_SECONDS = 120.0
_SHORT_GRACE = 5.0

log = structlog.get_logger(__name__)


class Stop(Enum):
    """Why the supervisor ended the trainer; None where the trainer ended by itself."""

    CANCEL = "a client cancelled the job"
    DISCARD = "a client cancelled the job and wants nothing of it"
    PAUSE = "a client paused the job"
    DRAIN = "the worker was told to stop"
    TIME_LIMIT = "the job ran longer than max_seconds"
    STALLED = "the trainer was silent for too long"
    METRIC_LIMIT = "more metric rows than one job may have"
    DISK_FULL = "the store is full"
    NONSENSE = "the trainer reported what cannot be"
    LOST = "another attempt owns the job, or it has ended"
    CUT_OFF = "no beat was possible for almost the lease's time"

    def outranks(self, earlier: Stop | None) -> bool:
        """A lost job is lost, and a cancel beats what would have the job go on."""
        if self in (Stop.CANCEL, Stop.DISCARD):
            return earlier in (Stop.PAUSE, Stop.DRAIN) or (earlier is Stop.CANCEL and self is Stop.DISCARD)
        return self is Stop.LOST and earlier is not Stop.LOST


def run(claim: Claim, trainers: Trainers, draining: Callable[[], bool]) -> str:
    """Runs one attempt of a job; how it ended, in one word. Must be called from the main thread.

    `draining` turns true when the worker has been told to stop: the attempt is then checkpointed and given back.
    """
    with structlog.contextvars.bound_contextvars(job_id=claim.job_id, attempt=claim.attempt):
        log.info("attempt_started", kind=claim.kind)
        attempt = _Attempt(claim, draining)
        try:
            ending = attempt.run(trainers)
        except Stale:
            ending = "lost"
        finally:
            attempt.close()
        log.info("attempt_ended", ending=ending)
        return ending


class _Attempt:
    def __init__(self, claim: Claim, draining: Callable[[], bool]):
        self._claim, self._draining = claim, draining
        self._home = settings().jobs_dir / claim.job_id
        self._out = self._home / f"out-{claim.attempt}"
        self._recorder = Recorder(claim, self._out)
        self._trainer: Trainer | None = None
        self._fuse: Fuse | None = None
        self._stop: Stop | None = None
        self._journal: Stored | None = None
        self._claimed = now()
        self._began = time.monotonic()
        self._heard = self._wrote = self._beaten = self._began
        self._kill_at = float("inf")

    def run(self, trainers: Trainers) -> str:
        try:
            assignment = self._prepare()
        except (Missing, Invalid) as fault:
            return self._say(self._fail, _error_of(fault))
        except OSError as fault:
            return self._say(self._again, "disk_full", _error("disk_full" if _is_full(fault) else "internal"))
        self._trainer = trainer = trainers.take(assignment, self._out)
        margin = min(5.0, settings().lease_seconds / 6)
        self._fuse = Fuse(settings().lease_seconds - margin, self._claimed, trainer.kill)
        self._follow(trainer, trainers)
        self._fuse.close()
        ended = trainer.ended()
        assert ended is not None
        trainer.kill()  # whatever it started itself
        return self._last_word(ended)

    def close(self) -> None:
        if self._fuse is not None:
            self._fuse.close()
        if self._trainer is not None:
            self._trainer.close()
        shutil.rmtree(self._out, ignore_errors=True)

    # ------------------------------------------------------------ while it runs

    def _prepare(self) -> dict[str, Any]:
        journal = self._home / "trainer.log"
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        journal.touch()
        (self._out / "trainer.log").symlink_to(journal)  # one log for all attempts
        with transaction() as session:
            job = jobs.fence(session, self._claim)
            assignment = assignments.assignment(session, job)
            recorded = recorded_checkpoints(session, self._claim)
        checkpoints = checkpoint_folder(self._home, self._claim.attempt, recorded)
        places = {"checkpoints": checkpoints, "out": self._out, "cache": settings().cache_dir}
        return {**assignment, **{name: str(path) for name, path in places.items()}}

    def _follow(self, trainer: Trainer, trainers: Trainers) -> None:
        """Until the trainer has ended and all that it said was read."""
        while True:
            ended = trainer.ended()
            try:
                arrived = [] if self._is_behind() else trainer.reports(0.0 if ended else _RHYTHM)
                urgent = self._recorder.take(arrived)
            except (Garbled, BadFile) as fault:
                log.warning("nonsense", fault=str(fault))
                self._end(Stop.NONSENSE, grace=0)
                arrived, urgent = [], False
            except OSError as fault:
                log.error("cannot_store", error=fault.strerror)
                self._end(Stop.DISK_FULL if _is_full(fault) else Stop.NONSENSE, grace=0)
                arrived, urgent = [], False
            if arrived:
                self._heard = time.monotonic()
            self._beat()
            self._check_limits(trainer)
            self._write(urgent or ended is not None)
            if ended is not None and not arrived and not self._is_behind():
                return
            if self._recorder.stage is not None and self._stop is None:
                trainers.warm()  # the next job's, while this one trains

    def _is_behind(self) -> bool:
        """Whether so much waits for a database that is away that the trainer must wait too: nothing more is read of it."""
        if self._recorder.pending() < _MOST_PENDING or self._stop in (Stop.LOST, Stop.CUT_OFF):
            return False
        time.sleep(_RHYTHM)
        return True

    def _beat(self) -> None:
        if time.monotonic() < self._beaten + settings().beat_seconds or self._stop in (Stop.LOST, Stop.CUT_OFF):
            return
        self._beaten, since = time.monotonic(), now()
        try:
            beat = jobs.beat(self._claim)
        except AWAY as error:
            log.warning("beat_failed", error=type(error).__name__)
            self._beaten += 0.5 - settings().beat_seconds  # soon again: the fuse is burning
            return
        if beat is None:
            self._end(Stop.LOST, grace=0)
            return
        assert self._fuse is not None
        self._fuse.extend(since)
        if beat.wanted == "pause":
            self._end(Stop.PAUSE, grace=settings().grace_seconds)
        elif beat.wanted == "cancel":
            self._end(
                Stop.DISCARD if beat.discard else Stop.CANCEL, grace=0 if beat.discard else settings().grace_seconds
            )

    def _check_limits(self, trainer: Trainer) -> None:
        clock = time.monotonic()
        if self._fuse is not None and self._fuse.blown:
            self._stop = Stop.CUT_OFF
        elif self._draining():
            self._end(Stop.DRAIN, grace=settings().grace_seconds)
        elif clock - self._began > self._claim.max_seconds:
            self._end(Stop.TIME_LIMIT, grace=_SHORT_GRACE)
        elif clock - self._heard > STALL_SECONDS:
            self._end(Stop.STALLED, grace=_SHORT_GRACE)
        elif self._recorder.metric_rows > MOST_METRICS:
            self._end(Stop.METRIC_LIMIT, grace=0)
        if clock > self._kill_at:
            trainer.kill()

    def _end(self, why: Stop, grace: float) -> None:
        """Stops the trainer, kindly for `grace` seconds. The first reason counts, unless the new one outranks it."""
        assert self._trainer is not None
        first = self._stop is None
        if first or why.outranks(self._stop):
            log.info("stopping_trainer", why=why.value)
            self._stop = why
            self._kill_at = min(self._kill_at, time.monotonic() + grace)
        if grace == 0:
            self._trainer.kill()
        elif first:
            self._trainer.stop()

    def _write(self, now_please: bool) -> None:
        if self._stop in (Stop.LOST, Stop.CUT_OFF) or not (now_please or time.monotonic() > self._wrote + _RHYTHM):
            return
        self._wrote = time.monotonic()
        try:
            self._recorder.write()
        except Stale:
            self._end(Stop.LOST, grace=0)
        except FileNotFoundError:
            self._recorder.store_again()
        except AWAY as error:
            log.warning("write_failed", error=type(error).__name__, waiting=self._recorder.pending())
            self._wrote += 0.5

    # ------------------------------------------------------------ how it ends

    def _last_word(self, ended: Ended) -> str:
        failed = self._recorder.failed
        match self._stop, ended:
            case ((Stop.LOST | Stop.CUT_OFF), _):
                return "lost"  # the sweep, or another attempt, has the word
            case Stop.DISK_FULL, _:
                return self._say(self._again, "disk_full", self._error("disk_full"))
            case Stop.NONSENSE, _:
                return self._say(self._again, "crashed", self._error("internal", "The trainer reported what cannot be"))
            case Stop.METRIC_LIMIT, _:
                return self._say(self._fail, self._error("metric_limit"))
            case _, (Ended(status=Exit.DONE) | Ended(signal=signal.SIGTERM)) if self._recorder.result:
                return self._say(self._succeed)  # also when a cancel or a drain came too late, be it on its way out
            case (Stop.CANCEL | Stop.DISCARD) as why, _:
                return self._say(self._cancel, why is Stop.CANCEL)
            case Stop.PAUSE, _:
                return self._say(self._pause)
            case Stop.DRAIN, _:
                return self._say(self._drain)
            case Stop.TIME_LIMIT, _:
                return self._say(self._fail, self._error("time_limit"))
            case Stop.STALLED, _:
                return self._say(self._again, "stalled", self._error("stalled"))
            case None, Ended(status=Exit.FAILED) if failed:
                return self._say(self._fail, self._error_reported())
            case None, Ended(status=Exit.RETRY) if failed:
                return self._say(self._again, failed.code, self._error_reported())
            case None, Ended(status=Exit.STOPPED) if self._draining():
                return self._say(self._drain)
            case None, Ended(out_of_memory=True):
                return self._say(self._again_or_fail, "memory_limit", self._error("memory_limit"))
            case _:
                if ended.status is None:
                    log.error("trainer_crashed", ended=str(ended))
                return self._say(self._again, "crashed", self._error("internal", f"The trainer ended early ({ended})"))

    def _say(self, word: Callable[..., str], *arguments: Any) -> str:
        """Speaks the last word, in one transaction with all that still waits; again while the database is away.

        The trainer is dead by now, so nothing is risked by trying: a word that comes too late is refused.
        """
        again = 0
        until = time.monotonic() + _LAST_WORD_SECONDS
        while True:
            try:
                with transaction() as session:
                    self._recorder.apply(session)
                    ending = word(session, *arguments)
                break
            except FileNotFoundError:  # the same content was another job's, and was collected with it
                again += 1
                if again > 3:
                    raise
                self._recorder.store_again()
                self._journal = None
            except AWAY as error:
                if time.monotonic() > until:
                    log.error("last_word_not_said", error=type(error).__name__)
                    return "lost"
                time.sleep(0.5)
        if is_terminal(ending):
            shutil.rmtree(self._home, ignore_errors=True)
        return ending

    def _succeed(self, session: Session) -> str:
        result = self._recorder.result
        assert result is not None
        model_id = self._recorder.own_model(session)
        if model_id is None:
            return self._fail(session, self._error("internal", "The trainer ended well and kept no model"))
        self._recorder.keep_files(session)
        self._keep_log(session)
        words: dict[str, Any] = {"best": result.best, "usage": self._usage(), "model_id": model_id}
        jobs.finish(session, self._claim, JobState.SUCCEEDED, reason="completed", **words)
        return JobState.SUCCEEDED

    def _cancel(self, session: Session, keep: bool) -> str:
        words: dict[str, Any] = {"usage": self._usage()}
        if keep:
            self._recorder.keep_files(session)
            words["model_id"] = self._recorder.own_model(session)
        self._keep_log(session)
        jobs.finish(session, self._claim, JobState.CANCELLED, reason="cancelled_by_client", **words)
        return JobState.CANCELLED

    def _fail(self, session: Session, error: dict[str, Any]) -> str:
        self._recorder.keep_files(session)
        self._keep_log(session)
        jobs.finish(session, self._claim, JobState.FAILED, reason=error["code"], error=error, usage=self._usage())
        return JobState.FAILED

    def _pause(self, session: Session) -> str:
        return self._requeue(session, "paused", charge=False)

    def _drain(self, session: Session) -> str:
        return self._requeue(session, "drained", charge=False)

    def _again(self, session: Session, outcome: str, error: dict[str, Any]) -> str:
        return self._requeue(session, outcome, charge=True, detail=error)

    def _requeue(self, session: Session, outcome: str, charge: bool, detail: dict[str, Any] | None = None) -> str:
        job = jobs.fence(session, self._claim)
        state = jobs.requeued_as(job, charge)
        if state == JobState.CANCELLED:  # a wish that no beat has brought
            return self._cancel(session, not job.discard)
        if is_terminal(state):
            self._keep_log(session)  # else the log goes on growing in the job's folder
        return str(jobs.requeue(session, self._claim, outcome=outcome, charge=charge, detail=detail).state)

    def _keep_log(self, session: Session) -> None:
        """While the job still runs: the database takes nothing of one that has ended."""
        self._journal = self._journal or stored_log(self._home / "trainer.log")
        self._recorder.keep_log(session, self._journal)

    def _again_or_fail(self, session: Session, outcome: str, error: dict[str, Any]) -> str:
        """Something else may have filled the memory once; twice is this job's own doing."""
        before = [attempt.outcome for attempt in jobs.attempts(session, self._claim.job_id)]
        return self._fail(session, error) if outcome in before else self._again(session, outcome, error)

    def _usage(self) -> dict[str, Any]:
        reported = self._recorder.result.usage if self._recorder.result else {}
        return {"device_seconds": round(time.monotonic() - self._began, 3), **reported}

    def _error(self, code: str, message: str | None = None) -> dict[str, Any]:
        return _error(code, message, stage=self._recorder.stage)

    def _error_reported(self) -> dict[str, Any]:
        failed = self._recorder.failed
        assert failed is not None
        code = failed.code if failed.code in FAILURES else "internal"
        return {
            **failed.model_dump(exclude={"report"}),
            "code": code,
            "hint": failed.hint or FAILURES[code].hint,
            "stage": failed.stage or self._recorder.stage,
        }


def _error(code: str, message: str | None = None, stage: str | None = None) -> dict[str, Any]:
    """A job's error as clients see it, from the closed list of failures."""
    kind = FAILURES[code]
    return {
        "code": code,
        "message": message or kind.title,
        "hint": kind.hint,
        "blame": kind.blame,
        "retryable": kind.retryable,
        "stage": stage,
        "param": None,
    }


def _error_of(fault: Missing | Invalid) -> dict[str, Any]:
    if isinstance(fault, Invalid):
        return _error("internal", "The stored spec does not fit this version of the service; submit the job again")
    is_model = fault.ref.startswith(("job:", "model:", "mdl_"))
    return _error("weights_unavailable" if is_model else "dataset_invalid", f"{fault.ref}: {fault.message}")


def _is_full(fault: OSError) -> bool:
    return fault.errno in (errno.ENOSPC, errno.EDQUOT)


def checkpoint_folder(home: Path, attempt: int, recorded: Container[str]) -> Path:
    """This attempt's own folder, with what earlier ones left of those checkpoints that were `recorded` with all that led to them.

    A trainer outlives a worker that is merely frozen: what it goes on to save counts for nothing, and here it finds no reader.
    """
    own = home / f"checkpoints-{attempt}"
    own.mkdir(parents=True, exist_ok=True)
    earlier = [home / f"checkpoints-{number}" for number in range(attempt - 1, 0, -1)]
    for folder in (folder for folder in earlier if folder.is_dir()):
        for entry in sorted(folder.iterdir()):
            if not (own / entry.name).exists() and (entry.is_file() or entry.name in recorded):
                with contextlib.suppress(OSError):  # its trainer has just removed it
                    entry.rename(own / entry.name)
        shutil.rmtree(folder, ignore_errors=True)
    return own


def forget_finished(is_over: Callable[[str], bool], folder: Path | None = None) -> None:
    """Removes working folders of jobs that are over: a killed worker left them, or the job was cancelled between two attempts."""
    folder = folder or settings().jobs_dir
    for home in folder.glob("job_*"):
        if is_over(home.name):
            shutil.rmtree(home, ignore_errors=True)


def forget_half_written(older_than: float = 3600.0) -> None:
    """Removes from the store's `tmp` what killed programs left there; nothing is written for as long as an hour."""
    oldest = time.time() - older_than
    for entry in (settings().store / "tmp").glob("*"):
        with contextlib.suppress(OSError):  # another worker tidies up as well
            if entry.lstat().st_mtime >= oldest:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()

"""One job, from claim to last word. Every way in which an attempt can end is listed in `_last_word`, and what follows from it here:

| the attempt                                             | the job              | charged | blame  |
|---------------------------------------------------------|----------------------|---------|--------|
| ends with a result and a model                          | succeeded            |         |        |
| is cancelled                                            | cancelled            |         |        |
| is paused                                               | paused               | no      |        |
| is drained with its worker                              | again, at once       | no      |        |
| fails as the trainer says, for good                     | failed               | yes     | either |
| fails as the trainer says, and may do better            | again, after a delay | yes     | system |
| breaks time_, memory_, disk_ or metric_limit            | failed               | yes     | user   |
| stalls; the disk is full; crashes; reports nonsense     | again, after a delay | yes     | system |
| is killed by the kernel for want of memory              | again once           | yes     | user   |
| names a data set or a model that is gone                | failed               | yes     | user   |
| is lost with its worker, or cut off from the database   | again, by the sweep  | yes     | system |

`again` is failed when `max_attempts` are spent, cancelled or paused when a client has asked for that meanwhile. The delay doubles with
each failure (`jobs.LONGEST_DELAY`). `succeeded` and `failed` are cancelled when a client has asked meanwhile to discard the job.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import structlog
from sqlalchemy import exc

from app import assignments, jobs, metrics
from app.artifacts import Stored
from app.data import disk
from app.db import Session, transaction
from app.jobs import Claim, Stale
from app.settings import settings
from app.spec.failures import FAILURES, failure
from app.spec.faults import Invalid
from app.spec.lookup import Missing
from app.states import JobState, is_terminal
from worker import folders, machine
from worker.attempt_limits import Exceeded, Limits
from worker.lease_watchdog import LeaseWatchdog, now
from worker.recorder import BadFile, Recorder, recorded_checkpoints, stored_log
from worker.reports import Exit
from worker.trainers import Ended, Garbled, Trainer, Trainers

AWAY = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
"""What SQLAlchemy raises when the database cannot be reached; it may be back in a moment."""

_RHYTHM = 0.1
_MOST_PENDING = 20_000
_LAST_WORD_SECONDS = 120.0
_GONE_SECONDS = 10.0
_NONSENSE = "The trainer reported what cannot be"

log = structlog.get_logger(__name__)


class Stop(Enum):
    """Why the supervisor ended the trainer; None where the trainer ended by itself."""

    CANCEL = "a client cancelled the job"
    DISCARD = "a client cancelled the job and wants nothing of it"
    PAUSE = "a client paused the job"
    DRAIN = "the worker was told to stop"
    LIMIT = "the attempt has taken more than it may"
    DISK_FULL = "the store is full"
    NONSENSE = "the trainer reported what cannot be"
    LOST = "another attempt owns the job, or it has ended"
    CUT_OFF = "no beat was possible for almost the lease's time"

    def outranks(self, earlier: Stop | None) -> bool:
        """A lost job is lost, and a cancel beats what would have the job go on."""
        if self in (Stop.CANCEL, Stop.DISCARD):
            return earlier in (Stop.PAUSE, Stop.DRAIN) or (earlier is Stop.CANCEL and self is Stop.DISCARD)
        return self is Stop.LOST and earlier is not Stop.LOST


def run(claim: Claim, since: float, trainers: Trainers, draining: Callable[[], bool]) -> str:
    """Runs one attempt of a job; how it ended, in one word. Must be called from the main thread.

    `since` (by `watchdog.now`) is when the call that claimed it began: its lease is no older, whenever this process learnt of it.
    `draining` turns true when the worker has been told to stop: the attempt is then checkpointed and given back.
    """
    with structlog.contextvars.bound_contextvars(job_id=claim.job_id, attempt=claim.attempt):
        log.info("attempt_started", kind=claim.kind)
        attempt = _Attempt(claim, since, draining)
        try:
            ending = attempt.run(trainers)
        except Stale:
            ending = "lost"
        except Exception as error:  # a fault of ours, or of the machine's
            log.exception("attempt_broke")
            attempt.close()
            ending = attempt.give_up(error)
        finally:
            attempt.close()
        log.info("attempt_ended", ending=ending)
        return ending


class _Attempt:
    def __init__(self, claim: Claim, since: float, draining: Callable[[], bool]):
        self._claim, self._claimed, self._draining = claim, since, draining
        self._home = settings().jobs_dir / claim.job_id
        self._out = self._home / f"out-{claim.attempt}"
        self._recorder = Recorder(claim, self._out)
        self._trainer: Trainer | None = None
        self._watchdog: LeaseWatchdog | None = None
        self._stop: Stop | None = None
        self._stored_log: Stored | None = None
        self._exceeded: Exceeded | None = None
        self._release_report: ReleaseReport | None = None
        self._began = self._wrote = self._heartbeat_at = time.monotonic()
        self._kill_at = float("inf")

    def run(self, trainers: Trainers) -> str:
        lease = settings().lease_seconds - min(5.0, settings().lease_seconds / 6)
        try:
            assignment = self._prepare(self._claimed + lease)
            self._trainer = trainer = trainers.take(assignment, self._out)
        except (Missing, Invalid) as fault:
            return self._say(self._fail, _error_of(fault))
        self._watchdog = LeaseWatchdog(lease, self._claimed, trainer.kill)
        self._follow(trainer, trainers)
        self._watchdog.close()
        ended = trainer.ended()
        assert ended is not None
        trainer.kill()  # whatever it started itself
        if self._release_report is not None:
            self._release_report.sign(trainer)
        return self._last_word(ended)

    def give_up(self, error: Exception) -> str:
        """Gives the job back without what could not be recorded; the lease runs out if even that fails."""
        self._recorder.forget()
        outcome, code = ("disk_full", "disk_full") if disk.is_full(error) else ("crashed", "internal")
        try:
            return self._say(self._again, outcome, self._error(code))
        except Stale:
            return "lost"

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
        if self._trainer is not None:
            self._trainer.close()
        shutil.rmtree(self._out, ignore_errors=True)

    # ------------------------------------------------------------ while it runs

    def _prepare(self, until: float) -> dict[str, Any]:
        """The trainer's assignment. A database that goes away is waited for `until` the lease may be over; then Stale."""
        while True:
            try:
                return self._assignment()
            except AWAY as error:
                log.warning("prepare_failed", error=type(error).__name__)
                if now() > until:
                    raise Stale(self._claim.job_id) from None
                time.sleep(0.5)

    def _assignment(self) -> dict[str, Any]:
        log_file = self._home / "trainer.log"
        for left in self._home.glob(
            "out-*"
        ):  # earlier attempts' too: what they left would count against this one's disk
            shutil.rmtree(left, ignore_errors=True)
        (self._out / "tmp").mkdir(parents=True)
        log_file.touch()
        (self._out / "trainer.log").symlink_to(log_file)  # one log for all attempts
        with transaction() as session:
            job = jobs.fence(session, self._claim)
            assignment = assignments.assignment(session, job)
            recorded = recorded_checkpoints(session, self._claim)
            rows = metrics.count(session, self._claim.job_id)
        self._limits = Limits(self._claim.max_seconds, self._home, rows)
        checkpoints = folders.checkpoints(self._home, self._claim.attempt, recorded)
        places = {"checkpoints": checkpoints, "out": self._out, "cache": settings().cache_dir}
        return {**assignment, **{name: str(path) for name, path in places.items()}}

    def _follow(self, trainer: Trainer, trainers: Trainers) -> None:
        """Runs until the trainer has ended and all its reports are read."""
        while True:
            ended = trainer.ended()
            try:
                arrived = [] if self._is_behind() else trainer.reports(0.0 if ended else _RHYTHM)
                self._limits.update(arrived)
                urgent = self._recorder.take(arrived)
            except (Garbled, BadFile) as fault:
                log.warning("nonsense", fault=str(fault))
                self._recorder.tear()
                self._end(Stop.NONSENSE, grace=0)
                arrived, urgent = [], False
            except OSError as fault:
                log.error("cannot_store", error=fault.strerror)
                self._end(Stop.DISK_FULL if disk.is_full(fault) else Stop.NONSENSE, grace=0)
                arrived, urgent = [], False
            self._heartbeat()
            self._check_limits(trainer)
            self._write(urgent or ended is not None)
            if ended is not None and not arrived and not self._is_behind():
                return
            if self._recorder.stage is not None and self._stop is None:
                trainers.warm()  # the next job's, while this one trains

    def _is_behind(self) -> bool:
        """Whether so many reports wait for a database that is away that the trainer must wait too: nothing more is read of it."""
        if self._recorder.pending() < _MOST_PENDING or self._stop in (Stop.LOST, Stop.CUT_OFF):
            return False
        self._limits.reset_stall_clock()
        time.sleep(_RHYTHM)
        return True

    def _heartbeat(self) -> None:
        if time.monotonic() < self._heartbeat_at + settings().beat_seconds or self._stop in (Stop.LOST, Stop.CUT_OFF):
            return
        if self._watchdog is not None and self._watchdog.expired:
            return  # the trainer is dead: a link that is back again may not make the job wait for another lease
        self._heartbeat_at, since = time.monotonic(), now()
        try:
            heartbeat = jobs.heartbeat(self._claim)
        except AWAY as error:
            log.warning("beat_failed", error=type(error).__name__)
            self._heartbeat_at += 0.5 - settings().beat_seconds  # soon again: the watchdog's time runs out
            return
        if heartbeat is None:
            self._end(Stop.LOST, grace=0)
            return
        assert self._watchdog is not None
        self._watchdog.extend(since)
        if heartbeat.wanted == "pause":
            self._end(Stop.PAUSE, grace=settings().grace_seconds)
        elif heartbeat.wanted == "cancel":
            self._end(
                Stop.DISCARD if heartbeat.discard else Stop.CANCEL,
                grace=0 if heartbeat.discard else settings().grace_seconds,
            )

    def _check_limits(self, trainer: Trainer) -> None:
        trainer.bound(machine.memory_allowed())
        if self._watchdog is not None and self._watchdog.expired:
            self._stop = Stop.CUT_OFF
        elif self._draining():
            self._end(Stop.DRAIN, grace=settings().grace_seconds)
        elif exceeded := self._limits.exceeded(trainer.pid):
            self._exceeded = self._exceeded or exceeded
            if exceeded.code == "metric_limit":
                self._recorder.refuse_metrics()
            self._end(Stop.LIMIT, grace=exceeded.grace)
        if time.monotonic() > self._kill_at:
            trainer.kill()

    def _end(self, why: Stop, grace: float) -> None:
        """Stops the trainer, kindly for `grace` seconds. The first reason counts, unless the new one outranks it."""
        assert self._trainer is not None
        first = self._stop is None
        if first or why.outranks(self._stop):
            log.info("stopping_trainer", why=self._exceeded.message if self._exceeded else why.value)
            self._stop = why
            if why in (Stop.CANCEL, Stop.DISCARD) and self._release_report is None:
                self._release_report = ReleaseReport(self._trainer)
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
            log.warning("write_refused")
            self._end(Stop.LOST, grace=0)
        except FileNotFoundError:
            self._recorder.store_again()
        except AWAY as error:
            log.warning("write_failed", error=type(error).__name__, waiting=self._recorder.pending())
            self._wrote += 0.5
        except exc.DatabaseError as error:
            log.error("reports_refused", error=type(error).__name__)
            self._recorder.forget()
            self._end(Stop.NONSENSE, grace=0)

    # ------------------------------------------------------------ how it ends

    def _last_word(self, ended: Ended) -> str:
        failed = self._recorder.failed
        match self._stop, ended:
            case ((Stop.LOST | Stop.CUT_OFF), _):
                return "lost"  # the sweep, or another attempt, has the word
            case Stop.DISK_FULL, _:
                return self._say(self._again, "disk_full", self._error("disk_full"))
            case Stop.NONSENSE, _:
                return self._say(self._again, "crashed", self._error("internal", _NONSENSE))
            case Stop.LIMIT, _ if self._exceeded and self._exceeded.grace == 0:
                return self._say(self._fail, self._error(self._exceeded.code, self._exceeded.message))
            case _, (Ended(status=Exit.DONE) | Ended(signal=signal.SIGTERM)) if self._recorder.result:
                return self._say(self._succeed)  # also when a cancel or a drain came too late, be it on its way out
            case (Stop.CANCEL | Stop.DISCARD) as why, _:
                return self._say(self._cancel, why is Stop.CANCEL)
            case Stop.PAUSE, _:
                return self._say(self._pause)
            case Stop.DRAIN, _:
                return self._say(self._drain)
            case Stop.LIMIT, _ if self._exceeded:
                error = self._error(self._exceeded.code, self._exceeded.message)
                return self._say(self._again, "stalled", error) if error["retryable"] else self._say(self._fail, error)
            case None, Ended(status=Exit.FAILED) if failed:
                return self._say(self._fail, self._error_reported())
            case None, Ended(status=Exit.RETRY) if failed:
                return self._say(self._again, failed.code, self._error_reported())
            case None, Ended(status=Exit.STOPPED) if self._draining():
                return self._say(self._drain)
            case None, Ended(out_of_memory=True):
                message = "The kernel killed the trainer, since the machine had no main memory left"
                return self._say(self._again_or_fail, "out_of_memory", self._error("out_of_memory", message))
            case None, _ if machine.disk_is_full():
                return self._say(self._again, "disk_full", self._error("disk_full"))
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
            except Stale:
                log.warning("write_refused")
                raise
            except FileNotFoundError:  # the same content was another job's, and was collected with it
                again += 1
                if again > 3:
                    raise
                self._recorder.store_again()
                self._stored_log = None
            except AWAY as error:
                if time.monotonic() > until:
                    log.error("last_word_not_said", error=type(error).__name__)
                    return "lost"
                time.sleep(0.5)
            except exc.DatabaseError as error:
                if not self._recorder.pending():
                    raise
                log.error("reports_refused", error=type(error).__name__)
                self._recorder.forget()
                word, arguments = self._again, ("crashed", self._error("internal", _NONSENSE))
        if is_terminal(ending):
            shutil.rmtree(self._home, ignore_errors=True)
        return ending

    def _succeed(self, session: Session) -> str:
        if self._is_discarded(session):
            return self._cancel(session, keep=False)
        result = self._recorder.result
        assert result is not None
        if not self._recorder.has_own_model(session):
            return self._fail(session, self._error("internal", "The trainer ended well and kept no model"))
        self._recorder.keep_files(session)
        self._keep_log(session)
        fields: dict[str, Any] = {"best": result.best, "usage": self._usage()}
        jobs.finish(session, self._claim, JobState.SUCCEEDED, reason="completed", **fields)
        return JobState.SUCCEEDED

    def _cancel(self, session: Session, keep: bool) -> str:
        if keep:
            self._recorder.keep_files(session)
        self._keep_log(session)
        fields: dict[str, Any] = {
            "usage": self._usage(),
            "released": self._release_report and self._release_report.data,
        }
        jobs.finish(session, self._claim, JobState.CANCELLED, reason="cancelled_by_client", **fields)
        return JobState.CANCELLED

    def _is_discarded(self, session: Session) -> bool:
        """Whether a client wants nothing kept, however the attempt ended; no heartbeat may have brought that wish yet."""
        job = jobs.fence(session, self._claim)
        return job.wanted == "cancel" and job.discard

    def _fail(self, session: Session, error: dict[str, Any]) -> str:
        if self._is_discarded(session):
            return self._cancel(session, keep=False)
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
        if state == JobState.CANCELLED:  # a wish that no heartbeat has brought
            return self._cancel(session, not job.discard)
        if is_terminal(state):
            self._keep_log(session)  # else the log goes on growing in the job's folder
        return str(jobs.requeue(session, self._claim, outcome=outcome, charge=charge, detail=detail).state)

    def _keep_log(self, session: Session) -> None:
        """While the job still runs: the database takes nothing of one that has ended."""
        self._stored_log = self._stored_log or stored_log(self._home / "trainer.log")
        self._recorder.keep_log(session, self._stored_log)

    def _again_or_fail(self, session: Session, outcome: str, error: dict[str, Any]) -> str:
        """Something else may have filled the memory once; twice is this job's own doing."""
        before = [attempt.outcome for attempt in jobs.attempts(session, self._claim.job_id)]
        return self._fail(session, error) if outcome in before else self._again(session, outcome, error)

    def _usage(self) -> dict[str, Any]:
        reported = self._recorder.result.usage if self._recorder.result else {}
        return {"device_seconds": round(time.monotonic() - self._began, 3), **reported}

    def _error(self, code: str, message: str | None = None) -> dict[str, Any]:
        return failure(code, message, stage=self._recorder.stage)

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


class ReleaseReport:
    """What a cancelled job has set free. Begun when the supervisor learns of the wish, signed when the trainer is gone."""

    def __init__(self, trainer: Trainer):
        self._learnt = time.monotonic()
        self._on_gpu = trainer.device() not in (None, "cpu")
        self._before = self._in_use(trainer)
        self.data: dict[str, Any] = {}

    def sign(self, trainer: Trainer) -> None:
        """The trainer has ended and its group was killed: looks until nothing of it is left."""
        while not trainer.is_gone() and time.monotonic() < self._learnt + _GONE_SECONDS:
            time.sleep(0.005)
        self.data = {
            "pid": trainer.pid,
            "gone": trainer.is_gone(),
            "device_memory": {"before_bytes": self._before, "after_bytes": self._in_use(trainer)},
            "milliseconds": round(1000 * (time.monotonic() - self._learnt)),
        }

    def _in_use(self, trainer: Trainer) -> int | None:
        return (
            machine.accelerator_bytes() if self._on_gpu else machine.resident_bytes(machine.process_tree(trainer.pid))
        )


def _error_of(fault: Missing | Invalid) -> dict[str, Any]:
    if isinstance(fault, Invalid):
        return failure("internal", "The stored spec does not fit this version of the service; submit the job again")
    is_model = fault.ref.startswith(("job:", "model:", "mdl_", "pretrained:"))
    return failure("weights_unavailable" if is_model else "dataset_invalid", f"{fault.ref}: {fault.message}")

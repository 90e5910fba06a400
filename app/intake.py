"""Takes uploads in: a child reads the bytes, their prepared form is kept, a row names it.

A client waits `PATIENCE_SECONDS` at most. What takes longer goes on without it: the data set is there at once, in state `preparing`, and
whoever works on it holds its lock in the database. When the lock is free although the state is still `preparing`, that process has died,
and `resume` begins anew from the bytes that were sent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, Update, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from app import artifacts, datasets, ids, logs
from app.data import readers, uploads
from app.data.names import fault_in_label
from app.data.upload_limits import UploadLimits
from app.datasets import DatasetEntry
from app.db import Session, engine, transaction
from app.errors import Conflict
from app.settings import settings
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid, written
from app.spec.intake import Intake, UploadOptions
from app.tables import Dataset

PATIENCE_SECONDS = 20.0
PROGRESS_SECONDS = 2.0
RETRY_SECONDS = 5.0
_LOCK = 11
_ASIDE = threading.BoundedSemaphore(8)
"""Readings that go on without their client: each keeps a connection. Of more the client waits for the end."""

log = logs.get(__name__)


@dataclass(frozen=True)
class Taken:
    """What a reader made of an upload: the prepared file, and the words about it."""

    file: Path
    schema: Schema
    intake: Intake


def add(
    raw: Path,
    *,
    filename: str | None = None,
    name: str | None = None,
    format: str | None = None,
    options: UploadOptions | None = None,
) -> tuple[DatasetEntry, bool]:
    """Reads an upload in a child process and keeps it. The same bytes, read with the same options, are the same data set.

    No transaction is open while the child reads.

    Args:
        raw: the bytes as they came; moved away.
        filename, name: labels; the data set is called `name`, else `filename`.
        format: one of `readers.FORMATS`; None to go by the file's name, or to look.

    Returns:
        The data set, which may still be `preparing`, and whether it is new.

    Raises:
        Invalid: with every fault in the labels, the format and the file. Nothing is stored.
    """
    options = options or UploadOptions()
    labels = [("filename", filename), ("name", name)]
    faults = [fault for field, label in labels if label is not None and (fault := fault_in_label(label, field))]
    sha256, size = _hash(raw), raw.stat().st_size
    try:
        known_format = uploads.format_of(raw, format or readers.by_name(filename))
        if not faults and (existing := datasets.of_bytes(sha256, known_format, options)):
            return existing, False
        work = Work(raw, known_format, options)
        taken = work.wait()
    except Invalid as invalid:
        raise Invalid([*faults, *invalid.faults]) from None
    if faults:
        work.discard()
        raise Invalid(faults)
    row = {
        "id": ids.new("ds"),
        "name": name or filename or f"upload-{sha256[:8]}",
        "format": known_format,
        "sha256": sha256,
        "targets": options.targets,
        "options": datasets.option_key(options),
        "bytes": size,
    }
    entry = _recorded(row, work, taken)
    if entry:
        return entry, True
    if same := datasets.of_bytes(sha256, known_format, options):
        return same, False
    raise Conflict("The data set of these bytes was deleted while they were read again; send them once more.")


def _recorded(row: dict[str, Any], work: Work, taken: Taken | None) -> DatasetEntry | None:
    """The data set of a new row; None where another upload of the same bytes came first. What is not read yet goes on aside."""
    entry = None
    try:
        keeps_original = taken is None or row["format"] in readers.ARCHIVES
        original = artifacts.keep_file(work.raw) if keeps_original else None
        stored = None if taken is None else artifacts.keep_file(taken.file)
        with transaction() as session:
            row |= {"state": "preparing"} if taken is None else _ready(session, taken, stored)
            row["raw_sha256"] = original and _held(session, original, work.raw)
            made = session.scalars(
                insert(Dataset).values(row).on_conflict_do_nothing().returning(Dataset),
                execution_options={"populate_existing": True},
            ).one_or_none()
            entry = None if made is None else datasets.uploaded(made)
    finally:
        if taken is None and entry is not None:
            work.settle(entry.id)
        else:
            work.discard()
    return entry


class Work:
    """The reading of one upload, in a thread that outlives the request. Its files are its own, and gone when it is over."""

    def __init__(self, raw: Path, format: str, options: UploadOptions, aside: bool = False):
        folder = settings().store / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        self.raw, self._out = (folder / f"{uuid.uuid4().hex}.{ending}" for ending in ("raw", "prepared"))
        shutil.move(raw, self.raw)
        self._format, self._options = format, options
        self._future: Future[Taken] = Future()
        self._progress = (0, 0)
        self._aside, self._dropped = aside, False
        threading.Thread(target=self._run, name="reading", daemon=True).start()

    def wait(self) -> Taken | None:
        """What was read, or None where that takes longer than a client waits. Raises what the reading raised; then its files are gone."""
        try:
            return self._future.result(PATIENCE_SECONDS)
        except TimeoutError:
            if _ASIDE.acquire(blocking=False):
                self._aside = True
                return None
        except BaseException:
            self.discard()
            raise
        try:
            return self._future.result()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes the files, also what a reading that still goes on leaves."""
        self._dropped = True
        self._remove()
        if self._aside:
            self._aside = False
            _ASIDE.release()

    def _remove(self) -> None:
        for file in (self.raw, self._out):
            file.unlink(missing_ok=True)

    def settle(self, dataset_id: str) -> None:
        """Leaves the rest to a thread: progress, and in the end the state `ready` or `failed`."""
        threading.Thread(target=self._settle, args=(dataset_id,), name=f"preparing {dataset_id}", daemon=True).start()

    def _run(self) -> None:
        try:
            limits = UploadLimits(decoded_bytes=2 * settings().max_upload_bytes)
            schema, intake = uploads.inspect_upload(
                self.raw, self._format, self._out, self._options, limits, self._told
            )
            self._future.set_result(Taken(self._out, schema, intake))
        except BaseException as error:
            self._future.set_exception(error)
        if self._dropped:
            self._remove()

    def _told(self, done: int, total: int) -> None:
        self._progress = (done, total)

    def _settle(self, dataset_id: str) -> None:
        try:
            with _lock(dataset_id) as locked:
                if locked:
                    self._finish(dataset_id)
        except SQLAlchemyError as error:
            log.warning("a preparation lost its lock; it begins anew", dataset=dataset_id, error=type(error).__name__)
        finally:
            self.discard()

    def _finish(self, dataset_id: str) -> None:
        while not self._future.done():
            try:
                self._future.exception(PROGRESS_SECONDS)
            except TimeoutError:
                _write(dataset_id, {"progress": list(self._progress)})
        try:
            taken = self._future.result()
            stored = artifacts.keep_file(taken.file)
        except Invalid as invalid:
            faults = invalid.faults
        except OSError as error:
            log.exception("a data set could not be prepared", dataset=dataset_id)
            faults = [
                Fault("/file", f"the service could not keep it: {error.strerror}", "send it again later", "storage")
            ]
        except Exception:
            log.exception("a data set could not be prepared", dataset=dataset_id)
            faults = [Fault("/file", "the service could not read it", "its log has the reason", "internal")]
        else:
            with transaction() as session:
                values = _ready(session, taken, stored)
                if self._format not in readers.ARCHIVES:  # all of a table is in its rows
                    values["raw_sha256"] = None
                session.execute(_of(dataset_id).values(**values, progress=None))
            log.info("dataset_prepared", dataset=dataset_id, rows=taken.schema.rows)
            return
        _write(dataset_id, {"state": "failed", "errors": written(faults), "progress": None})
        log.info("dataset_refused", dataset=dataset_id, faults=len(faults))


def resume() -> list[str]:
    """Begins anew what a process that has died was preparing. Returns the ids; another's work is left alone."""
    begun = []
    for entry_id, file_format, options, raw_sha256 in datasets.unfinished():
        with _lock(entry_id) as locked:
            if not locked:
                continue
        if not _ASIDE.acquire(blocking=False):  # the next sweep asks again
            break
        try:
            copy = _copy_of(raw_sha256)
        except OSError as error:
            _ASIDE.release()
            log.warning("the bytes of a data set cannot be read", dataset=entry_id, error=str(error))
            continue
        Work(copy, file_format, options, aside=True).settle(entry_id)
        begun.append(entry_id)
    return begun


def copy(ref: str, target: IO[bytes]) -> tuple[str, str]:
    """Writes the archive that an upload came as to `target`, to be read once more; returns the upload's name and format.

    Raises:
        Invalid: there is no such upload, or its bytes are not kept; pointer /dataset.
    """
    with transaction() as session:
        row = session.get(Dataset, ref)
        if row is None:
            raise Invalid([Fault("/dataset", "there is no such upload", "GET /v1/datasets lists them", "unknown_name")])
        if row.raw_sha256 is None:
            message = "its bytes are not kept: those of archives alone are"
            raise Invalid([Fault("/dataset", message, "send the file again", "not_kept")])
        with artifacts.open_plain(artifacts.blob(row.raw_sha256)) as source:
            shutil.copyfileobj(source, target, 1 << 20)
        return row.name, row.format


def _copy_of(raw_sha256: str) -> Path:
    """The bytes that were sent, in a file of their own that may be moved away."""
    copy = settings().store / "tmp" / f"copy-{uuid.uuid4().hex}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(artifacts.blob(raw_sha256), copy)
    except OSError:  # a file system without hard links
        shutil.copyfile(artifacts.blob(raw_sha256), copy)
    return copy


@contextmanager
def _lock(dataset_id: str) -> Iterator[bool]:
    """Whether this process alone now works on the data set. The lock ends with the process, or with its connection."""
    key = {"id": dataset_id, "kind": _LOCK}
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        locked = connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:id, :kind))"), key)
        try:
            yield bool(locked)
        finally:
            _unlock(connection, key, bool(locked))


def _unlock(connection: Connection, key: dict[str, object], locked: bool) -> None:
    try:
        if locked:
            connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:id, :kind))"), key)
    except SQLAlchemyError:
        connection.invalidate()  # or the pool would keep the lock


def _of(dataset_id: str) -> Update:
    return update(Dataset).where(Dataset.id == dataset_id, Dataset.state == "preparing")


def _write(dataset_id: str, values: dict[str, object]) -> None:
    """Writes to the row of a data set in the making; while the database is away, it is waited for."""
    until = time.monotonic() + 10 * RETRY_SECONDS
    while True:
        try:
            with transaction() as session:
                session.execute(_of(dataset_id).values(**values))
            return
        except SQLAlchemyError:
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_SECONDS)


def _ready(session: Session, taken: Taken, stored: artifacts.Stored | None) -> dict[str, Any]:
    assert stored is not None
    return {
        "state": "ready",
        "prepared_sha256": _held(session, stored, taken.file),
        "schema": taken.schema.model_dump(mode="json"),
        "intake": taken.intake.model_dump(mode="json"),
    }


def _held(session: Session, stored: artifacts.Stored, file: Path) -> str:
    """The hash of `file`, whose content stays in the store until a row of this transaction names it."""
    try:
        artifacts.hold(session, stored.sha256)
    except FileNotFoundError:  # its twin was deleted in between, bytes and all; from here on nothing is collected
        stored = artifacts.keep_file(file)
    return stored.sha256


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

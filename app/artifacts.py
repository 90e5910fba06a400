"""Files that belong to jobs, in a store that names them by their content.

A file is written beside, synced, hashed and renamed; only then does a row name it. A crash before the row leaves
garbage, never a lie.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import select, text, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import durable
from app.db import transaction
from app.errors import NotFound
from app.settings import settings
from app.tables import Artifact, Dataset, Model

_BLOCK = 1 << 20
_COLLECT_LOCK = 7_265_719

MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".zip": "application/zip",
}
OTHER_MEDIA_TYPE = "application/octet-stream"
"""An artifact's media type follows from its name, so that the list is closed: the OpenAPI document names all of it."""

_NAMING = (Artifact.sha256, Model.sha256, Model.rows_sha256, Dataset.prepared_sha256, Dataset.raw_sha256)


@dataclass(frozen=True)
class Stored:
    """A file in the store: its hash and its length in bytes."""

    sha256: str
    bytes: int


def keep_file(path: Path) -> Stored:
    """Copies a file into the store, durable when this returns. The same content is kept once.

    Raises:
        OSError: the disk is full, or the file cannot be read or is a link; nothing is left behind.
    """
    blobs, temporary = settings().store / "blob", settings().store / "tmp" / uuid.uuid4().hex
    blobs.mkdir(parents=True, exist_ok=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    digest, length = hashlib.sha256(), 0
    try:
        with open_plain(path) as source, temporary.open("xb") as target:
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
                length += len(block)
            target.flush()
            os.fsync(target.fileno())
        temporary.rename(blobs / digest.hexdigest())
        durable.sync(blobs)
    finally:
        temporary.unlink(missing_ok=True)
    return Stored(digest.hexdigest(), length)


def open_plain(path: Path) -> BinaryIO:
    """A file for reading; never through a link, and never a pipe, on which one would wait for ever.

    Raises:
        OSError: it is neither there nor plain.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(handle, "rb")


def blob(sha256: str) -> Path:
    """Where the content of that hash lies."""
    return settings().store / "blob" / sha256


def model_file(sha256: str) -> Path:
    """The same content under a name that ends in .keras, which Keras asks for; a hard link, made when first needed."""
    link = settings().store / "model" / f"{sha256}.keras"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(blob(sha256), link)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            with durable.write(link) as beside:
                shutil.copyfile(blob(sha256), beside)
    return link


def hold(session: Session, *hashes: str) -> None:
    """Makes sure that the content is there and stays until the transaction's rows name it.

    Raises:
        FileNotFoundError: it was collected in between; keep the file again.
    """
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _COLLECT_LOCK})
    for sha256 in hashes:
        if not blob(sha256).exists():
            raise FileNotFoundError(f"the store has lost {sha256}")


def collect(hashes: Iterable[str]) -> None:
    """Removes those contents that no row names any more. Call it after the commit that deleted the rows."""
    with transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _COLLECT_LOCK})
        for sha256 in set(hashes):
            named = [select(column).where(column == sha256) for column in _NAMING]
            if session.execute(union_all(*named).limit(1)).first() is None:
                (settings().store / "model" / f"{sha256}.keras").unlink(missing_ok=True)
                blob(sha256).unlink(missing_ok=True)


def collect_unnamed(older_than: float = 86_400.0) -> None:
    """Removes contents older than so many seconds whose rows never came: a program died in between, or the attempt was not the
    job's last."""
    oldest = time.time() - older_than
    old = {entry.name for entry in (settings().store / "blob").glob("*") if _modified(entry) < oldest}
    if old:
        with transaction() as session:
            old -= set(session.scalars(union_all(*(select(column) for column in _NAMING))))
        collect(old)


def add(session: Session, job_id: str, attempt: int, name: str, stored: Stored) -> None:
    """Names a stored file as the job's `name`. The caller holds the attempt's fence.

    A later attempt's file replaces an earlier one's.
    """
    hold(session, stored.sha256)
    media_type = MEDIA_TYPES.get(Path(name).suffix, OTHER_MEDIA_TYPE)
    statement = insert(Artifact).values(
        job_id=job_id, name=name, attempt=attempt, sha256=stored.sha256, bytes=stored.bytes, media_type=media_type
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Artifact.job_id, Artifact.name],
            set_={key: statement.excluded[key] for key in ("attempt", "sha256", "bytes", "media_type", "created_at")},
            where=Artifact.attempt <= statement.excluded.attempt,
        )
    )


def of_job(session: Session, job_id: str) -> Sequence[Artifact]:
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def get(session: Session, job_id: str, name: str) -> Artifact:
    """Raises NotFound, with the names that there are."""
    artifact = session.get(Artifact, (job_id, name))
    if artifact is None:
        there = ", ".join(file.name for file in of_job(session, job_id)) or "none yet"
        raise NotFound(f"This job has no artifact of that name. It has: {there}.")
    return artifact


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another has just collected it
        return time.time()

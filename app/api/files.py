"""/v1/jobs/{id}/artifacts: a job's files, one by one (with ranges) or as a zip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Header, Response
from starlette.responses import StreamingResponse
from zipstream import ZIP_STORED, ZipStream

from app import artifacts, jobs
from app.api import deps, shapes
from app.api.deps import ArtifactName, IfNoneMatch, InTransaction, JobId
from app.api.shapes import Artifacts
from app.artifacts import Stored
from app.errors import NotFound, Problem

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"])

_BLOCK = 256 * 1024
Range = Annotated[str | None, Header(alias="range", description="bytes=FROM-TO: one part")]
IfRange = Annotated[str | None, Header(description="an ETag: the range is given only while it still holds")]
_FILE = {
    "content": {
        media_type: {"schema": {} if media_type == "application/json" else {"type": "string", "format": "binary"}}
        for media_type in sorted({*artifacts.MEDIA_TYPES.values(), artifacts.OTHER_MEDIA_TYPE})
    }
}


@router.get("/{job_id}/artifacts", responses=deps.problem_responses("not_found"), summary="List a job's files")
def list_artifacts(session: InTransaction, job_id: JobId) -> Artifacts:
    jobs.get(session, job_id)
    return Artifacts(data=[shapes.of_artifact(artifact) for artifact in artifacts.of_job(session, job_id)])


@router.get(
    "/{job_id}/artifacts.zip",
    response_class=Response,
    responses={
        200: {
            "description": "A zip.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **deps.problem_responses("not_found"),
    },
    summary="Download all of a job's files",
)
@deps.looks_twice
def get_zip(session: InTransaction, job_id: JobId) -> Response:
    """Streamed as it is read. `SHA256SUMS` inside is what `sha256sum -c` takes."""
    jobs.get(session, job_id)
    files = artifacts.of_job(session, job_id)
    if not files:
        raise NotFound("This job has no artifacts yet. They are kept when it succeeds.")
    # Sized: the length is known before the first byte, so that a cut download is noticed.
    bundle = ZipStream(compress_type=ZIP_STORED, sized=True)
    for artifact in files:
        bundle.add_path(str(artifacts.blob(artifact.sha256)), arcname=f"{job_id}/{artifact.name}")
    sums = "".join(f"{artifact.sha256}  {artifact.name}\n" for artifact in files)
    bundle.add(sums, arcname=f"{job_id}/SHA256SUMS")
    headers = {
        "content-length": str(len(bundle)),
        "content-disposition": f'attachment; filename="{job_id}.zip"',
        "cache-control": "private, no-cache",
    }
    return StreamingResponse(iter(bundle), media_type="application/zip", headers=headers)


@router.get(
    "/{job_id}/artifacts/{name:path}",
    response_class=Response,
    responses={
        200: {"description": "The file.", **_FILE},
        206: {"description": "The part that was asked for.", **_FILE},
        304: {"description": "It has not changed."},
        **deps.problem_responses("not_found", "range_not_satisfiable"),
    },
    summary="Download one of a job's files",
)
@deps.looks_twice
def get_artifact(
    session: InTransaction,
    job_id: JobId,
    name: ArtifactName,
    if_none_match: IfNoneMatch = None,
    range_: Range = None,
    if_range: IfRange = None,
) -> Response:
    """The ETag is the file's sha256."""
    jobs.get(session, job_id)
    artifact = artifacts.get(session, job_id, name)
    stored = Stored(artifact.sha256, artifact.bytes)
    return sent(stored, Path(name).name, artifact.media_type, Asked(if_none_match, range_, if_range))


@dataclass(frozen=True)
class Asked:
    """The headers of a request for a file."""

    if_none_match: str | None
    range: str | None
    if_range: str | None


def sent(stored: Stored, name: str, media_type: str, asked: Asked) -> Response:
    """A file of the store, or the part of it that was asked for, under a name. Its ETag is its sha256."""
    etag = f'"{stored.sha256}"'
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    if deps.matches(etag, asked.if_none_match):
        return Response(status_code=304, headers=headers)
    part = _part(asked.range, stored.bytes) if asked.if_range in (None, etag) else None
    first, last = part or (0, stored.bytes - 1)
    headers["content-length"] = str(last - first + 1)
    if part:
        headers["content-range"] = f"bytes {first}-{last}/{stored.bytes}"
    # Opened before the first byte leaves: a missing file is an error, not a cut answer.
    source = artifacts.open_plain(artifacts.blob(stored.sha256))
    return StreamingResponse(_blocks(source, first, last), 206 if part else 200, headers, media_type)


def _part(header: str | None, length: int) -> tuple[int, int] | None:
    """First and last byte of a single range; None where the whole file is the right answer (RFC 9110 14.2).

    Raises:
        Problem: 416, the range begins behind the end.
    """
    # No blanks within (RFC 9110 14.1.1): two repeats of them side by side would try every way to share a long run.
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header or "", re.IGNORECASE | re.ASCII)
    if not match or not any(match.groups()):
        return None
    if not match[1]:
        first, last = max(0, length - int(match[2])), length - 1
    else:
        first, last = int(match[1]), min(int(match[2] or length), length - 1)
        if match[2] and int(match[2]) < first:
            return None
    if first >= length or first > last:
        raise Problem(
            "range_not_satisfiable",
            f"The file has {length} bytes; ask for a range within them.",
            headers={"content-range": f"bytes */{length}", "accept-ranges": "bytes"},
        )
    return first, last


def _blocks(source: BinaryIO, first: int, last: int) -> Iterator[bytes]:
    with source:
        source.seek(first)
        left = last - first + 1
        while left > 0 and (block := source.read(min(_BLOCK, left))):
            left -= len(block)
            yield block

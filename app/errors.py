"""Every problem that a client can meet: an HTTP answer that is no success. How jobs fail is `app/spec/failures.py`.

The list is closed. A `Problem` may be raised anywhere above this module; `app/api/problems.py` makes it an RFC 9457
`application/problem+json` answer. Titles and help texts here are the only words that reach a client besides what the
raiser writes: never the client's own input, the text of an exception, or a stack trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.spec.faults import MOST, Fault


@dataclass(frozen=True)
class ProblemType:
    """A kind of problem: `/problems/{code}` serves `title` and `help` as a page."""

    code: str
    status: int
    title: str
    help: str


def _problems(*types: ProblemType) -> Mapping[str, ProblemType]:
    return {kind.code: kind for kind in types}


PROBLEMS: Mapping[str, ProblemType] = _problems(
    ProblemType(
        "malformed_body",
        400,
        "The body cannot be read",
        "The body is not JSON as RFC 8259 defines it: bad syntax, bytes that are not UTF-8, NaN or Infinity, a number "
        "that a 64-bit float or integer cannot hold, a key given twice, a NUL or a lone surrogate in a string, "
        "a key of more than 256 characters, nesting deeper than 32 levels, or more than 1,000,000 lists and objects. "
        "`errors[].pointer` names the place. Nothing was stored.",
    ),
    ProblemType(
        "host_not_allowed",
        421,
        "This service does not answer to that host name",
        "The Host header names a host that this service was not told to serve, which is how a DNS rebinding attack "
        "looks. Use http://localhost:PORT, or add the name to BEQUEST_ALLOWED_HOSTS.",
    ),
    ProblemType(
        "origin_not_allowed",
        403,
        "Pages of another site may not call this service",
        "A browser sent this request for a page of another origin. Call the service from its own page, or from a "
        "program that sends no Origin header.",
    ),
    ProblemType(
        "not_found",
        404,
        "There is nothing here",
        "No such path, or no job, data set, model or artifact of that id or name. It may have been deleted. The lists "
        "(GET /v1/jobs, /v1/datasets, /v1/models) show what exists; /docs shows every path.",
    ),
    ProblemType(
        "report_not_ready",
        404,
        "The job has no report yet",
        "A report is written when a job succeeds. Follow GET /v1/jobs/{id}/events, or poll the job with "
        "`Prefer: wait=60`; a job that failed or was cancelled has its reason in `error` and `reason` instead.",
    ),
    ProblemType(
        "method_not_allowed",
        405,
        "This path does not take that method",
        "The path exists, the method does not; the Allow header lists the methods that do.",
    ),
    ProblemType(
        "request_timeout",
        408,
        "The body came too slowly",
        "A body holds room in the service while it is on its way. Send it without pauses, or in smaller parts: fewer rows to predict at "
        "a time, a smaller file. Nothing was stored; the same request may be sent again.",
    ),
    ProblemType(
        "conflict",
        409,
        "The present state does not allow that",
        "The thing exists and is in a state, or has dependants, that rule this out; `detail` names them. For instance "
        "a finished job cannot be cancelled, and a job that still runs cannot be deleted: cancel it first.",
    ),
    ProblemType(
        "dataset_in_use",
        409,
        "The data set is in use",
        "A job that has not finished needs this data set; `detail` names the job. Cancel it or wait for it, then "
        "delete the data set.",
    ),
    ProblemType(
        "dataset_not_ready",
        409,
        "The data set has no rows yet",
        "It is still being prepared, or could not be read: its `state` and `errors` in GET /v1/datasets/{id} say which.",
    ),
    ProblemType(
        "model_differs",
        409,
        "The model is no longer what it was when it was kept",
        "A kept model carries a few made rows with the answers that the trained network gave to them, and for pictures and sounds a made "
        "file with the row that it became. They are compared whenever the model is loaded; `detail` says what differs: another version of "
        "a library, or a damaged file. Install the versions in the model's manifest (`versions`), or train it anew.",
    ),
    ProblemType(
        "body_too_large",
        413,
        "The body is larger than this service takes",
        "JSON bodies are limited by BEQUEST_MAX_BODY_BYTES (256 kB), those to predict by BEQUEST_MAX_PREDICT_BYTES "
        "(16 MiB), uploads by BEQUEST_MAX_UPLOAD_BYTES (256 MiB). "
        "The limit counts what arrives, whatever Content-Length claims.",
    ),
    ProblemType(
        "unsupported_media_type",
        415,
        "The body has a type that this path does not take",
        "Send JSON with `content-type: application/json` (`curl --json`, or `-H 'content-type: application/json' -d` "
        "before curl 7.82): plain `curl -d` declares a form. Uploads are multipart/form-data (`curl -F`). Bodies are "
        "taken as they are: no Content-Encoding.",
    ),
    ProblemType(
        "range_not_satisfiable",
        416,
        "The file is shorter than the range asked for",
        "The Content-Range header of this answer holds the file's length.",
    ),
    ProblemType(
        "invalid",
        422,
        "The request has faults",
        "The body was read, and something in it is wrong. `errors` names every fault found, with a JSON pointer "
        "(RFC 6901) into the body, what was expected, and a hint. Nothing was stored. POST /v1/jobs/validate finds the "
        "same faults and starts no job; GET /v1/catalog has each kind's schema and an example.",
    ),
    ProblemType(
        "invalid_parameter",
        422,
        "A parameter of the request has a fault",
        "A query parameter, a header or a part of the path is wrong: `errors[].pointer` reads /query/NAME, "
        "/header/NAME or /path/NAME. /docs lists every parameter with its limits.",
    ),
    ProblemType(
        "not_available",
        422,
        "That is not available here",
        "The request is understood and asks for something that this installation does not offer. GET /v1/catalog lists "
        "all that works.",
    ),
    ProblemType(
        "idempotency_key_reused",
        422,
        "The Idempotency-Key belongs to another body",
        "A job was submitted with this key and another body before; `detail` names it. A retry repeats key and body; a new "
        "job takes a new key, a random UUID for instance. The key is free again when its job is deleted. Nothing was stored.",
    ),
    ProblemType(
        "dataset_invalid",
        422,
        "The file is not a data set that this service can read",
        "The upload was inspected in a separate process and refused: `errors` says what was found and what was "
        "expected, and how to go on. Nothing was stored. docs/data.md lists what may be sent.",
    ),
    ProblemType(
        "model_invalid",
        422,
        "The file is not a model that this service can take",
        "The file was read as data in a separate process, layer by layer, and refused: `errors` says for each layer what was found and "
        "what can be done. Nothing was stored. docs/models.md lists what may be sent.",
    ),
    ProblemType(
        "queue_full",
        429,
        "As many jobs are queued as may be",
        "Nothing was stored. Submit it again after the seconds that the Retry-After header names, or cancel jobs that are "
        "queued. The limit is BEQUEST_MAX_QUEUED.",
    ),
    ProblemType(
        "too_many_streams",
        429,
        "As many streams are open as may be",
        "Streams of events, logs that are followed and long polls each hold a connection. Close some, or ask again after the "
        "seconds that the Retry-After header names. The limit is BEQUEST_MAX_STREAMS.",
    ),
    ProblemType(
        "overloaded",
        429,
        "More requests are being answered than may be",
        "The service has more to do than it can answer soon, and did nothing for this request. Repeat it after the seconds that "
        "the Retry-After header names; a submission under an Idempotency-Key can be repeated in any case. Follow a job by its "
        "stream of events or by `Prefer: wait=60`, which count for nothing here, rather than by asking often. The limit is "
        "BEQUEST_MAX_REQUESTS.",
    ),
    ProblemType(
        "internal",
        500,
        "Something went wrong on our side",
        "A fault of the service. The log has the details under the `request_id` of this answer; quote it. Asking again "
        "is safe for GET and DELETE.",
    ),
    ProblemType(
        "inference_unavailable",
        503,
        "The inference process is not available at the moment",
        "The inference process does not answer. `bequest serve` starts it and restarts it within seconds; elsewhere "
        "run `python -m worker.inference` and set INFERENCE_URL. Predictions need it, and jobs with a network that was never "
        "submitted before; training is not affected.",
    ),
    ProblemType(
        "database_unavailable",
        503,
        "The database does not answer",
        "Nothing can be read or stored without it. GET /readyz tells what is missing. Ask again in a few seconds.",
    ),
    ProblemType(
        "disk_full",
        507,
        "There is no room to store that",
        "The disk that holds the data folder is full. GET /readyz shows the free bytes; delete jobs or data sets "
        "that are no longer needed.",
    ),
)


class Problem(Exception):
    """A request that cannot be answered as asked; becomes the HTTP answer.

    `detail` says what was expected and what to do, in words of our own. `headers` go out with the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.type = PROBLEMS[code]
        self.code = code
        self.status = self.type.status
        self.title = self.type.title
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


class NotFound(Problem):
    """Nothing of that id or name: 404."""

    def __init__(self, detail: str, *, code: str = "not_found") -> None:
        super().__init__(code, detail)


class Conflict(Problem):
    """The present state rules it out: 409."""

    def __init__(self, detail: str, *, code: str = "conflict") -> None:
        super().__init__(code, detail)


class Unavailable(Problem):
    """A part of the service does not answer: 503, with when to ask again."""

    def __init__(self, detail: str, *, code: str, retry_after: int = 5) -> None:
        super().__init__(code, detail, headers={"retry-after": str(retry_after)})


def refused(faults: Sequence[Fault], *, code: str = "invalid") -> Problem:
    """The 422 that names every fault, up to `MOST`; `not_available` when that is all that is wrong."""
    if code == "invalid" and faults and all(fault.code == "not_available" for fault in faults):
        code = "not_available"
    if len(faults) >= MOST:
        summary = f"Found many faults; errors names {MOST} of them."
    else:
        summary = f"Found {'1 fault' if len(faults) == 1 else f'{len(faults)} faults'}; each is named in errors."
    return Problem(code, f"{summary} Nothing was stored.", errors=faults[:MOST])

"""Talks to the inference program, over its Unix socket or INFERENCE_URL. The API itself loads no model and builds none."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from app import logs
from app.errors import Conflict, Problem, Unavailable
from app.settings import settings
from app.spec.adopted import Order
from app.spec.data import Decoding
from app.spec.faults import MOST, Fault, Invalid, pointer
from app.spec.models import Manifest
from app.spec.trace import Trace

log = logs.get(__name__)

# A little more than the program gives itself, so that its own refusal comes first.
_SECONDS = 33.0

_TRACE_SECONDS = 93.0  # as of a prediction; the first one waits until Keras is imported

_IMPORT_SECONDS = 183.0  # as of a prediction

_START_SECONDS = 30.0
"""How long to wait for a program that does not answer yet: in the service it starts together with the API."""

_given_up_until = 0.0

_TOO_LARGE = (
    "the model's answer to this row is not finite: a number in it is too large for it",
    "give numbers such as it was trained on; GET /v1/datasets/ID/preview shows some",
    "too_large",
)


_OPENS = "send a file that opens in a viewer or a player; the model's manifest.input.decode says what becomes of it"


def predict(model: Path, inputs: NDArray[np.float32]) -> dict[str, list[Any]]:
    """Every task's outputs for each row, (rows, units): probabilities, or values in the units of the data. `inputs` are as
    `encode_rows` makes them: as text, they would take both programs a hundred times as long.

    Raises:
        Invalid: rows have numbers for which the model has no answer.
        FileNotFoundError: the model was deleted in between.
        Problem: 409 when the model is not what it was when it was kept, 503 when the program does not answer in time, 500 when it fails.
    """
    body = io.BytesIO()
    np.save(body, inputs, allow_pickle=False)
    outputs: dict[str, list[Any]] = _predictions(model, {"content": body.getvalue()})["predictions"]
    return outputs


def predict_files(
    model: Path,
    files: Sequence[bytes],
    decoding: Decoding,
    beside: tuple[NDArray[np.float32], int] | None = None,
) -> tuple[dict[str, list[Any]], list[list[int] | None]]:
    """As `predict`, of files that a client sent; and the (height, width) of each that is a picture. They are decoded in
    the inference program: a hostile one meets no database there.

    Args:
        beside: rows of which the files are a part, and the number at which that begins in each.

    Raises:
        Invalid: files that cannot be read, pointers /file/0 and on; or as `predict`.
    """
    data = {"decoding": decoding.model_dump_json()}
    parts = [("file", (str(number), content)) for number, content in enumerate(files)]
    if beside is not None:
        rows = io.BytesIO()
        np.save(rows, beside[0], allow_pickle=False)
        data["at"] = str(beside[1])
        parts.append(("rows", ("rows", rows.getvalue())))
    answer = _predictions(model, {"data": data, "files": parts})
    return answer["predictions"], answer["sizes"]


def draw(content: bytes, boxes: Sequence[dict[str, Any]]) -> bytes:
    """A PNG of a picture that a client sent, with boxes on it, as `app.data.drawing` draws them.

    Raises:
        Invalid: it cannot be read. Problem: as `predict`.
    """
    body = {"data": {"drawn": json.dumps(list(boxes))}, "files": [("file", ("0", content))]}
    return _answered("/draw", {}, body).content


def _predictions(model: Path, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = _answered("/predict", {"model": str(model)}, body).json()
    except Problem as problem:
        if not isinstance(problem, Unavailable):
            model.stat()  # when it is gone, that is the reason
        raise
    return answer


def _answered(path: str, params: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    try:
        answer = _client().post(path, params=params, **body)
    except (httpx.HTTPError, RuntimeError) as error:
        log.warning("inference does not answer", error=type(error).__name__)
        raise Unavailable(
            "The inference process does not answer. `bequest serve` restarts it within seconds; training goes on.",
            code="inference_unavailable",
        ) from None
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Unavailable("The inference process is busy; ask again.", code="inference_unavailable")
    if answer.status_code == httpx.codes.CONFLICT:
        raise Conflict(
            f"This model is not what it was when it was kept: {answer.json()['detail']}.", code="model_differs"
        )
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        told = answer.json()
        broken = [Fault(pointer("file", number), why, _OPENS, "broken_file") for number, why in told.get("files", [])]
        rows = [Fault(pointer("inputs", row), *_TOO_LARGE) for row in told.get("rows", [])]
        many = [
            Fault("/inputs", told["detail"], f"send at most {most} rows at once", "too_large")
            for most in [told.get("most")]
            if most is not None
        ]
        raise Invalid([*many, *broken, *rows][:MOST])
    if answer.status_code != httpx.codes.OK:
        log.error("prediction failed", status=answer.status_code, answer=answer.text[:2000])
        raise Problem("internal", "The inference process could not answer; its log has the reason.")
    return answer


def trace(architecture: dict[str, Any], shape: Sequence[int]) -> Trace:
    """The trace of an architecture on inputs of its trunk's `shape`.

    Raises:
        ValueError: it does not take such inputs; with the program's own words.
        Unavailable: 503, the program does not answer, or has too much to do.
        Problem: 500 when it fails.
    """
    return Trace.model_validate_json(_of_network("/trace", architecture, shape))


def config(architecture: dict[str, Any], shape: Sequence[int]) -> Any:
    """The same network as Keras writes it, decoded. Errors as of `trace`."""
    return json.loads(_of_network("/config", architecture, shape))


def _of_network(path: str, architecture: dict[str, Any], shape: Sequence[int]) -> bytes:
    asked = {"architecture": architecture, "shape": list(shape)}
    answer = _worked(path, asked, _TRACE_SECONDS, "looks at a network that was never looked at before")
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        raise ValueError(answer.json()["detail"])
    return answer.content


def write(order: Order) -> Manifest:
    """Has a user's network written as a kept model, at `order.out`.

    Raises:
        Invalid: it cannot be one, pointers below /file and /classes.
        Unavailable: 503, the program does not answer, or has too much to do.
        Problem: 500 when it fails.
    """
    answer = _worked("/import", order.model_dump(mode="json"), _IMPORT_SECONDS, "writes a model that is sent")
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        raise Invalid(Fault(**fault) for fault in answer.json()["faults"])
    return Manifest.model_validate_json(answer.content)


def _worked(path: str, body: dict[str, Any], seconds: float, does: str) -> httpx.Response:
    """The program's answer, or its refusal (422), to work on a network. `does`: what it does there, in words."""
    try:
        answer = _patiently(path, body, seconds)
    except (httpx.HTTPError, RuntimeError) as error:
        log.warning("inference does not answer", error=type(error).__name__)
        raise Unavailable(
            f"The inference process, which {does}, does not answer. `bequest serve` restarts it within seconds; "
            "elsewhere run `python -m worker.inference` and set INFERENCE_URL.",
            code="inference_unavailable",
        ) from None
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Unavailable("The inference process is busy; ask again.", code="inference_unavailable")
    if answer.status_code not in (httpx.codes.OK, httpx.codes.UNPROCESSABLE_ENTITY):
        log.error("work on a network failed", path=path, status=answer.status_code, answer=answer.text[:2000])
        raise Problem("internal", "The inference process could not work on this network; its log has the reason.")
    return answer


def _patiently(path: str, body: dict[str, Any], seconds: float) -> httpx.Response:
    """The program's answer. A program that starts is waited for once, and not by everyone in turn."""
    global _given_up_until
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            return _client().post(path, json=body, timeout=httpx.Timeout(seconds, connect=2.0))
        except (httpx.ConnectError, RuntimeError):
            now = time.monotonic()
            if not settings().inference_url or now < _given_up_until or now > until:
                _given_up_until = max(_given_up_until, now + _START_SECONDS)
                raise
            time.sleep(0.2)


def alive() -> bool:
    """Whether the program answers now."""
    try:
        return _client().get("/healthz", timeout=1.0).status_code == httpx.codes.OK
    except (httpx.HTTPError, RuntimeError):
        return False


def _client() -> httpx.Client:
    address = settings().inference_url
    if not address:
        raise RuntimeError("INFERENCE_URL is not set")
    # httpcore forgets to close a socket that it could not connect; while the program starts, there is no file yet.
    if address.startswith("unix://") and not Path(address.removeprefix("unix://")).is_socket():
        raise RuntimeError("the inference program has not made its socket")
    return _connected(address)


@cache
def _connected(address: str) -> httpx.Client:
    """One pool of connections to it; proxies of the environment are not asked.

    Idle connections are not limited in number: httpcore (1.0.9) closes one too many just as another thread takes it up, 5 in 40,000
    requests of 64 threads.
    """
    timeout, limits = httpx.Timeout(_SECONDS, connect=2.0), httpx.Limits(max_keepalive_connections=None)
    if address.startswith("unix://"):
        transport = httpx.HTTPTransport(uds=address.removeprefix("unix://"), limits=limits)
        return httpx.Client(transport=transport, base_url="http://inference", timeout=timeout, trust_env=False)
    return httpx.Client(base_url=address, timeout=timeout, limits=limits, trust_env=False)

"""The inference program: `python -m worker.inference --bind unix:///path.sock | host:port`. CPU, warm models, bounded batches.

It answers with predictions of kept models, with traces of networks that nobody has traced yet (`app.spec.trace`), and writes the models
that users bring, once their files have become plain graphs and numbers (`app.model_files`).

It answers at once and imports Keras in the background. It knows the store's folder and nothing else: no database, no broker.
"""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the accelerators belong to training
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import asyncio
import importlib
import io
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvicorn
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app import logs
from app.data import decode, drawing, file_rows
from app.programs import KEEP_ALIVE_SECONDS
from app.settings import settings
from app.spec import architectures
from app.spec.adopted import Order
from app.spec.architectures import Architecture
from app.spec.data import Decoding
from app.spec.faults import Invalid, written
from worker.warm_models import (
    WAITS,
    WAITS_TO_TRACE,
    ModelDiffers,
    PredictionRefused,
    TooLarge,
    TooMany,
    WarmModels,
    not_finite,
)

CONFIG = "/config"
MOST_ROWS = 1024
SECONDS = WAITS
TRACE_SECONDS = WAITS_TO_TRACE  # the first one waits until Keras is imported
IMPORT_SECONDS = 180.0
_MOST_WAITING = 16

log = logs.get(__name__)

Answer = TypeVar("Answer")

Sizes = list[list[int] | None]

_DECODING: TypeAdapter[Decoding] = TypeAdapter(Decoding)


class BrokenFiles(Exception):
    """Files that cannot be decoded: their numbers, and why."""

    def __init__(self, files: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(files)} files cannot be decoded")
        self.files = files


REFUSALS = (PredictionRefused, BrokenFiles, TooMany, TooLarge, ModelDiffers, TimeoutError)


def _refused(refusal: Exception) -> JSONResponse:
    """The answer to a request that one of REFUSALS ended."""
    match refusal:
        case PredictionRefused():
            return JSONResponse({"detail": str(refusal)}, 400)
        case BrokenFiles(files=files):
            return JSONResponse({"detail": str(refusal), "files": files}, 422)
        case TooMany(most=most):
            return JSONResponse({"detail": str(refusal), "most": most}, 422)
        case TooLarge(rows=rows):
            return JSONResponse({"detail": str(refusal), "rows": rows}, 422)
        case ModelDiffers():
            return JSONResponse({"detail": str(refusal)}, 409)
    return JSONResponse({"detail": str(refusal) or f"no answer within {SECONDS:.0f} s"}, 503)


class Handlers:
    """The program's answers, a few requests at a time, each in a thread."""

    def __init__(self, warm: WarmModels) -> None:
        self._warm, self._waiting = warm, 0
        # As many as may wait, however few processors there are: those that wait for the same model are answered together.
        self._threads = ThreadPoolExecutor(_MOST_WAITING)

    async def healthz(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "keras": "keras" in sys.modules})

    async def predict(self, request: Request) -> JSONResponse:
        if self._waiting >= _MOST_WAITING:
            return JSONResponse({"detail": "too many predictions wait"}, 503)
        path = Path(request.query_params.get("model", ""))
        try:
            rows, sizes = await self._asked(request)
            answers = await self._in_a_thread(SECONDS, self._warm.predict, path, rows)
        except REFUSALS as refusal:
            return _refused(refusal)
        except Exception as error:
            log.exception("prediction_failed", model=path.name)
            return JSONResponse({"detail": type(error).__name__}, 500)
        if not_finite(answers):
            return JSONResponse({"detail": "the model's answer is not finite"}, 500)
        predictions = {name: answer.tolist() for name, answer in answers.items()}
        return JSONResponse({"predictions": predictions, "sizes": sizes})

    async def _asked(self, request: Request) -> tuple[NDArray[np.float32], Sizes]:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return _rows(await _body(request)), []
        form = await _form(request)
        rows, sizes = await self._in_a_thread(SECONDS, _decoded, form.files, form.fields.get("decoding"))
        return (rows if form.beside is None else _beside(rows, form)), sizes

    async def draw(self, request: Request) -> Response:
        if self._waiting >= _MOST_WAITING:
            return JSONResponse({"detail": "too many requests wait"}, 503)
        try:
            form = await _form(request)
            picture = await self._in_a_thread(SECONDS, _drawn, form.files, form.fields.get("drawn"))
        except REFUSALS as refusal:
            return _refused(refusal)
        return Response(picture, media_type="image/png")

    async def network(self, request: Request) -> Response:
        if self._waiting >= _MOST_WAITING:
            return JSONResponse({"detail": "too many requests wait"}, 503)
        try:
            architecture, shape = _network(await _body(request))
        except PredictionRefused as refusal:
            return JSONResponse({"detail": str(refusal)}, 400)
        try:
            look = partial(self._warm.network, architecture, shape, whole=request.url.path == CONFIG)
            found = await self._in_a_thread(TRACE_SECONDS, look)
        except TimeoutError as late:
            return JSONResponse({"detail": str(late) or f"no answer within {TRACE_SECONDS:.0f} s"}, 503)
        except ValueError as refusal:
            return JSONResponse({"detail": str(refusal)}, 422)
        except Exception as error:
            log.exception("trace_failed", architecture=architecture.arch)
            return JSONResponse({"detail": type(error).__name__}, 500)
        return Response(found, media_type="application/json")

    async def write(self, request: Request) -> Response:
        if self._waiting >= _MOST_WAITING:
            return JSONResponse({"detail": "too many requests wait"}, 503)
        try:
            order = Order.model_validate_json(await _body(request))
            manifest = await self._in_a_thread(IMPORT_SECONDS, self._warm.write, order)
        except TimeoutError as late:
            return JSONResponse({"detail": str(late) or f"no answer within {IMPORT_SECONDS:.0f} s"}, 503)
        except (PredictionRefused, ValidationError) as refusal:
            return JSONResponse({"detail": str(refusal)}, 400)
        except Invalid as invalid:
            return JSONResponse({"faults": written(invalid.faults)}, 422)
        except Exception as error:
            log.exception("import_failed")
            return JSONResponse({"detail": type(error).__name__}, 500)
        return Response(manifest.model_dump_json(), media_type="application/json")

    async def _in_a_thread(self, seconds: float, function: Callable[..., Answer], *arguments: object) -> Answer:
        """The result of `function`. Raises TimeoutError where that takes too long; the call then goes on, and counts as waiting."""
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

        def done(future: asyncio.Future[Any]) -> None:
            self._waiting -= 1
            if not future.cancelled():
                future.exception()  # it was told to the client, or the client has gone

        work.add_done_callback(done)
        return await asyncio.wait_for(asyncio.shield(work), seconds)


def create_app(warm: WarmModels | None = None) -> Starlette:
    handlers = Handlers(warm or WarmModels())

    @asynccontextmanager
    async def warm_up(_: Starlette) -> AsyncIterator[None]:
        device = importlib.import_module("worker.training.process.device")
        threading.Thread(target=device.import_keras, name="import keras", daemon=True).start()
        yield

    routes = [
        Route("/healthz", handlers.healthz),
        Route("/predict", handlers.predict, methods=["POST"]),
        Route("/draw", handlers.draw, methods=["POST"]),
        Route("/trace", handlers.network, methods=["POST"]),
        Route(CONFIG, handlers.network, methods=["POST"]),
        Route("/import", handlers.write, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=warm_up)


async def _body(request: Request) -> bytes:
    body, longest = (
        bytearray(),
        2 * settings().max_predict_bytes + 2**20,
    )  # as text, a number takes two bytes at least, here four
    async for part in request.stream():
        body += part
        if len(body) > longest:
            raise PredictionRefused(f"the body is longer than {longest} bytes")
    return bytes(body)


def _rows(body: bytes) -> NDArray[np.float32]:
    try:
        rows = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise PredictionRefused("expected rows as np.save writes them") from None
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float32 or rows.ndim < 2:
        raise PredictionRefused("expected an array of float32, (rows, ...)")
    if not 1 <= len(rows) <= MOST_ROWS:
        raise PredictionRefused(f"expected 1 to {MOST_ROWS} rows")
    return rows


@dataclass(frozen=True)
class _Form:
    """Files, the rows of which they are a part (as `_rows` takes them; None: they are all of a row), and the fields beside them."""

    files: list[bytes]
    beside: bytes | None
    fields: dict[str, object]


async def _form(request: Request) -> _Form:
    """Raises PredictionRefused."""
    length = int(request.headers.get("content-length", "0"))
    if not 0 < length <= 2 * settings().max_predict_bytes + 2**20:
        raise PredictionRefused("expected files of a known length, within the limit of a prediction")
    async with request.form(max_files=MOST_ROWS + 1, max_fields=2) as form:
        files = [await file.read() for file in form.getlist("file") if isinstance(file, UploadFile)]
        rows = form.get("rows")
        beside = await rows.read() if isinstance(rows, UploadFile) else None
        return _Form(files, beside, {name: form[name] for name in form if name not in ("file", "rows")})


def _beside(decoded: NDArray[np.float32], form: _Form) -> NDArray[np.float32]:
    """The rows of a form with what its files became, from the number `at` on. Raises PredictionRefused."""
    whole, numbers, at = _rows(form.beside or b""), decoded.reshape(len(decoded), -1), str(form.fields.get("at"))
    if len(whole) != len(numbers) or not at.isdecimal() or int(at) + numbers.shape[1] > whole.shape[1]:
        raise PredictionRefused("expected a row for each file, and in `at` where in it the file's numbers begin")
    whole[:, int(at) : int(at) + numbers.shape[1]] = numbers
    return whole


def _drawn(files: Sequence[bytes], boxes: object) -> bytes:
    """A picture with boxes on it, a PNG. Raises BrokenFiles, PredictionRefused."""
    try:
        (content,), told = files, json.loads(str(boxes))
        return drawing.drawn(content, told)
    except decode.Undecodable as error:
        raise BrokenFiles([(0, str(error))]) from None
    except (ValueError, KeyError, TypeError):
        raise PredictionRefused("expected one file, and the field drawn, JSON of what is drawn on it") from None


def _decoded(files: Sequence[bytes], decoding: object) -> tuple[NDArray[np.float32], Sizes]:
    """The rows that files become, (files, …), and the (height, width) of pictures. Raises BrokenFiles,
    PredictionRefused."""
    try:
        how = _DECODING.validate_json(str(decoding))
    except ValueError:
        raise PredictionRefused("expected the field decoding, JSON of how a file becomes a row") from None
    if not 1 <= len(files) <= MOST_ROWS:
        raise PredictionRefused(f"expected 1 to {MOST_ROWS} files")
    rows, sizes, broken = list[NDArray[np.float32]](), Sizes(), list[tuple[int, str]]()
    for number, content in enumerate(files):
        try:
            rows.append(file_rows.row(content, how).astype(np.float32))
            sizes.append(file_rows.size(content, how))
        except file_rows.UNDECODABLE as error:
            broken.append((number, str(error)))
    if broken:
        raise BrokenFiles(broken)
    return np.stack(rows), sizes


def _network(body: bytes) -> tuple[Architecture, list[int]]:
    try:
        asked = json.loads(body)
        architecture, shape = architectures.resolve(asked["architecture"]), asked["shape"]
    except (ValueError, KeyError, TypeError, Invalid):
        raise PredictionRefused("expected JSON with architecture (one that is known here) and shape") from None
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise PredictionRefused("expected a shape of positive whole numbers")
    return architecture, shape


def listen(bind: str) -> socket.socket:
    """A listening socket at `unix:///path` (open to this user only) or `host:port`."""
    if bind.startswith("unix://"):
        path = Path(bind.removeprefix("unix://"))
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(path))
        finally:
            os.umask(mask)
        return listener
    host, _, port = bind.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.create_server((host.strip("[]") or "127.0.0.1", int(port)), family=family)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worker.inference", description="Answers predictions from models in the store."
    )
    parser.add_argument("--bind", default="127.0.0.1:8001", help="unix:///path.sock or host:port")
    serve(parser.parse_args(arguments).bind)


def serve(bind: str, warm: WarmModels | None = None) -> None:
    """Answers at an address until the process is told to end."""
    logs.configure()
    listener = listen(bind)
    log.info("inference_listens", bind=bind)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(warm),
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
    )
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()

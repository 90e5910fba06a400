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
import stat
import sys
import threading
import zipfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
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
from app.data import decode, drawing, file_rows, tokens
from app.programs import KEEP_ALIVE_SECONDS
from app.settings import settings
from app.spec import architectures
from app.spec.adopted import Order
from app.spec.architectures import Architecture
from app.spec.data import Decoding
from app.spec.faults import Invalid, written
from app.spec.models import Manifest

CONFIG = "/config"
MOST_ROWS = 1024
SECONDS = 30.0
TRACE_SECONDS = 90.0  # the first one waits until Keras is imported
IMPORT_SECONDS = 180.0
_MOST_WAITING = 16
_MOST_MODELS, _MOST_MODEL_BYTES = 16, 2**30
_ROWS_AT_ONCE = 256
_MOST_NUMBERS = 2**23  # of all answers, which are written as text: heads on maps have many for each row

log = logs.get(__name__)

Answer = TypeVar("Answer")

Sizes = list[list[int] | None]

_DECODING: TypeAdapter[Decoding] = TypeAdapter(Decoding)


class PredictionRefused(Exception):
    """A request that asks for what this program does not do. Its message says what it does."""


class BrokenFiles(Exception):
    """Files that cannot be decoded: their numbers, and why."""

    def __init__(self, files: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(files)} files cannot be decoded")
        self.files = files


class TooLarge(Exception):
    """Rows whose numbers overflow in a model that answers others."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"no finite answer to {len(rows)} rows")
        self.rows = rows


class TooMany(Exception):
    """Rows whose answers would hold too many numbers; `most`: so many may be asked about."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the answers to so many rows hold more than {_MOST_NUMBERS} numbers")
        self.most = most


class ModelDiffers(Exception):
    """A model that cannot be loaded here, or no longer answers as it did when it was kept. The message says in what."""


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
    return JSONResponse({"detail": f"no answer within {SECONDS:.0f} s"}, 503)


class Warm:
    """Loaded models, the most recently used ones, one prediction at a time."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, int], tuple[Any, Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def predict(self, path: Path, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Every task's answers, (rows, units) each; and under `tokens.SEEN` the ids of texts that the model sees in tokens.

        Raises:
            PredictionRefused: the path is no model in the store, or its rows have another shape.
            TooLarge: it has no finite answer to some rows, and one to a row of zeros.
            TooMany: the answers are too long to be sent.
            ModelDiffers: it is not what it was when it was kept.
        """
        with self._lock:
            model, tokenizer = self._model(path)
            inputs = _given(model, tokenizer, inputs)
            expected = tuple(model.inputs[0].shape[1:])
            if inputs.shape[1:] != expected:
                raise PredictionRefused(f"expected rows of shape {expected}")
            answers = _answers(model, inputs)
            if tokenizer is not None:
                answers[tokens.SEEN] = inputs
            unanswered = _not_finite(answers)
            if unanswered and not _not_finite(_answers(model, np.zeros_like(inputs[:1]))):
                raise TooLarge(unanswered)
            return answers

    def network(self, architecture: Architecture, shape: list[int], *, whole: bool) -> str:
        """JSON: the trace of an architecture on inputs of `shape`, or the `whole` as Keras writes it. Raises ValueError."""
        with self._lock:
            trunk = importlib.import_module("worker.training.networks.trunk")
            return str(
                trunk.config(architecture, shape) if whole else trunk.trace(architecture, shape).model_dump_json()
            )

    def write(self, order: Order) -> Manifest:
        """Writes a user's network as a kept model. Raises Invalid: it cannot be one; PredictionRefused: a path is not the service's own."""
        paths = [Path(path) for path in (order.arrays, order.out, order.labelled, order.tokenizer) if path is not None]
        if not all(path.resolve().is_relative_to((settings().store / "tmp").resolve()) for path in paths):
            raise PredictionRefused("only files in the store's folder tmp are read and written")
        with self._lock:
            imported = importlib.import_module("worker.training.kept.imported")
            manifest: Manifest = imported.write(order)
            return manifest

    def _model(self, path: Path) -> tuple[Any, Any]:
        """A loaded model, and what makes ids of stored texts, where it takes ids."""
        key, length = _checked(path)
        if key not in self._models:
            self._models[key] = (*_loaded(Path(key[0])), length)
            while len(self._models) > 1 and (
                len(self._models) > _MOST_MODELS or sum(size for *_, size in self._models.values()) > _MOST_MODEL_BYTES
            ):
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key][:2]


def _loaded(path: Path) -> tuple[Any, Any]:
    """The model, and what makes ids of stored texts, where it takes ids; once it has answered its golden rows as the trained network did.

    Raises:
        ModelDiffers: it has not.
    """
    keras, golden_rows = importlib.import_module("keras"), importlib.import_module("worker.training.kept.golden")
    try:
        model, golden = keras.saving.load_model(path, compile=False, safe_mode=True), golden_rows.read(path)
        content = tokens.within(path)
        tokenizer = None if content is None else tokens.opened(content)
        few = None if golden is None else golden_rows.few(golden)
        found = (
            []
            if few is None
            else golden_rows.differences(few, lambda rows: model(_given(model, tokenizer, rows), training=False))
        )
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        log.exception("model_cannot_be_loaded", model=path.name)
        raise ModelDiffers(f"its file cannot be loaded ({type(error).__name__})") from error
    if found:
        log.error("model_differs", model=path.name, differences=found)
        raise ModelDiffers("; ".join(found))
    return model, tokenizer


def _given(model: Any, tokenizer: Any, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stored rows as the model takes them."""
    return rows if tokenizer is None else tokens.of_rows(rows, tokenizer, model.inputs[0].shape[1])


def _answers(model: Any, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Raises TooMany as soon as the first rows show it."""
    parts = list[Any]()
    for at in range(0, len(inputs), _ROWS_AT_ONCE):
        parts.append(model(inputs[at : at + _ROWS_AT_ONCE], training=False))
        numbers = sum(prod(answer.shape[1:]) for answer in parts[0].values())
        if numbers * len(inputs) > _MOST_NUMBERS and len(inputs) > 1:
            raise TooMany(max(1, _MOST_NUMBERS // numbers))
    return {name: np.concatenate([np.asarray(part[name], np.float32) for part in parts]) for name in parts[0]}


def _not_finite(answers: dict[str, NDArray[np.float32]]) -> list[int]:
    """The rows to which an answer is NaN or infinite."""
    finite = [np.isfinite(answer).reshape(len(answer), -1).all(axis=1) for answer in answers.values()]
    return np.flatnonzero(~np.logical_and.reduce(finite)).tolist()


class Handlers:
    """The program's answers, a few requests at a time, each in a thread."""

    def __init__(self, warm: Warm) -> None:
        self._warm, self._waiting = warm, 0

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
        if _not_finite(answers):
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
        except TimeoutError:
            return JSONResponse({"detail": f"no answer within {TRACE_SECONDS:.0f} s"}, 503)
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
        except TimeoutError:
            return JSONResponse({"detail": f"no answer within {IMPORT_SECONDS:.0f} s"}, 503)
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
        work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)

        def done(future: asyncio.Future[Any]) -> None:
            self._waiting -= 1
            if not future.cancelled():
                future.exception()  # it was told to the client, or the client has gone

        work.add_done_callback(done)
        return await asyncio.wait_for(asyncio.shield(work), seconds)


def create_app(warm: Warm | None = None) -> Starlette:
    handlers = Handlers(warm or Warm())

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


def _checked(path: Path) -> tuple[tuple[str, int], int]:
    """A model file of the store, as a key that changes with its content, and its length. Loading any other file could run its code."""
    try:
        real = path.resolve(strict=True)
        there = real.stat()
    except OSError:
        raise PredictionRefused("there is no such model file") from None
    if (
        not real.is_relative_to(settings().store.resolve())
        or real.suffix != ".keras"
        or not stat.S_ISREG(there.st_mode)
    ):
        raise PredictionRefused("only .keras files in the store are loaded")
    return (str(real), there.st_mtime_ns), there.st_size


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
    bind = parser.parse_args(arguments).bind
    logs.configure()
    listener = listen(bind)
    log.info("inference_listens", bind=bind)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(),
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
    )
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()

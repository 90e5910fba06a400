"""`bequest datasets`: a folder or a file of this machine becomes a data set of a service, and what became of it is shown.
`bequest pretrained`: so does an installed package's network become a model.

The service knows a data set by its bytes. So it is asked first whether it has them, and a connection that breaks is no harm: what
has arrived is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import httpx
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from app.data import folder_tar, uploads
from app.pretrained import conversion
from app.pretrained.hugging_face import reading
from app.pretrained.hugging_face.folder import of_path
from app.pretrained.table import PREFIX, TABLE
from app.spec.faults import Invalid
from app.spec.intake import Fit, UploadOptions, columns_in, size_of

TRIES = 6
RETRY_SECONDS, LONGEST_RETRY_SECONDS, POLL_SECONDS = 1.0, 30.0, 1.0
_TIMEOUT = httpx.Timeout(60, read=600)  # an upload may have to wait for its turn
_BUSY = (408, 429, 503)
_LOCAL = ("127.0.0.1", "localhost", "::1")
_MOST_BYTES = 2**63


class Refused(Exception):
    """The service, or this machine, says no. Each line says one reason."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Asked:
    """How a data set is to be read, in the words of the form."""

    name: str | None = None
    targets: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    size: str | None = None
    fit: str | None = None
    length: int | None = None
    rate: int | None = None
    seconds: float | None = None
    skip_broken: bool = False

    def form(self) -> dict[str, Any]:
        texts = {
            "name": self.name,
            "targets": ",".join(self.targets),
            "inputs": ",".join(self.inputs),
            "size": self.size,
            "fit": self.fit,
            "length": self.length and str(self.length),
            "rate": self.rate and str(self.rate),
            "seconds": self.seconds and f"{self.seconds:g}",
            "skip_broken": "true" if self.skip_broken else None,
        }
        return {name: text for name, text in texts.items() if text}

    def options(self) -> dict[str, Any]:
        """As a data set of the service says them."""
        try:
            options = UploadOptions(
                targets=columns_in(self.targets),
                inputs=columns_in(self.inputs),
                size=size_of(self.size) if self.size else None,
                fit=cast("Fit | None", self.fit),
                length=self.length,
                rate=self.rate,
                seconds=self.seconds,
                skip_broken=self.skip_broken,
            )
        except ValueError:  # the service says what is wrong with them
            return {}
        return options.model_dump(mode="json")


@dataclass(frozen=True)
class _Local:
    """What is to be sent: an open file, its name, its hash and its format (None: the service will say)."""

    file: BinaryIO
    name: str
    sha256: str
    format: str | None


def add(path: Path, asked: Asked, url: str, console: Console) -> int:
    """Sends a file, or a folder as a tar, and waits until it is read. 0 when it is a data set, else 1: all faults are shown."""
    try:
        with _connected(url) as client:
            local = _opened(path, console)
            with local.file:
                entry = _send(client, local, asked, console)
            entry = _awaited(client, entry, console)
        if entry["state"] == "failed":
            raise Refused(*map(_fault, entry["errors"]))
    except Refused as refused:
        for line in str(refused).splitlines():
            console.print(Text(line, style="red"), soft_wrap=True)
        return 1
    show(entry, url, console)
    return 0


def list_all(url: str, console: Console) -> int:
    """Shows every data set of the service. 0, or 1 where it does not answer."""
    table = Table(Column("id", no_wrap=True), "name", "state", "rows", "input", "target", box=SIMPLE)
    try:
        with _connected(url) as client:
            page: str | None = "/v1/datasets?limit=200"
            while page:
                answer = _answered(client, page)
                for entry in answer.json()["data"]:
                    schema = entry["schema"] or {}
                    cells = [
                        entry["id"],
                        entry["name"],
                        entry["state"],
                        _count(schema),
                        _input(schema),
                        schema.get("target"),
                    ]
                    table.add_row(*(Text(cell or "") for cell in cells))
                page = answer.links.get("next", {}).get("url")
    except Refused as refused:
        console.print(Text(str(refused), style="red"), soft_wrap=True)
        return 1
    console.print(table)
    return 0


@contextmanager
def _connected(url: str) -> Iterator[httpx.Client]:
    """A client of the service. Raises Refused where nobody answers, or somebody else."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise Refused(f"{url} is no address of a service: give --url http://HOST:PORT")
    outside = urlsplit(url).hostname not in _LOCAL  # a proxy of the environment is not asked about this machine
    with httpx.Client(base_url=url, timeout=_TIMEOUT, trust_env=outside) as client:
        try:
            client.get("/healthz")
        except httpx.HTTPError as error:
            hint = "start one with `bequest serve`, or give its address with --url or in BEQUEST_URL"
            raise Refused(f"no service answers at {url} ({type(error).__name__}): {hint}") from None
        yield client


@contextmanager
def _bar(console: Console, what: str, *, in_bytes: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left, on a terminal. Yields what is told (done, total) as it goes on."""
    counts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn(what), BarColumn(), *counts, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total or None)


class _Counted:
    """A file that says how much of it was read. httpx reads it, and asks the system for its length."""

    def __init__(self, file: IO[bytes], told: Callable[[int, int], None]):
        self._file, self._told, self._total = file, told, os.fstat(file.fileno()).st_size
        file.seek(0)

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, length: int = -1) -> bytes:
        block = self._file.read(length)
        self._told(self._file.tell(), self._total)
        return block


def _opened(path: Path, console: Console) -> _Local:
    """The bytes of a file, or of a folder's tar in a temporary file. Raises Refused where they cannot be read."""
    is_folder = path.is_dir()
    try:
        with ExitStack() as unless_all_goes_well:
            file: Any = tempfile.TemporaryFile() if is_folder else path.open("rb")  # noqa: SIM115 - it stays open
            unless_all_goes_well.callback(file.close)
            if is_folder:
                _pack(path, file, console)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            local = _Local(file, path.resolve().name, sha256, _format(path))
            unless_all_goes_well.pop_all()
            return local
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from None


def _pack(path: Path, target: IO[bytes], console: Console) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _bar(console, "packing") as told:
            files = folder_tar.pack(folder, target, most=_MOST_BYTES, progress=told)
    except folder_tar.TooLarge as error:
        raise Refused(f"{path}: {error}") from None
    finally:
        os.close(folder)
    if not files:
        raise Refused(f"there is no file in {path}")
    target.seek(0)


def _format(path: Path) -> str | None:
    if path.is_dir():
        return "tar"
    try:
        return uploads.format_of(path, None)
    except Invalid:
        return None


def _send(client: httpx.Client, local: _Local, asked: Asked, console: Console) -> dict[str, Any]:
    """The data set of these bytes, sent where the service does not have it yet. Raises Refused."""
    wait = RETRY_SECONDS
    for left in reversed(range(TRIES)):
        try:
            if known := _known(client, local, asked):
                console.print(Text(f"The service has these bytes already, as {known['name']}; nothing was sent."))
                return known
            answer = _posted(client, local, asked, console)
            if answer.status_code not in _BUSY:
                return _body(answer)
            problem = f"the service is busy ({answer.status_code})"
            wait = max(wait, float(answer.headers.get("retry-after", "0")))
        except httpx.TransportError as error:
            problem = f"the connection broke ({type(error).__name__})"
        if left:
            console.print(f"{problem}: once more in {wait:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)
    raise Refused(f"{problem}, {TRIES} times: try again later, what has arrived is not sent twice")


def _known(client: httpx.Client, local: _Local, asked: Asked) -> dict[str, Any] | None:
    """The data set that the service has of these bytes, read as asked; None where it has none."""
    for entry in _body(client.get("/v1/datasets", params={"sha256": local.sha256}))["data"]:
        if (
            entry["state"] != "failed"
            and entry["format"] == local.format
            and (entry["options"] or {}) == asked.options()
        ):
            return _body(client.get(f"/v1/datasets/{entry['id']}"))
    return None


def _posted(client: httpx.Client, local: _Local, asked: Asked, console: Console) -> httpx.Response:
    with _bar(console, "sending") as told:
        counted = cast("BinaryIO", _Counted(local.file, told))
        return client.post("/v1/datasets", files={"file": (local.name, counted)}, data=asked.form())


def _awaited(client: httpx.Client, entry: dict[str, Any], console: Console) -> dict[str, Any]:
    """The data set as soon as it is ready or failed."""
    if entry["state"] != "preparing":
        return entry
    with _bar(console, "reading", in_bytes=False) as told:
        while entry["state"] == "preparing":
            if progress := entry["progress"]:
                told(progress["done"], progress["total"])
            time.sleep(POLL_SECONDS)
            entry = _answered(client, f"/v1/datasets/{entry['id']}").json()
    return entry


def _answered(client: httpx.Client, path: str) -> httpx.Response:
    """An answer of 2xx, waited for while the connection is broken. Raises Refused."""
    for left in reversed(range(TRIES)):
        try:
            answer = client.get(path)
            if answer.status_code not in _BUSY:
                _body(answer)
                return answer
        except httpx.TransportError as error:
            if not left:
                raise Refused(f"the service does not answer any more ({type(error).__name__})") from None
        time.sleep(RETRY_SECONDS)
    raise Refused("the service is busy: try again later")


def _body(answer: httpx.Response) -> dict[str, Any]:
    """The JSON of an answer of 2xx. Raises Refused with all faults of another."""
    try:
        body = answer.json()
    except ValueError:
        raise Refused(f"what answers at {answer.url} is no such service: {answer.status_code} without JSON") from None
    if answer.is_success and isinstance(body, dict):
        return body
    problem = body if isinstance(body, dict) else {}
    errors = [_fault(fault) for fault in problem.get("errors", [])]
    raise Refused(*(errors or [str(problem.get("detail") or problem.get("title") or answer.status_code)]))


def _fault(fault: dict[str, Any]) -> str:
    hint = f" ({fault['hint']})" if fault.get("hint") else ""
    return f"{fault['pointer'] or '/'}: {fault['message']}{hint}"


def add_pretrained(name: str, url: str, console: Console, *, size: str | None, file: Path | None) -> int:
    """Makes a model of a network that others trained, and sends it. 0 when the service has it, else 1."""

    def convert(path: Path) -> str:
        entry = conversion.convert(name, path, size=_sides(size), file=file)
        return f"{entry.about}. {entry.licence}; {entry.source}"

    return _add(convert, f"{PREFIX}{name}", url, console)


def folder_in(name: str) -> Path | None:
    """The folder that an argument means, as a path or a file:// URI; None where it is the name of a known network."""
    if name in TABLE:
        return None
    path = Path(unquote(name.removeprefix("file://"))) if name.startswith("file://") else Path(name)
    return path if path.is_dir() or "/" in name else None


def add_folder(folder: Path, url: str, console: Console, *, name: str | None, size: str | None) -> int:
    """Makes a model of a folder as Hugging Face's libraries write it, and sends it. 0 when the service has it, else 1."""

    def convert(path: Path) -> str:
        network = reading.read(of_path(folder), reading.Asked(_sides(size)))
        network.write(path)
        return f"{folder.resolve().name}: {network.said.licence or 'no licence is said'}"

    return _add(convert, name or folder.resolve().name, url, console)


def _add(convert: Callable[[Path], str], name: str, url: str, console: Console) -> int:
    """Sends what `convert` writes, which says whose it is, and shows what the service made of it."""
    try:
        with tempfile.TemporaryDirectory(prefix="pretrained-") as folder, _connected(url) as client:
            path = Path(folder) / "network.zip"
            about = _converted(convert, path)
            model = _sent_model(client, path, name, console)
    except Refused as refused:
        for line in str(refused).splitlines():
            console.print(Text(line, style="red"), soft_wrap=True)
        return 1
    manifest = model["manifest"]
    console.print(Text(f"{model['id']}  {model['name']}: {manifest['parameters']:,} parameters", style="bold"))
    console.print(Text(about), soft_wrap=True)
    for task, answer in manifest["tasks"].items():
        classes = answer["classes"] or []
        shown = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
        console.print(Text(f"it answers {task}: {answer['type']} {shown}".rstrip()), soft_wrap=True)
    for note in manifest["origin"]["notes"]:
        console.print(Text(f"* {note}"), soft_wrap=True)
    console.print("To go on:")
    source = model["name"] if model["name"].startswith(PREFIX) else f"model:{model['name']}"
    job = {"kind": "transfer", "dataset": "YOURS", "source": source, "control": {"seeds": 5}}
    console.print(Text(f"curl --json '{json.dumps(job)}' {url}/v1/jobs"), soft_wrap=True)
    return 0


def _sides(size: str | None) -> tuple[int, int] | None:
    sides = size_of(size) if size else None
    if size and sides is None:
        raise Refused("expected --size HEIGHTxWIDTH, as in 96x96")
    return sides


def _converted(convert: Callable[[Path], str], path: Path) -> str:
    try:
        return convert(path)
    except conversion.Unavailable as unavailable:
        raise Refused(str(unavailable)) from None
    except Invalid as invalid:
        places = (f"{fault.pointer.removeprefix('/')}: " if fault.pointer else "" for fault in invalid.faults)
        raise Refused(
            *(f"{at}{fault.message} ({fault.hint})" for at, fault in zip(places, invalid.faults, strict=True))
        ) from None


def _sent_model(client: httpx.Client, path: Path, name: str, console: Console) -> dict[str, Any]:
    """The model that the service made of a file. The same file is the same model, so it may be sent again. Raises Refused."""
    for left in reversed(range(TRIES)):
        try:
            with path.open("rb") as file, _bar(console, "sending") as told:
                counted = cast("BinaryIO", _Counted(file, told))
                answer = client.post("/v1/models", files={"file": (path.name, counted)}, data={"name": name})
            if answer.status_code not in _BUSY:
                return _body(answer)
            problem = f"the service is busy ({answer.status_code})"
        except httpx.TransportError as error:
            problem = f"the connection broke ({type(error).__name__})"
        if left:
            time.sleep(RETRY_SECONDS)
    raise Refused(f"{problem}, {TRIES} times: try again later")


def list_pretrained(console: Console) -> None:
    """Shows the networks that are known, and whether the package of each is here."""
    table = Table(Column("name", no_wrap=True), "what", "licence", "of the package", box=SIMPLE)
    for name, entry in TABLE.items():
        here = "installed" if conversion.installed(entry) else entry.install
        table.add_row(*(Text(cell) for cell in (name, entry.about, entry.licence, here)))
    console.print(table)
    console.print("bequest pretrained add NAME makes it the model pretrained:NAME of a running service.")


def show(entry: dict[str, Any], url: str, console: Console) -> None:
    """What a data set looks like, what became of each part of the upload, and how to go on."""
    schema, intake = entry["schema"], entry["intake"] or {}
    console.print(Text(f"{entry['id']}  {entry['name']}: {schema['rows']} rows, {_input(schema)}", style="bold"))
    files = Table("files or rows", "", "why", "as", box=SIMPLE)
    files.add_row("used", str(intake.get("used", schema["rows"])), "", "")
    for state in ("ignored", "broken"):
        for counted in intake.get(state, []):
            examples = ", ".join(counted["examples"][:3])
            files.add_row(state, str(counted["count"]), Text(counted["reason"]), Text(examples))
    console.print(files)
    if readings := intake.get("columns"):
        columns = Table("column", "read as", "why", box=SIMPLE)
        for reading in readings:
            columns.add_row(*(Text(reading[part]) for part in ("column", "read_as", "why")))
        console.print(columns)
    for note in intake.get("notes", []):
        console.print(Text(f"* {note}"))
    if entry["next"]:
        console.print("To go on:")
        console.print(Text(entry["next"].replace("$S", url)), soft_wrap=True)


def _input(schema: dict[str, Any]) -> str | None:
    if not schema:
        return None
    shape = " × ".join(map(str, schema["input"]["shape"]))
    return f"{schema['input']['kind']} {shape}"


def _count(schema: dict[str, Any]) -> str | None:
    return f"{schema['rows']:,}" if schema else None

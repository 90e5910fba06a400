"""/v1/datasets: built-ins and uploads; the same bytes are the same data set; what is broken stores nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from app import datasets, intake
from app.settings import settings
from app.spec.faults import Fault, Invalid
from tests.app.api.conftest import add_job, deleting, pointers, problem
from tests.app.api.uploads import upload

CSV = "length,colour,species\n" + "".join(
    f"{number % 7},{'red' if number % 2 else 'blue'},{'setosa' if number % 3 else 'virginica'}\n"
    for number in range(60)
)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def uploads(client: httpx.Client) -> list[str]:
    return [entry["id"] for entry in client.get("/v1/datasets?limit=200").json()["data"] if not entry["builtin"]]


def stored() -> set[str]:
    """Every file in the store."""
    return {str(path) for path in settings().store.rglob("*") if path.is_file()}


def test_an_upload_is_201_and_the_same_bytes_again_200(client: httpx.Client) -> None:
    first = upload(client, CSV.encode(), name="flowers", targets="species")
    assert first.status_code == 201, first.text
    body = first.json()
    assert first.headers["location"] == f"/v1/datasets/{body['id']}"
    assert body["id"].startswith("ds_")
    assert (body["name"], body["format"], body["builtin"], body["schema"]["rows"]) == ("flowers", "csv", False, 60)
    assert body["schema"]["target"] == "species"
    again = upload(client, CSV.encode(), filename="other.csv", targets="species")
    assert (again.status_code, again.json()["id"]) == (200, body["id"])
    assert uploads(client) == [body["id"]]
    same = client.get(f"/v1/datasets/{body['id']}", headers={"if-none-match": first.headers["etag"]})
    assert same.status_code == 304


def test_uploads_in_the_making_leave_threads_to_other_requests(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, lock, running, most = threading.Event(), threading.Lock(), 0, 0

    def slow(*_: object, **__: object) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(20)
        with lock:
            running -= 1
        raise Invalid([Fault("/file", "slow", "hurry", "slow")])

    monkeypatch.setattr(intake, "add", slow)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(upload, client, CSV.encode()) for _ in range(8)]
        time.sleep(1)
        assert client.get("/v1/datasets").status_code == 200
        go_on.set()
        assert {answer.result().status_code for answer in answers} == {422}
    assert most == 4


def test_an_npz_is_known_by_its_bytes(client: httpx.Client) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    body = upload(client, npz(x=images, y=np.arange(40) % 4), filename="pictures.bin").json()
    assert (body["format"], body["name"]) == ("npz", "pictures.bin")
    assert body["schema"]["input"]["shape"] == [8, 8, 1]
    rows = client.get(f"/v1/datasets/{body['id']}/preview", params={"rows": 3}).json()["rows"]
    assert len(rows) == 3
    assert np.array(rows[0]["input"]).reshape(8, 8).tolist() == images[0].tolist()


@pytest.mark.parametrize(
    ("targets", "place"),
    [
        ("a\0b", "/targets"),
        (",".join(["species"] * 101), "/targets"),
        ("s" * 161, "/targets"),
        ("s" * 15_000, "/targets"),
    ],
    ids=["a NUL", "too many", "too long", "longer than a command line takes"],
)
def test_targets_that_no_database_and_no_command_line_can_hold_are_refused(
    client: httpx.Client, targets: str, place: str
) -> None:
    body = problem(upload(client, CSV.encode(), targets=targets), 422, "invalid")
    assert pointers(body) == {place}
    assert uploads(client) == []


def test_misspelt_targets_are_named_at_once_and_hold_up_no_other_upload(client: httpx.Client, address: str) -> None:
    """The hints once took a minute of the processor for each, and the file was blamed; two readers are all there are."""
    names = [f"{'measurement_of_the_quantity_' * 3}{number:05d}_of_the_day" for number in range(2048)]
    content = "\n".join([",".join(names), ",".join("1" * 2048), ""]).encode()
    targets = ",".join(name.replace("quantity", "quantty") for name in names[:100])

    def send(content: bytes, **fields: str) -> httpx.Response:
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as own:
            return upload(own, content, **fields)

    begun = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        misspelt = [pool.submit(send, content + b" " * number, targets=targets) for number in range(2)]
        third = pool.submit(send, CSV.encode(), targets="species")
        assert third.result().status_code == 201
        for answer in misspelt:
            errors = problem(answer.result(), 422, "invalid")["errors"]
            assert [error["pointer"] for error in errors] == [f"/targets/{number}" for number in range(100)]
            assert {error["message"] for error in errors} == {"the file has no such column"}
            assert errors[7]["hint"] == f"did you mean {names[7]!r}?"
    assert time.monotonic() - begun < 40


def test_a_data_set_that_is_deleted_while_it_is_looked_at_was_gone_before(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(client, CSV.encode(), targets="species").json()["id"]
    deleting(monkeypatch, "app.artifacts.blob", lambda session: datasets.delete(session, made))
    problem(client.get(f"/v1/datasets/{made}/preview"), 404, "not_found")


@pytest.mark.parametrize(
    "codec", ["undefined", "punycode", "idna", "utf-16", "unicode_escape", "zlib", "utf-8; charset=undefined"]
)
def test_a_client_does_not_choose_the_codec_of_its_form(client: httpx.Client, codec: str) -> None:
    form = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        + CSV.encode()
        + b"\r\n--x--\r\n"
    )
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={codec}"}
    problem(client.post("/v1/datasets", content=form, headers=headers), 415, "unsupported_media_type")
    headers["content-type"] = 'multipart/form-data; charset="UTF-8"; boundary=x'
    assert client.post("/v1/datasets", content=form, headers=headers).status_code == 201


def test_the_list_has_built_ins_behind_uploads_in_pages(client: httpx.Client) -> None:
    made = upload(client, CSV.encode(), targets="species").json()["id"]
    seen: list[str] = []
    url = "/v1/datasets?limit=2"
    while url:
        answer = client.get(url)
        seen += [entry["id"] for entry in answer.json()["data"]]
        url = answer.links.get("next", {}).get("url", "")
    assert seen[0] == made
    assert "digits" in seen
    assert len(seen) == len(set(seen))


def test_a_data_set_is_found_by_the_hash_of_its_bytes(client: httpx.Client) -> None:
    upload(client, npz(x=np.zeros((4, 2)), y=np.arange(4)), "other.npz")
    both = [upload(client, CSV.encode(), targets=target).json() for target in ("species", "colour")]
    answer = client.get("/v1/datasets", params={"sha256": hashlib.sha256(CSV.encode()).hexdigest()}).json()
    assert {entry["id"] for entry in answer["data"]} == {body["id"] for body in both}
    assert {tuple(entry["options"]["targets"]) for entry in answer["data"]} == {("species",), ("colour",)}
    assert client.get("/v1/datasets", params={"sha256": "0" * 64}).json() == {"data": [], "next_cursor": None}
    digits = client.get("/v1/datasets/digits").json()
    found = client.get("/v1/datasets", params={"sha256": digits["sha256"]}).json()["data"]
    assert [(entry["id"], entry["options"]) for entry in found] == [("digits", None)]
    behind = client.get("/v1/datasets", params={"sha256": digits["sha256"], "cursor": "1.digits"}).json()["data"]
    assert behind == []
    problem(client.get("/v1/datasets?sha256=abc"), 422, "invalid_parameter")


def test_a_built_in_is_read_but_not_deleted(client: httpx.Client) -> None:
    body = client.get("/v1/datasets/digits").json()
    assert (body["id"], body["builtin"], body["created_at"]) == ("digits", True, None)
    assert len(client.get("/v1/datasets/digits/preview").json()["rows"]) == 10
    problem(client.delete("/v1/datasets/digits"), 409, "conflict")


def test_a_data_set_goes_when_no_job_needs_it(client: httpx.Client) -> None:
    made = upload(client, CSV.encode(), targets="species").json()
    job = add_job(datasets=[{"ref": made["id"], "id": made["id"], "sha256": made["sha256"]}])
    assert job in problem(client.delete(f"/v1/datasets/{made['id']}"), 409, "dataset_in_use")["detail"]
    client.post(f"/v1/jobs/{job}/cancel")
    client.delete(f"/v1/jobs/{job}")
    assert client.delete(f"/v1/datasets/{made['id']}").status_code == 204
    problem(client.get(f"/v1/datasets/{made['id']}"), 404, "not_found")


def test_a_name_that_is_none_is_404(client: httpx.Client) -> None:
    for name in ("digit", "ds_0", "%00", "..%2fdigits"):
        problem(client.get(f"/v1/datasets/{name}"), 404, "not_found")
        problem(client.get(f"/v1/datasets/{name}/preview"), 404, "not_found")
        problem(client.delete(f"/v1/datasets/{name}"), 404, "not_found")


PICKLED = npz(x=np.array([{"a": 1}, None], dtype=object), y=np.arange(2))


def lying_npz() -> bytes:
    """An array whose header claims 300 GiB."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (80530636800,), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    file = io.BytesIO()
    import zipfile

    with zipfile.ZipFile(file, "w") as bundle:
        bundle.writestr("x.npy", array)
        bundle.writestr("y.npy", array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "filename", "fields", "pointer"),
    [
        pytest.param(b"", "empty.csv", {}, "/file", id="nothing"),
        pytest.param(b"\x00\x01\x02" * 100, "noise.bin", {}, "/file", id="noise"),
        pytest.param(b"\x80\x04\x95", "model.pkl", {}, "/file", id="a pickle"),
        pytest.param(b"PK\x03\x04broken", "broken.npz", {}, "/file", id="a broken zip"),
        pytest.param(PICKLED, "objects.npz", {}, "/file", id="pickled objects"),
        pytest.param(lying_npz(), "huge.npz", {}, "/file", id="a header that claims 300 GiB"),
        pytest.param(npz(x=np.zeros((3, 4)), y=np.arange(2)), "uneven.npz", {}, "/file", id="uneven lengths"),
        pytest.param(npz(x=np.full((4, 2), np.nan), y=np.arange(4)), "nan.npz", {}, "/file", id="NaN inputs"),
        pytest.param(b"a,b\n1,2\n3\n", "ragged.csv", {}, "/file", id="ragged rows"),
        pytest.param(b"a,a\n1,2\n", "twice.csv", {}, "/file", id="a column twice"),
        pytest.param(CSV.encode(), "f.csv", {"targets": "spcies"}, "/targets", id="a target that does not exist"),
        pytest.param(CSV.encode(), "f.csv", {"format": "xlsx"}, "/format", id="an unknown format"),
        pytest.param(CSV.encode(), "f.csv", {"nmae": "x"}, "/nmae", id="an unknown field"),
        pytest.param(CSV.encode(), "../../etc/passwd", {"targets": "species"}, "/filename", id="a path as file name"),
        pytest.param(CSV.encode(), "f.csv", {"name": "../x", "targets": "species"}, "/name", id="a path as name"),
        pytest.param(CSV.encode(), "f.csv", {"name": "a\x00b", "targets": "species"}, "/name", id="a NUL in the name"),
        pytest.param(CSV.encode(), "f.csv", {"name": "n" * 500, "targets": "species"}, "/name", id="a long name"),
    ],
)
def test_a_broken_upload_is_refused_and_leaves_nothing(
    client: httpx.Client, content: bytes, filename: str, fields: dict[str, str], pointer: str
) -> None:
    before = stored()
    answer = upload(client, content, filename, **fields)
    body = problem(answer, 422, answer.json().get("code", ""))
    assert body["code"] in ("invalid", "dataset_invalid")
    assert any(found.startswith(pointer) for found in pointers(body)), body["errors"]
    assert uploads(client) == []
    assert stored() == before
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        pytest.param(b"--x--\r\n", "multipart/form-data", 400, "malformed_body", id="no boundary"),
        pytest.param(b"garbage", "multipart/form-data; boundary=x", 400, "malformed_body", id="no form"),
        pytest.param(b"--x--\r\n", "multipart/form-data; boundary=x", 422, "invalid", id="an empty form"),
        pytest.param(CSV.encode(), "text/csv", 415, "unsupported_media_type", id="the file alone"),
    ],
)
def test_a_broken_form_is_refused(
    client: httpx.Client, content: bytes, content_type: str, status: int, code: str
) -> None:
    answer = client.post("/v1/datasets", content=content, headers={"content-type": content_type})
    problem(answer, status, code)
    assert uploads(client) == []


def test_a_form_names_all_its_faults_at_once(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets", files={"flie": ("a.csv", b"x"), "name": ("b", b"y")})
    assert pointers(problem(answer, 422, "invalid")) == {"/flie", "/name", "/file"}


def test_an_upload_beyond_the_quota_is_413_and_leaves_nothing(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings(), "max_upload_bytes", 100_000)
    before = stored()
    problem(upload(client, b"a,b\n" + b"1,2\n" * 100_000), 413, "body_too_large")
    assert uploads(client) == []
    assert stored() == before


def test_a_chunked_upload_is_counted_as_it_comes(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_upload_bytes", 100_000)
    before = stored()

    def form() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\na,b\n'
        for _ in range(50):
            yield b"1,2\n" * 1000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    # The server answers in the middle and closes, perhaps before the client looks.
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        problem(client.post("/v1/datasets", content=form(), headers=headers), 413, "body_too_large")
    assert uploads(client) == []
    assert stored() == before

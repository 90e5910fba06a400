"""Data sets from a file or a folder on the service's machine: below the folders that are open, never through a link out of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from app.settings import settings
from app.spec import files
from tests.app.api.conftest import pointers, problem
from tests.app.api.uploads import upload
from tests.app.data.pictures import class_folders

CSV = b"length,colour,species\n" + b"".join(
    b"%d,%s,%s\n" % (n % 7, b"red" if n % 2 else b"blue", b"setosa" if n % 3 else b"virginica") for n in range(60)
)


@pytest.fixture
def root(tmp_path: Path, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is open, with photos and a table; beside it a secret."""
    for name, content in {**class_folders(8), ".hidden": b"x", "notes.docx": b"y"}.items():
        path = tmp_path / "open/photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "open/flowers.csv").write_bytes(CSV)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/secret.csv").write_bytes(CSV)
    monkeypatch.setattr(settings(), "file_roots", (tmp_path / "other", tmp_path / "open"))
    return tmp_path / "open"


@pytest.fixture
def send(client: httpx.Client, root: Path) -> Callable[..., httpx.Response]:
    def post(path: str | Path, **fields: Any) -> httpx.Response:
        return client.post("/v1/datasets", json={"uri": f"file://{path}", **fields})

    return post


def left() -> list[str]:
    return [path.name for path in (settings().store / "tmp").iterdir() if not path.name.startswith("pytest-of")]


def test_a_folder_is_a_data_set_and_the_same_files_are_the_same_one(
    send: Callable[..., httpx.Response], root: Path
) -> None:
    first = send(root / "photos", size="8x8", name="birds")
    assert first.status_code == 201, first.text
    body = first.json()
    assert (body["name"], body["format"], body["schema"]["rows"]) == ("birds", "tar", 8)
    assert body["schema"]["input"]["shape"] == [8, 8, 3]
    assert body["options"]["size"] == [8, 8]
    assert {counted["reason"]: counted["examples"] for counted in body["intake"]["ignored"]} == {
        "a hidden file": [".hidden"],
        "its ending .docx is not known": ["notes.docx"],
    }
    for file in root.rglob("*.png"):
        os.utime(file, (1, 1))
    again = send(root / "photos", size="8x8")
    assert (again.status_code, again.json()["id"]) == (200, body["id"])
    assert send(root / "photos", size="6x6").status_code == 201
    assert left() == []


def test_a_file_is_the_data_set_that_its_upload_is(
    client: httpx.Client, send: Callable[..., httpx.Response], root: Path
) -> None:
    first = send(root / "flowers.csv", targets=["colour", "species"])
    assert (first.status_code, first.json()["name"]) == (201, "flowers.csv")
    same = upload(client, CSV, "other.csv", targets="colour,species")
    assert (same.status_code, same.json()["id"]) == (200, first.json()["id"])


def test_relative_roots_spaces_and_odd_names_are_found(send: Callable[..., httpx.Response], root: Path) -> None:
    (root / "a b#c?d%41.csv").write_bytes(CSV)
    assert send(root / "a%20b%23c%3Fd%2541.csv").status_code == 201
    assert send(str(root / "flowers.csv").replace("file://", "")).status_code == 200, "the same bytes"
    answer = send(f"localhost{root}/flowers.csv")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "{root}/missing.csv", "{root}/../secret/secret.csv", "{root}/../secret", "/etc/passwd", "/", "{root}/link.csv",
        "{root}/links/secret.csv", "{root}/links", "{root}/pipe", "{root}/%2e%2e/secret", "{root}/flowers.csv/x",
        "{root}/a%00b", "/proc/self/environ",
    ],
)  # fmt: skip
def test_nothing_outside_of_the_open_folders_is_read_or_told(
    send: Callable[..., httpx.Response], root: Path, path: str
) -> None:
    (root / "link.csv").symlink_to(root.parent / "secret/secret.csv")
    (root / "links").symlink_to(root.parent / "secret")
    os.mkfifo(root / "pipe")
    body = problem(send(path.format(root=root)), 422, "dataset_invalid")
    assert [(fault["pointer"], fault["message"]) for fault in body["errors"]] == [
        ("/uri", "there is no such file in the folders that are open")
    ]
    assert left() == []


def test_a_link_within_the_open_folder_is_followed_and_one_in_a_folder_is_counted(
    send: Callable[..., httpx.Response], root: Path
) -> None:
    (root / "here.csv").symlink_to(root / "flowers.csv")
    assert send(root / "here.csv").status_code == 201
    (root / "photos/cats/out.png").symlink_to(root.parent / "secret/secret.csv")
    body = problem(send(root / "photos"), 422, "dataset_invalid")
    assert "a link (cats/out.png)" in body["errors"][0]["message"]
    assert pointers(body) == {"/uri"}
    taken = send(root / "photos", skip_broken=True).json()
    assert taken["intake"]["broken"] == [{"reason": "a link", "count": 1, "examples": ["cats/out.png"]}]


def test_a_link_that_is_put_on_the_way_meanwhile_is_not_followed(
    send: Callable[..., httpx.Response], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beneath = files.open_beneath

    def swapped(folder: int, name: str) -> int:
        (root / "photos").rename(root / "moved")
        (root / "photos").symlink_to(root.parent / "secret")
        return beneath(folder, name)

    monkeypatch.setattr(files, "open_beneath", swapped)
    body = problem(send(root / "photos"), 422, "dataset_invalid")
    assert body["errors"][0]["message"] == "there is no such file in the folders that are open"


def test_without_an_open_folder_nothing_is_read(
    send: Callable[..., httpx.Response], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "file_roots", ())
    body = problem(send(root / "photos"), 422, "dataset_invalid")
    assert body["errors"][0]["message"] == "no folder is open for files"
    assert "BEQUEST_FILE_ROOTS" in body["errors"][0]["hint"]


@pytest.mark.parametrize("name", ["photos", "flowers.csv"])
def test_what_is_longer_than_an_upload_may_be_is_refused(
    send: Callable[..., httpx.Response], root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(settings(), "max_upload_bytes", 500)
    body = problem(send(root / name), 422, "dataset_invalid")
    assert [(fault["pointer"], fault["code"]) for fault in body["errors"]] == [("/uri", "too_large")]
    assert left() == []


def test_faults_of_the_file_stand_at_the_uri(send: Callable[..., httpx.Response], root: Path) -> None:
    (root / "ragged.csv").write_bytes(b"a,b\n1,2\n3\n")
    body = problem(send(root / "ragged.csv"), 422, "dataset_invalid")
    assert all(fault["pointer"].startswith("/uri") for fault in body["errors"])
    (root / "odd\x07name.csv").write_bytes(CSV)
    assert pointers(problem(send(root / "odd%07name.csv"), 422, "dataset_invalid")) == {"/uri"}
    (root / "empty").mkdir()
    assert "empty" in problem(send(root / "empty"), 422, "dataset_invalid")["errors"][0]["message"]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({}, {"/uri"}),
        ({"uri": 7, "nmae": "x"}, {"/uri", "/nmae"}),
        ({"uri": "http://127.0.0.1/x"}, {"/uri"}),
        ({"uri": "file://elsewhere/x"}, {"/uri"}),
        ({"uri": "file:///x?y"}, {"/uri"}),
        ({"uri": "file:///x", "file": "y"}, {"/file"}),
        ({"uri": "file:///" + "x" * 5000}, {"/uri"}),
        (
            {"uri": "file:///x", "targets": "a", "size": [8, 8], "length": True, "skip_broken": "true", "fit": "strech", "name": None},
            {"/targets", "/size", "/length", "/skip_broken", "/fit", "/name"},
        ),
        ({"uri": "file:///x", "length": 7, "size": "0x9", "targets": ["a"] * 101}, {"/length", "/size", "/targets"}),
    ],
    ids=range(9),
)  # fmt: skip
def test_an_object_names_all_its_faults_at_once(
    client: httpx.Client, root: Path, body: dict[str, Any], places: set[str]
) -> None:
    answer = client.post("/v1/datasets", json=body)
    assert pointers(problem(answer, 422, answer.json()["code"])) == places


def test_an_object_is_no_longer_than_other_json(client: httpx.Client, root: Path) -> None:
    content = json.dumps({"uri": "file:///" + "x" * settings().max_body_bytes}).encode()
    answer = client.post("/v1/datasets", content=content, headers={"content-type": "application/json"})
    problem(answer, 413, "body_too_large")


def test_the_document_describes_both_bodies(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/datasets"]["post"]
    content = operation["requestBody"]["content"]
    form, other = (content[name]["schema"] for name in ("multipart/form-data", "application/json"))
    assert set(other["properties"]) == set(form["properties"]) - {"file"} | {"uri", "dataset"}
    jsonschema.Draft202012Validator(other).validate(content["application/json"]["example"])

"""Artifacts: listed, downloaded whole or in part, or all at once."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app import artifacts, jobs
from tests.app.api.artifacts import keep
from tests.app.api.conftest import add_job, deleting, end_job, problem, start_job

CONTENT = bytes(range(256)) * 3000


@pytest.fixture
def job(client: httpx.Client, tmp_path: Path) -> str:
    """A finished job with two files."""
    job = add_job()
    claim = start_job(job)
    keep(claim, tmp_path, "model.keras", CONTENT)
    keep(claim, tmp_path, "manifest.json", b'{"format": 1}')
    end_job(claim)
    return job


def test_files_are_listed_with_their_hashes(client: httpx.Client, job: str) -> None:
    listed = {file["name"]: file for file in client.get(f"/v1/jobs/{job}/artifacts").json()["data"]}
    assert set(listed) == {"model.keras", "manifest.json"}
    assert listed["model.keras"]["bytes"] == len(CONTENT)
    assert listed["model.keras"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert client.get(listed["manifest.json"]["href"]).json() == {"format": 1}


def test_a_file_comes_whole_with_its_sha256_as_etag(client: httpx.Client, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/artifacts/model.keras")
    assert answer.content == CONTENT
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert "attachment" in answer.headers["content-disposition"]
    assert "model.keras" in answer.headers["content-disposition"]
    same = client.get(f"/v1/jobs/{job}/artifacts/model.keras", headers={"if-none-match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=700000-", 700_000, len(CONTENT) - 1),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT) - 1),
        ("bytes=0-99999999", 0, len(CONTENT) - 1),
        ("bytes=-99999999", 0, len(CONTENT) - 1),
    ],
)
def test_a_range_is_that_part(client: httpx.Client, job: str, header: str, first: int, last: int) -> None:
    answer = client.get(f"/v1/jobs/{job}/artifacts/model.keras", headers={"range": header})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert answer.content == CONTENT[first : last + 1]


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=-", "bytes=x-y", "lines=1-2", "bytes=0-1,5-6"])
def test_a_range_that_is_not_one_is_left_unread(client: httpx.Client, job: str, header: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/artifacts/model.keras", headers={"range": header})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


@pytest.mark.parametrize("header", ["bytes={}x", "bytes=1-{}x", "bytes={}1-2"])
def test_a_range_full_of_blanks_is_left_unread_at_once(client: httpx.Client, job: str, header: str) -> None:
    """Two repeats side by side once tried every way to share the blanks."""
    before = time.process_time()
    answer = client.get(f"/v1/jobs/{job}/artifacts/model.keras", headers={"range": header.format(" " * 60_000)})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))
    assert time.process_time() - before < 1


def test_a_range_behind_the_end_is_416_with_the_length(client: httpx.Client, job: str) -> None:
    for header in (f"bytes={len(CONTENT)}-", "bytes=999999999-", "bytes=-0"):
        answer = client.get(f"/v1/jobs/{job}/artifacts/model.keras", headers={"range": header})
        problem(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_a_range_of_another_version_gives_the_whole(client: httpx.Client, job: str) -> None:
    headers = {"range": "bytes=0-9", "if-range": '"another"'}
    assert client.get(f"/v1/jobs/{job}/artifacts/model.keras", headers=headers).status_code == 200


def test_the_zip_opens_and_its_sums_hold(client: httpx.Client, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/artifacts.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert f'filename="{job}.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as bundle:
        assert bundle.testzip() is None
        files = {name.removeprefix(f"{job}/"): bundle.read(name) for name in bundle.namelist()}
    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert files["model.keras"] == CONTENT


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fetc%2fpasswd", "%00", "model.keras%00", "a" * 400])
def test_a_name_that_is_none_is_404(client: httpx.Client, job: str, name: str) -> None:
    problem(client.get(f"/v1/jobs/{job}/artifacts/{name}"), 404, "not_found")


def test_a_job_without_files_has_no_zip(client: httpx.Client) -> None:
    job = add_job()
    assert client.get(f"/v1/jobs/{job}/artifacts").json() == {"data": []}
    problem(client.get(f"/v1/jobs/{job}/artifacts.zip"), 404, "not_found")


def test_a_file_whose_bytes_are_gone_is_an_error_and_no_empty_answer(client: httpx.Client, job: str) -> None:
    artifacts.blob(hashlib.sha256(CONTENT).hexdigest()).unlink()
    problem(client.get(f"/v1/jobs/{job}/artifacts/model.keras"), 500, "internal")


@pytest.mark.parametrize("path", ["artifacts/model.keras", "artifacts.zip", "report"])
def test_a_job_that_is_deleted_while_its_files_are_looked_for_was_gone_before(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    claim = start_job(job := add_job())
    for name in ("model.keras", "report.json"):
        keep(claim, tmp_path, name, b"{}")
    end_job(claim)
    assert client.get(f"/v1/jobs/{job}/{path}").content
    deleting(monkeypatch, "app.artifacts.blob", lambda session: jobs.delete(session, job))
    problem(client.get(f"/v1/jobs/{job}/{path}"), 404, "not_found")


@pytest.mark.parametrize(
    "make", [lambda path, target: path.symlink_to(target), lambda path, _: os.mkfifo(path)], ids=["link", "pipe"]
)
def test_what_is_no_plain_file_is_neither_kept_nor_sent(
    client: httpx.Client, job: str, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    """A link would read a foreign file, and a pipe would hold up who reads it."""
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    make(tmp_path / "result.bin", secret)
    with pytest.raises(OSError, match=r"not a plain file|symbolic links"):
        artifacts.keep_file(tmp_path / "result.bin")
    stored = artifacts.blob(hashlib.sha256(b'{"format": 1}').hexdigest())
    stored.unlink()
    make(stored, secret)
    answer = client.get(f"/v1/jobs/{job}/artifacts/manifest.json")
    problem(answer, 500, "internal")
    assert CONTENT[:100] not in answer.content
    stored.unlink()

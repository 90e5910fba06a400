"""`bequest datasets`: a folder or file becomes a data set of a real API; sent once, waited for, shown; all faults where it is refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from app import client, intake
from app.cli import main
from app.client import Asked
from tests.app.api.conftest import serving
from tests.app.data.pictures import class_folders

CSV = "length,colour,species\n" + "".join(
    f"{n % 7},{'red' if n % 2 else 'blue'},{'setosa' if n % 3 else 'virginica'}\n" for n in range(60)
)


@pytest.fixture(scope="module")
def address(_service: None) -> Iterator[str]:
    from app.main import create_app

    with serving(create_app()) as url:
        yield url


@pytest.fixture
def run(address: str, database: None) -> Callable[..., tuple[int, str]]:
    """Calls the command; its exit status and what it prints."""

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["datasets", *arguments, "--url", address], env={"COLUMNS": "250"})
        return result.exit_code, result.stdout

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {**class_folders(12), ".DS_Store": b"", "notes.docx": b"x"}.items():
        path = tmp_path / "birds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "birds"


def uploads(address: str) -> list[dict[str, Any]]:
    entries = httpx.get(f"{address}/v1/datasets?limit=200", trust_env=False).json()["data"]
    return [entry for entry in entries if not entry["builtin"]]


def test_a_folder_becomes_a_data_set_and_what_became_of_it_is_shown(
    run: Callable[..., tuple[int, str]], folder: Path, address: str
) -> None:
    status, output = run("add", str(folder), "--size", "8x8", "--fit", "crop", "--name", "little birds")
    assert status == 0, output
    (entry,) = uploads(address)
    assert (entry["name"], entry["format"], entry["schema"]["rows"]) == ("little birds", "tar", 12)
    assert entry["schema"]["input"]["shape"] == [8, 8, 3]
    assert entry["id"] in output
    for words in (
        "used",
        "12",
        "a hidden file",
        ".DS_Store",
        "its ending .docx is not known",
        "2 folders: cats, dogs",
        "curl --json",
    ):
        assert words in output, words
    assert f"{address}/v1/jobs" in output


def test_the_same_folder_is_found_by_its_bytes_and_not_sent_again(
    run: Callable[..., tuple[int, str]], folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("add", str(folder), "--size", "8x8")[0] == 0
    sent = []
    posted = client._posted
    monkeypatch.setattr(client, "_posted", lambda *given: sent.append(given) or posted(*given))  # type: ignore[func-returns-value]
    status, output = run("add", str(folder), "--size", "8x8")
    assert (status, sent, len(uploads(address))) == (0, [], 1)
    assert "nothing was sent" in output
    assert "used" in output
    assert run("add", str(folder), "--size", "6x6")[0] == 0, "other words for the same bytes are another data set"
    assert (len(sent), len(uploads(address))) == (1, 2)


def test_a_table_is_sent_as_it_is_with_its_columns(
    run: Callable[..., tuple[int, str]], tmp_path: Path, address: str
) -> None:
    (tmp_path / "flowers.csv").write_text(CSV)
    status, output = run(
        "add", str(tmp_path / "flowers.csv"), "--targets", "colour, species", "--inputs", "length:number"
    )
    assert status == 0, output
    (entry,) = uploads(address)
    assert (entry["name"], entry["options"]["targets"]) == ("flowers.csv", ["colour", "species"])
    again = run(
        "add", str(tmp_path / "flowers.csv"), "--targets", "colour", "--targets", "species", "--inputs", "length:number"
    )
    assert "nothing was sent" in again[1]


def test_all_faults_are_shown_where_it_is_refused(
    run: Callable[..., tuple[int, str]], tmp_path: Path, address: str
) -> None:
    (tmp_path / "flowers.csv").write_text(CSV)
    status, output = run("add", str(tmp_path / "flowers.csv"), "--size", "64", "--fit", "strech", "--length", "7")
    assert status == 1
    assert [line.split(":")[0] for line in output.splitlines()] == ["/size", "/fit", "/length"]
    assert "did you mean 'stretch'?" in output
    assert uploads(address) == []


def test_broken_files_are_named_and_skipped_when_asked(run: Callable[..., tuple[int, str]], folder: Path) -> None:
    (folder / "cats/odd.jpg").write_bytes(b"<html>[bold]404")
    status, output = run("add", str(folder))
    assert status == 1
    assert "cats/odd.jpg" in output
    assert "skip_broken" in output
    status, output = run("add", str(folder), "--skip-broken")
    assert status == 0
    assert "broken" in output
    assert "HTML" in output


def test_what_takes_longer_is_waited_for(
    run: Callable[..., tuple[int, str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.1)
    status, output = run("add", str(folder))
    assert status == 0, output
    assert "12 rows" in output
    (folder / "cats/odd.jpg").write_bytes(b"<html>404")
    status, output = run("add", str(folder))
    assert (status, "files are broken" in output) == (1, True)


def test_a_connection_that_breaks_is_no_harm(
    run: Callable[..., tuple[int, str]], folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost although the data set was made, so nothing is sent twice."""
    posted, sent = client._posted, []

    def lost(*given: Any) -> httpx.Response:
        sent.append(posted(*given))
        raise httpx.ReadError("the line is dead")

    monkeypatch.setattr(client, "_posted", lost)
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.01)
    status, output = run("add", str(folder))
    assert (status, len(sent), len(uploads(address))) == (0, 1, 1), output
    assert "the connection broke (ReadError)" in output


def test_a_service_that_is_busy_is_asked_again_and_given_up_in_the_end(
    run: Callable[..., tuple[int, str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    monkeypatch.setattr(client, "_posted", lambda *given: tries.append(1) or httpx.Response(429, json={}))  # type: ignore[func-returns-value]
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.001)
    status, output = run("add", str(folder))
    assert (status, len(tries)) == (1, client.TRIES)
    assert "try again later" in output


def test_the_list_shows_uploads_and_built_ins(run: Callable[..., tuple[int, str]], folder: Path) -> None:
    assert run("add", str(folder), "--name", "little birds")[0] == 0
    status, output = run("list")
    lines = output.splitlines()
    (birds,) = [line for line in lines if "little birds" in line]
    assert "ready" in birds
    assert "image 12 × 10 × 3" in birds
    assert any("digits" in line and "1,797" in line for line in lines)
    assert status == 0


@pytest.mark.parametrize(
    ("url", "says"), [("http://127.0.0.1:9", "no service answers"), ("127.0.0.1:8000", "no address of a service")]
)
def test_nobody_there_is_said_at_once(tmp_path: Path, url: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    for command in (["add", str(tmp_path / "a.csv")], ["list"]):
        result = CliRunner().invoke(main, ["datasets", *command], env={"BEQUEST_URL": url})
        assert (result.exit_code, says in result.output) == (1, True)


def test_an_empty_folder_and_what_cannot_be_read_are_refused_here(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no file" in run("add", str(tmp_path / "empty"))[1]
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.txt").symlink_to(tmp_path / "empty")
    status, output = run("add", str(tmp_path / "links"))
    assert (status, "1 of 1 files are broken: a link (a.txt)" in output) == (1, True)


def test_bars_are_drawn_on_a_terminal(
    address: str, database: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, highlight=False)
    monkeypatch.setattr(intake, "PATIENCE_SECONDS", 0.01)
    assert client.add(folder, Asked(), address, console) == 0
    for words in ("packing", "sending", "reading"):
        assert words in screen.getvalue(), words


def test_the_command_is_installed(address: str, database: None, tmp_path: Path) -> None:
    (tmp_path / "flowers.csv").write_text(CSV)
    command = [sys.executable, "-P", "-m", "app.cli", "datasets", "add", "flowers.csv"]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "BEQUEST_URL": address}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "60 rows, table 2" in run.stdout

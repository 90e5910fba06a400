"""Logs: one line each, with the ids that hold, and never a secret."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator

import pytest
from structlog.contextvars import bound_contextvars

from app import logs
from app.settings import settings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://bequest:hunter2@db:5432/x", "postgresql://bequest:***@db:5432/x"),
        ("redis://:hunter2@[::1]/0 and more", "redis://:***@[::1]/0 and more"),
        ("password=hunter2 host=db", "password=*** host=db"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("tj_abcd1234_" + "x" * 43, "tj_abcd1234_***"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_***"),
        ("http://localhost:8000/v1/jobs", "http://localhost:8000/v1/jobs"),
    ],
)
def test_secrets_are_cut_out(text: str, redacted: str) -> None:
    assert logs.redact(text) == redacted


@pytest.mark.parametrize(
    "piece",
    ["a.", "a-", "a:", "://", "://a:", "password ", "token=", "authorization: bearer ", "-tj_aaaaaaaa_a", "@", " "],
)
def test_a_long_line_is_searched_in_a_second_of_the_processor(piece: str) -> None:
    """A trainer's log holds what its libraries print: a word of this length once took 20 s, of a megabyte hours."""
    line = piece * (100_000 // len(piece))
    before = time.thread_time()
    logs.redact(line)
    assert time.thread_time() - before < 1


def test_a_line_is_json_with_the_ids_that_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings(), "log_format", "json")
    logs.configure()
    with bound_contextvars(request_id="req_1", job_id="job_1"):
        logs.get("ours").info("connected", url="redis://:hunter2@here", nested={"all": ["password=hunter2"]})
        logging.getLogger("theirs").warning("to %s", "postgresql://u:hunter2@db/x")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["level"], ours["logger"], ours["request_id"], ours["job_id"]) == (
        "connected", "info", "ours", "req_1", "job_1",
    )  # fmt: skip
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["logger"], theirs["request_id"]) == (
        "to postgresql://u:***@db/x",
        "theirs",
        "req_1",
    )
    assert "hunter2" not in json.dumps([ours, theirs])


def test_an_exception_is_logged_with_its_trace_and_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings(), "log_format", "json")
    logs.configure()
    try:
        raise ValueError("cannot reach postgresql://u:hunter2@db/x")
    except ValueError as error:
        logs.get("ours").error("failed", exc_info=error)
        logging.getLogger("theirs").exception("failed too")
    for line in capsys.readouterr().err.splitlines():
        said = json.loads(line)
        assert "Traceback" in said["exception"]
        assert "u:***@db" in said["exception"]
        assert "hunter2" not in line


def test_on_a_terminal_lines_are_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings(), "log_format", "console")
    logs.configure()
    logs.get("ours").info("ready", port=8000)
    line = capsys.readouterr().err
    assert "ready" in line
    assert not line.startswith("{")

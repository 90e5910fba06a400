"""Hostile files: none runs code, reads a foreign file or harms the service; each is refused clearly, or is data that do nothing."""

from __future__ import annotations

import pytest

from tests.app.api.conftest import api_process
from tests.faults.hostile_files import KINDS, run
from tests.faults.requests_bad import at_port


@pytest.mark.long  # `./dev faults` plays each kind as often
def test_hostile_files_are_refused_and_leave_nothing(database: None) -> None:
    with api_process() as (port, process):
        figures = run(seed=1, count=len(KINDS), connect=at_port(port), pid=process.pid)
    assert figures["violations"] == []
    assert (figures["server_errors"], figures["code_run"]) == (0, False)
    assert figures["statuses"]["422"] > len(KINDS) / 2
    assert figures["readers_seen"] > len(KINDS) / 4

"""Bad requests over every operation: each is refused in the one shape, nothing is stored, and the service goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.api.conftest import api_process
from tests.faults.requests_bad import at_port, run
from tests.inference import inference_program


@pytest.mark.slow
def test_bad_requests_are_refused_and_leave_nothing(database: None, run_dir: Path) -> None:
    with (
        inference_program(run_dir / "requests") as address,
        api_process(INFERENCE_URL=address) as (port, process),
    ):
        figures = run(seed=1, count=800, connect=at_port(port), pid=process.pid)
    assert figures["violations"] == []
    assert figures["requests"] == 800
    assert (figures["server_errors"], figures["unanswered"]) == (0, 0)
    # What is sent must be bad indeed: most is refused, and every kind of refusal occurs.
    refused = sum(number for status, number in figures["statuses"].items() if status.startswith("4"))
    assert refused > 530
    assert {"400", "404", "405", "413", "415", "421", "422"} <= set(figures["statuses"])

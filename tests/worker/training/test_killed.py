"""kill -9 of the real program, at a moment that a seed chose and in the middle of a checkpoint's write; each kind of job."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.training.attempts import Job, differences, number, told, unbroken
from tests.worker.training.driven import KINDS, drive
from tests.worker.training.driven import assignment as resolved
from worker.reports import Exit, Failed, Progress, Ready

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def killed_and_continued(words: dict[str, Any], home: Path, moment: Callable[[Any], bool]) -> Job:
    job = Job(words, home, attempt=1)
    killed = drive({**words, "checkpoints": str(home / "checkpoints-1"), "kept": {}}, job.out, moment, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    job.recorded = [(report, job.out) for report in killed.reports if not isinstance(report, Ready)]
    assert job.run() == Exit.DONE, job.of(Failed)
    return job


def assignment(kind: str) -> dict[str, Any]:
    words = resolved(KINDS[kind], Path("unused"))
    return {key: value for key, value in words.items() if key not in ("checkpoints", "kept")}


LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in ("multitask", "distillation")]
"""In the suite theirs are the kills within one process of test_every_name.py; `./dev faults --full` kills real programs of each kind."""


@pytest.mark.parametrize("kind", ["transfer", *LONG])
def test_a_killed_trainer_s_job_ends_as_an_unbroken_one(kind: str, tmp_path: Path) -> None:
    words = assignment(kind)
    straight = unbroken(words, tmp_path / "a")
    place = random.Random(kind).randrange(len(told(straight)) // 3, len(told(straight)) - 6)
    killed = killed_and_continued(words, tmp_path / "b", number(place))
    assert not differences(straight.result, killed.result)


def test_a_kill_in_the_middle_of_a_checkpoint_s_write_costs_that_checkpoint_alone(tmp_path: Path) -> None:
    words = assignment("transfer")
    words["spec"]["training"]["checkpoint"]["every_seconds"] = 0.1  # a second is too long for epochs as short as these
    straight = unbroken(words, tmp_path / "a")
    beside = tmp_path / "b" / "checkpoints-1" / ".target"

    def writing(report: Any) -> bool:
        """Waits, once the target has begun, until a checkpoint of it is being written."""
        if not isinstance(report, Progress) or report.stage != "target":
            return False
        until = time.monotonic() + 5
        while not beside.exists() and time.monotonic() < until:
            time.sleep(0.0002)
        return beside.exists()

    killed = killed_and_continued(words, tmp_path / "b", writing)
    assert not differences(straight.result, killed.result)

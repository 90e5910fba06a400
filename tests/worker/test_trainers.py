"""Trainer processes and the fuse: what is passed on, who dies with whom, how an end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.conftest import wait_for
from worker.fuse import Fuse, now
from worker.reports import Exit
from worker.trainers import Ended, Trainers, environment

pytestmark = pytest.mark.usefixtures("_service")


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainers]:
    monkeypatch.setenv("BEQUEST_SPARE_KERAS", "0")
    made = Trainers()
    yield made
    made.close()


def test_only_what_a_trainer_needs_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "2", "BEQUEST_MAX_EPOCHS": "7", "PYTHONPATH": "plugins",
        "AWS_SECRET_ACCESS_KEY": "x", "PGPASSWORD": "x", "TF_TOKEN": "x", "BEQUEST_QUEUE": "x", "HTTP_PROXY": "x",
        "XLA_ADDRESS": "http://user:pass@somewhere",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    passed = environment()
    assert {name for name in given if name in passed} == {
        "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "BEQUEST_MAX_EPOCHS", "PYTHONPATH",
    }  # fmt: skip
    assert passed["HOME"] != os.environ.get("HOME")
    assert passed["KERAS_BACKEND"] == "tensorflow"


def test_a_spare_that_died_is_replaced_before_it_is_needed(trainers: Trainers, tmp_path: Path) -> None:
    trainers.warm()
    spare = trainers._spare
    assert spare is not None
    trainers.warm()
    assert trainers._spare is spare, "one spare is enough"
    os.kill(spare.pid, signal.SIGKILL)
    wait_for(spare.ended)
    taken = trainers.take({"kind": "light", "spec": {}}, tmp_path)
    assert taken.pid != spare.pid
    assert taken.ended() is None
    taken.close()


def test_a_trainer_ends_when_its_worker_is_killed() -> None:
    code = (
        "import time\nfrom worker.trainers import Trainers\ntrainers = Trainers()\ntrainers.warm()\n"
        "print(trainers._spare.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "BEQUEST_SPARE_KERAS": "0"}
    ) as worker:
        assert worker.stdout is not None
        trainer = int(worker.stdout.readline())
        worker.kill()
    wait_for(lambda: not Path(f"/proc/{trainer}").exists(), 5)


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (Ended(Exit.DONE, None, False), "exit status done"),
        (Ended(None, None, False), "exit status unknown"),
        (Ended(None, 11, False), "signal SIGSEGV"),
        (Ended(None, 9, True), "signal SIGKILL, the kernel had run out of memory"),
    ],
)
def test_an_end_is_told_in_words(ended: Ended, told: str) -> None:
    assert str(ended) == told


def test_a_kill_of_ours_is_not_taken_for_want_of_memory(trainers: Trainers, tmp_path: Path) -> None:
    trainer = trainers.take({"kind": "light", "spec": {}}, tmp_path)
    trainer._ooms = -1  # as if the kernel had killed something since
    trainer.kill()
    assert wait_for(trainer.ended) == Ended(None, 9, False)
    trainer.close()
    trainer = trainers.take({"kind": "light", "spec": {}}, tmp_path)
    trainer._ooms = -1
    os.kill(trainer.pid, signal.SIGKILL)
    assert wait_for(trainer.ended) == Ended(None, 9, True)
    trainer.close()


def test_the_fuse_blows_once_and_only_when_it_was_not_extended() -> None:
    blown: list[float] = []
    lit = now()
    fuse = Fuse(0.3, lit, lambda: blown.append(now() - lit))
    time.sleep(0.2)
    fuse.extend(lit + 0.2)
    time.sleep(0.15)
    assert not fuse.blown
    wait_for(lambda: fuse.blown, 5)
    assert [seconds >= 0.5 for seconds in blown] == [True]

    closed = Fuse(0.1, now(), lambda: blown.append(0))
    closed.close()
    time.sleep(0.2)
    assert len(blown) == 1

"""Trainer processes and the watchdog: what is passed on, who dies with whom, how an end is told."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from app import jobs
from app.jobs import Claim
from app.programs import CODE
from app.settings import Settings
from app.spec import backends
from tests.worker.conftest import wait_for
from worker import machine, supervisor
from worker import trainers as trainer_processes
from worker.lease_watchdog import LeaseWatchdog, now
from worker.reports import Exit, Ready
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
    assert (passed["PYTHONPATH"], passed["PYTHONSAFEPATH"]) == (str(CODE), "1"), "where it works there may be modules"


def test_a_home_that_is_a_link_is_none_for_a_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to("elsewhere")
    monkeypatch.setattr("worker.trainers.settings", lambda: Settings(data=tmp_path))
    with pytest.raises(OSError, match="home is a link"):
        environment()
    assert not list((tmp_path / "elsewhere").iterdir())


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


def test_a_spare_that_cannot_be_started_is_tried_again_after_a_while(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tries: list[float] = []

    def refused() -> None:
        tries.append(time.monotonic())
        raise BlockingIOError(errno.EAGAIN, "no process is left")

    monkeypatch.setattr(trainer_processes, "_AGAIN_SECONDS", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_processes, "Trainer", refused)
        wait_for(lambda: trainers.warm() or len(tries) == 3)
        assert tries[2] - tries[0] >= 0.6
        with pytest.raises(BlockingIOError):
            trainers.take({"kind": "light", "spec": {}}, tmp_path)
    wait_for(lambda: trainers.warm() or trainers._spare)


def test_the_device_is_known_of_the_spare_or_else_of_the_trainer_that_has_a_job(
    trainers: Trainers, tmp_path: Path
) -> None:
    """A spare takes seconds to say so, and short jobs take it before."""
    trainers.warm()
    assert trainers._spare is not None
    trainers._spare._ready = Ready(pid=1, device="cuda")
    assert trainers.device() == "gpu"
    taken = trainers.take({"kind": "light", "spec": {}}, tmp_path)
    assert trainers.device() == "gpu"
    trainers.warm()
    trainers._spare._ready = Ready(pid=1, device="cpu")
    assert trainers.device() == "cpu"
    taken.close()


WORKER = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from worker.trainers import Trainers
given = json.loads(sys.argv[1])
trainer = Trainers().take(given, Path(given["checkpoints"]))
print(trainer.pid, flush=True)
while True:
    for report in trainer.reports(0.1):
        print(type(report).__name__, flush=True)
"""


@contextmanager
def worker_of(behave: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str], int]]:
    """A process that has a trainer, what it prints of the trainer's reports, and the trainer's pid. It is killed at the end."""
    spec = {"kind": "light", "steps": 5000, "behave": behave, "at": 1}
    given = {"id": "job_1", "attempt": 1, "kind": "light", "spec": spec, "kept": {}, "checkpoints": str(folder)}
    command = [sys.executable, "-c", WORKER, json.dumps(given)]
    own = {**os.environ, "BEQUEST_SPARE_KERAS": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.slow
def test_all_that_a_trainer_has_started_ends_when_its_worker_is_killed(tmp_path: Path) -> None:
    for number in range(3):  # each in a folder of its own: behind a checkpoint it would start no others
        (folder := tmp_path / str(number)).mkdir()
        with worker_of("breed", folder) as (worker, _, trainer):
            family = wait_for(lambda pid=trainer: len(found := machine.process_tree(pid)) >= 5 and found)
            worker.kill()
        wait_for(lambda pids=family: not any(machine.process_tree(pid) for pid in pids), 5, "the whole family to end")


def test_a_trainer_that_is_silent_ends_when_its_worker_is_killed(tmp_path: Path) -> None:
    """One that reports would notice by itself that nobody reads."""
    with worker_of("hang", tmp_path) as (worker, printed, trainer):
        assert "Progress\n" in iter(printed.readline, "")  # the last thing it says
        worker.kill()
    wait_for(lambda: not machine.process_tree(trainer), 5, "the trainer to end")


def test_the_guard_ends_the_family_of_a_trainer_that_was_killed_itself(trainers: Trainers, tmp_path: Path) -> None:
    spec = {"kind": "light", "steps": 5000, "behave": "breed", "at": 1}
    given = {"id": "job_1", "attempt": 1, "kind": "light", "spec": spec, "kept": {}, "checkpoints": str(tmp_path)}
    trainer = trainers.take(given, tmp_path)
    family = wait_for(lambda: trainer.reports(0.05) and len(found := machine.process_tree(trainer.pid)) >= 5 and found)
    os.kill(trainer.pid, signal.SIGKILL)
    wait_for(trainer.ended)
    assert not trainer.is_gone()
    trainer.close()
    assert trainer.is_gone()
    wait_for(lambda: not any(machine.process_tree(pid) for pid in family), 5)


@pytest.mark.parametrize("behave", ["well", "breed", "sigkill"])
def test_whatever_a_trainer_has_started_is_buried(trainers: Trainers, tmp_path: Path, behave: str) -> None:
    """Else a worker that lives for months fills the table of processes, some entries a job."""
    before = set(children())
    spec = {"kind": "light", "steps": 5 if behave == "well" else 5000, "behave": behave, "at": 1}
    given = {"id": "job_1", "attempt": 1, "kind": "light", "spec": spec, "kept": {}, "checkpoints": str(tmp_path)}
    trainer = trainers.take(given, tmp_path)
    if behave == "breed":
        wait_for(lambda: trainer.reports(0.05) and len(machine.process_tree(trainer.pid)) >= 5)
    else:
        wait_for(trainer.ended)
    trainer.close()
    assert set(children()) <= before


def children() -> list[int]:
    """Of this process, those that have ended and are not buried among them."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def test_a_spare_that_its_worker_closes_leaves_no_guard_behind(trainers: Trainers) -> None:
    trainers.warm()
    spare = trainers._spare
    assert spare is not None
    family = wait_for(lambda: len(found := machine.process_tree(spare.pid)) == 2 and found)
    trainers.close()
    wait_for(lambda: not any(machine.process_tree(pid) for pid in family), 5)


def test_a_spare_that_is_started_by_hand_ends_nobody_else_s_session() -> None:
    code = (
        "import subprocess, sys\n"
        "spare = subprocess.Popen([sys.executable, '-m', 'worker.training', '--spare'], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE)\n"
        "spare.stdout.readline()\n"
        "spare.stdin.close()\n"
        "spare.wait()\n"
        "import time; time.sleep(0.5)\n"
        "print('still here')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BEQUEST_SPARE_KERAS": "0"},
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout == "still here\n", answer.stderr


def test_a_trainer_on_the_cpu_is_bound_in_addresses_too(trainers: Trainers) -> None:
    trainers.warm()
    spare = trainers._spare
    assert spare is not None
    spare.bound(2**30)
    assert resource.prlimit(spare.pid, resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "it has not said where it runs"
    spare._ready = Ready(pid=spare.pid, device="cpu")
    spare.bound(2**30)
    bound = resource.prlimit(spare.pid, resource.RLIMIT_AS)[0]
    assert 5 * 2**30 < bound <= 5 * 2**30 + os.cpu_count() * 2**29


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


def test_a_watchdog_that_has_expired_extends_no_lease(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = supervisor._Attempt(Claim("job_cut_off", 1, "light", "host-1-0", 60), now(), lambda: False)
    attempt._watchdog = watchdog = LeaseWatchdog(0.05, now(), lambda: None)
    attempt._heartbeat_at -= 60
    wait_for(lambda: watchdog.expired, 5)
    heartbeats: list[Claim] = []
    monkeypatch.setattr(jobs, "heartbeat", heartbeats.append)
    attempt._heartbeat()
    assert not heartbeats


def test_the_watchdog_acts_once_and_only_when_it_was_not_extended() -> None:
    blown: list[float] = []
    since = now()
    watchdog = LeaseWatchdog(0.3, since, lambda: blown.append(now() - since))
    time.sleep(0.2)
    watchdog.extend(since + 0.2)
    time.sleep(0.15)
    assert not watchdog.expired
    wait_for(lambda: watchdog.expired, 5)
    assert [seconds >= 0.5 for seconds in blown] == [True]

    closed = LeaseWatchdog(0.1, now(), lambda: blown.append(0))
    closed.close()
    time.sleep(0.2)
    assert len(blown) == 1


def test_a_job_that_asks_for_another_backend_gets_a_trainer_of_its_own_and_the_spare_stays(
    trainers: Trainers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    trainers.warm()
    spare = trainers._spare
    assert spare is not None

    def backend(pid: int) -> str:
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next(word.decode().partition("=")[2] for word in given if word.startswith(b"KERAS_BACKEND="))

    taken = trainers.take({"kind": "light", "spec": {"backend": "jax"}}, tmp_path / "a")
    assert (backend(taken.pid), backend(spare.pid)) == ("jax", "tensorflow")
    assert trainers._spare is spare
    usual = trainers.take({"kind": "light", "spec": {"backend": "tensorflow"}}, tmp_path / "b")
    assert usual is spare
    for one in (taken, usual):
        one.close()


def test_a_gpu_s_worker_has_jax_only_with_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def __init__(self, name: str):
            self.name = name

    ask = backends.installed.__wrapped__
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    monkeypatch.setattr(backends, "distributions", lambda: [Package("jax"), Package("jaxlib"), Package("numpy")])
    assert ask("cpu") == ("tensorflow", "jax")
    assert ask("gpu") == ("tensorflow",)
    monkeypatch.setattr(backends, "distributions", lambda: [Package("jax"), Package("jax_cuda12_plugin")])
    assert ask("gpu") == ("tensorflow", "jax")
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "jax" else name)
    assert ask("cpu") == ("tensorflow",)

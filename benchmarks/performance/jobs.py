"""Rows of the table: whole jobs by command line, their memory, how soon they stop, and how many programs they compile."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.performance.programs import FORMER, ROOT, Bench, environment
from benchmarks.performance.results import Goal, Result, Results, in_turns, over
from worker.reports import Exit

SEEDS = 5

MOST_ROUNDS = 3
"""Of whole jobs, one of which takes a minute."""


def transfer(source: str, target: str, architecture: str, batch: int, epochs: tuple[int, int]) -> dict[str, Any]:
    """The body of a job: epochs of the source and of each of its ten other fits."""
    trainings = [{"epochs": each, "batch_size": batch} for each in epochs]
    train = {"dataset": source, "architecture": architecture, "training": trainings[0]}
    return {
        "kind": "transfer", "dataset": target, "source": {"train": train}, "training": trainings[1],
        "control": {"seeds": SEEDS},
    }  # fmt: skip


JOBS = {
    "job-cnn": ("strokes to digits, `cnn`, 5 seeds", transfer("strokes", "digits", "cnn", 64, (3, 10)), 0.8),
    # 148: a multiple of the 4 epochs between two validations of so few rows.
    "job-table": ("wine, `mlp`, 5 seeds", transfer("wine", "wine", "mlp", 32, (148, 148)), 0.15),
}


def whole(bench: Bench, name: str) -> Results:
    """From when Keras is imported to the end: `python -m worker.training job.json out/`, and the same eleven models by Keras alone."""
    what, body, most = JOBS[name]
    file = bench.place / f"{name}.json"
    file.write_text(json.dumps(body))
    ours, theirs = ("benchmarks.performance.job",), ("benchmarks.rivals.keras_job",)
    arms = {"service": ours, "fit": theirs, "long": (*theirs, "--long")}

    def measure(module: str, *more: str) -> Callable[[], float]:
        def run() -> float:
            out = fresh_folder(bench)
            return last_number([sys.executable, "-m", module, str(file), str(out), *more])

        return run

    times = in_turns({arm: measure(*command) for arm, command in arms.items()}, min(bench.rounds, MOST_ROUNDS))
    beside = f"{statistics.median(times['service']):.1f} s"
    against = "Keras `fit`, steps_per_execution 32"
    yield Result(f"whole job: {what}", against, over(times["service"], times["fit"]), Goal("most", most), beside)
    against = "the same, an epoch as long as two validations are apart"
    yield Result(f"whole job: {what}", against, over(times["service"], times["long"]))


def last_number(command: Sequence[str]) -> float:
    """The last line that the command prints. Raises RuntimeError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(ROOT), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return float(done.stdout.split()[-1])


def fresh_folder(bench: Bench) -> Path:
    return bench.place / f"out-{time.monotonic_ns()}"


def programs(bench: Bench, name: str) -> Results:  # noqa: ARG001
    """Learners that a job of five seeds makes, each of which is compiled once: the source's, and those of its arms."""
    for schedule in ("constant", "cosine"):
        body = transfer("strokes", "digits", "cnn", 64, (1, 1))
        for number, training in enumerate((body["source"]["train"]["training"], body["training"])):
            # Budgets differ, as a source's and a target's do: a schedule that is part of a program makes one for each.
            del training["epochs"]
            training |= {"steps": 3 + number, "schedule": schedule}
        count = learners_of(body, fresh_folder(bench))
        yield Result(
            f"programs of a transfer job of {SEEDS} seeds, {schedule} rate",
            f"3 at {FORMER}, constant rate",
            [float(count)],
            Goal("most", 2),
            unit="",
        )


def learners_of(body: dict[str, Any], out: Path) -> int:
    """How many learners a job asks its cache for, in this process."""
    from benchmarks.memory import Silent
    from worker.training import trainer
    from worker.training.fitting.fit import ModelCache
    from worker.training.process import device

    device.import_keras()
    made: dict[int, Any] = {}
    compiled = ModelCache.compiled

    def counted(self: ModelCache, *given: Any, **named: Any) -> Any:
        learner = compiled(self, *given, **named)
        made[id(learner)] = learner  # kept, so that no other gets its id
        return learner

    ModelCache.compiled = counted  # type: ignore[method-assign]
    try:
        ended = trainer.run(trainer.resolved_alone(body), out, Silent(), threading.Event())
    finally:
        ModelCache.compiled = compiled  # type: ignore[method-assign]
    assert ended == Exit.DONE, ended
    return len(made)


def memory(bench: Bench, name: str) -> Results:  # noqa: ARG001
    """The most memory that a trainer's process fills in a job, against the trainer at `FORMER` with the same job."""
    body = transfer("strokes", "digits", "cnn", 64, (1, 5)) | {"control": {"seeds": 1}}
    file = bench.place / "memory.json"
    file.write_text(json.dumps(body))

    def measure(code: Path) -> Callable[[], float]:
        def run() -> float:
            with trainer_of(code, file, fresh_folder(bench)) as process:
                return peak(process)

        return run

    most = in_turns({"present": measure(ROOT), "former": measure(bench.former)}, bench.rounds)
    yield Result(
        "most memory of a trainer: strokes to digits, `cnn`, one seed",
        f"the trainer at {FORMER}",
        over(most["present"], most["former"]),
        Goal("most", 1.1),
        f"{statistics.median(most['present']):.0f} MiB",
    )


def stopping(bench: Bench, name: str) -> Results:  # noqa: ARG001
    """Seconds from SIGTERM in the midst of a fit to the process's end, its checkpoint saved; and the same of the trainer at `FORMER`."""
    body = transfer("strokes", "digits", "cnn", 64, (1, 1000)) | {"control": {"seeds": 0}}
    file = bench.place / "stopping.json"
    file.write_text(json.dumps(body))
    round_number = {"present": 0, "former": 0}

    def measure(arm: str, code: Path) -> Callable[[], float]:
        def run() -> float:
            round_number[arm] += 1
            with trainer_of(code, file, fresh_folder(bench)) as process:
                # At another moment of a call of many steps each time, the same for both.
                return stopped(process, after=0.5 + 0.37 * round_number[arm])

        return run

    seconds = in_turns({"present": measure("present", ROOT), "former": measure("former", bench.former)}, bench.rounds)
    yield Result(
        "stop to exit: strokes to digits, `cnn`",
        f"the trainer at {FORMER}: {statistics.median(seconds['former']):.2f} s",
        seconds["present"],
        Goal("most", 1.5),
        unit=" s",
    )


@contextmanager
def trainer_of(code: Path, job: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """The trainer of the code in a folder at work; its standard output are the reports. It is ended if it has not by itself."""
    log = job.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.training", str(job), str(out)],
            stdout=subprocess.PIPE, stderr=errors, text=True, cwd=code, env=environment(code),
        )  # fmt: skip
    try:
        yield process
    except AssertionError as error:
        raise RuntimeError(f"the trainer in {code.name}: {error}\n{log.read_text()[-4000:]}") from error
    finally:
        process.kill()
        process.wait()


def peak(process: subprocess.Popen[str]) -> float:
    """MiB, as Linux remembers the most that the process has held; asked for at each report, the last of which is the result."""
    most = 0.0
    assert process.stdout is not None
    for _ in process.stdout:
        most = max(most, high_water(process.pid))
    assert process.wait() == Exit.DONE, f"ended with {process.returncode}"
    return most


def high_water(pid: int) -> float:
    """MiB; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def stopped(process: subprocess.Popen[str], after: float) -> float:
    """Seconds from SIGTERM to the process's end, `after` so many of its fit."""
    assert process.stdout is not None
    for line in process.stdout:
        report = json.loads(line)
        if report["report"] == "progress" and report["stage"] == "target":
            break
    reading = threading.Thread(target=process.stdout.read, daemon=True)  # a full pipe would keep it from ending
    reading.start()
    time.sleep(after)
    begun = time.perf_counter()
    os.kill(process.pid, signal.SIGTERM)
    process.wait()
    seconds = time.perf_counter() - begun
    reading.join()
    assert process.returncode == Exit.STOPPED, f"ended with {process.returncode}"
    return seconds

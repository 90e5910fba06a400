"""Other programs that are measured beside this one: those that answer lines, and a checkout of the code as it was."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
RIVALS = ROOT / "benchmarks" / "rivals"

FORMER = "843b02f"
"""The last revision whose loop called TensorFlow once for each step."""


class Missing(Exception):
    """Something that a measurement needs is not on this machine. The message names it."""


class Bench:
    """What the measurements share: the number of rounds, a folder for their files, the former code, checked out when first asked for."""

    def __init__(self, rounds: int, place: Path, rivals: Path, stack: ExitStack):
        self.rounds, self.place, self.rivals = rounds, place, rivals
        self._stack = stack
        self._former: Path | None = None

    @property
    def former(self) -> Path:
        """The folder with the code at `FORMER`. Raises Missing where its history is not here."""
        if self._former is None:
            self._former = self._stack.enter_context(checkout(FORMER, self.place / "former"))
        return self._former


@contextmanager
def checkout(revision: str, place: Path) -> Iterator[Path]:
    """The code at `revision` in the new folder `place`, which is gone at the end. Raises Missing."""
    git = ["git", "-C", str(ROOT), "worktree"]
    made = subprocess.run([*git, "add", "--detach", str(place), revision], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise Missing(f"git has no revision {revision} here")
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], capture_output=True, check=False)


def environment(code: Path) -> dict[str, str]:
    """For a program with the `app` and `worker` of the folder `code`."""
    return os.environ | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@contextmanager
def answering(command: Sequence[str], code: Path) -> Iterator[Callable[[str], float]]:
    """A program as in `rivals/answering.py`. The function hands it a line and returns the number it answers."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=code,
            env=environment(code),
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def heard() -> str:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise RuntimeError(f"{' '.join(command)} ended:\n{errors.read()[-4000:]}")
            return line

        def ask(line: str) -> float:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return float(heard())

        try:
            heard()  # it is ready
            yield ask
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def present_side(case: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.performance.side", case, *more]


def former_side(file: Path) -> list[str]:
    return [sys.executable, str(RIVALS / "former_side.py"), str(file)]


@contextmanager
def sides(commands: Mapping[str, tuple[Sequence[str], Path]]) -> Iterator[dict[str, Callable[[str], float]]]:
    """Several such programs at once: {name: (command, the folder of its code)}. While one is asked, the others wait."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(answering(*command)) for name, command in commands.items()}

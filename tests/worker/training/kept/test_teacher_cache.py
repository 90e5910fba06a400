"""What teachers said is asked once for each row, is right whatever order it is asked in, and outlives the job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.worker.training.small import DIGIT, PICTURE, fit_loop, network
from worker.training.kept import teacher_cache
from worker.training.kept.teacher_cache import TeacherCache

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (300, *PICTURE.shape)).astype(np.uint8)
FEATURE = ["dense1"]


class Teacher:
    """A small network, and how many rows it was really asked about."""

    def __init__(self, home: Path, seed: int = 0, sha256: str = "a" * 64):
        self.network = network([DIGIT], seed, {"arch": "cnn", "filters": [3, 4], "dense": 6}, PICTURE)
        self.manifest = SimpleNamespace(sha256=sha256)
        self._fit_loop = fit_loop(home)
        self.asked: list[int] = []

    def ask(self, whole: Any, inputs: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        self.asked.append(len(inputs))
        return self._fit_loop.logits(whole, inputs, layers)


def ask(made: TeacherCache, teacher: Teacher, rows: Any, layers: Sequence[str] = FEATURE) -> dict[str, np.ndarray]:
    return made(teacher, PICTURES[rows], layers)  # type: ignore[arg-type]


def test_the_same_rows_are_asked_about_once_and_a_row_s_answer_does_not_depend_on_the_others(tmp_path: Path) -> None:
    teacher = Teacher(tmp_path)
    made = TeacherCache(teacher.ask)
    everything = ask(made, teacher, np.arange(300))
    asked = len(teacher.asked)
    order = np.random.default_rng(1).permutation(300)
    again = ask(made, teacher, order)
    assert len(teacher.asked) == asked
    other = Teacher(tmp_path / "other")
    piecemeal = TeacherCache(other.ask)
    ask(piecemeal, other, [17])
    ask(piecemeal, other, np.arange(10, 90))
    ask(piecemeal, other, [5, 5, 17, 200])  # the same row twice
    last = ask(piecemeal, other, np.arange(300))
    plain = fit_loop(tmp_path / "plain").logits(other.network, PICTURES, FEATURE)
    for name in ("digit", "feature/dense1"):
        assert np.array_equal(again[name], everything[name][order])
        assert np.array_equal(last[name], everything[name])  # bit by bit
        assert np.allclose(everything[name], plain[name], atol=1e-5)


def test_a_later_job_reads_the_file_and_asks_about_new_rows_alone(tmp_path: Path) -> None:
    first = Teacher(tmp_path)
    told = ask(TeacherCache(first.ask, tmp_path / "cache"), first, np.arange(40))
    second = Teacher(tmp_path)
    made = TeacherCache(second.ask, tmp_path / "cache")
    again = ask(made, second, np.arange(40))
    assert second.asked == []
    assert np.array_equal(again["digit"], told["digit"])
    ask(made, second, np.arange(60))
    assert second.asked == [256]


def test_another_teacher_other_layers_and_other_scalings_are_other_keys(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = Teacher(tmp_path), Teacher(tmp_path, 9, "b" * 64)
    one = ask(TeacherCache(first.ask, cache), first, np.arange(5))
    other = ask(TeacherCache(second.ask, cache), second, np.arange(5))
    assert not np.allclose(one["digit"], other["digit"], atol=1e-3)
    assert set(ask(TeacherCache(first.ask, cache), first, np.arange(5), [])) == {"digit"}
    assert len(list(cache.glob("*.npz"))) == 3


def test_a_file_that_cannot_be_read_is_forgotten(tmp_path: Path) -> None:
    teacher, cache = Teacher(tmp_path), tmp_path / "cache"
    told = ask(TeacherCache(teacher.ask, cache), teacher, np.arange(5))
    (path,) = cache.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-40])
    again = ask(TeacherCache(teacher.ask, cache), teacher, np.arange(5))
    assert np.array_equal(told["digit"], again["digit"])


def test_a_folder_that_cannot_be_written_and_no_rows_at_all_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    teacher = Teacher(tmp_path)
    assert ask(TeacherCache(teacher.ask, tmp_path / "cache"), teacher, np.arange(5))["digit"].shape == (5, 4)
    assert ask(TeacherCache(teacher.ask), teacher, np.arange(0))["digit"].shape == (0, 4)


def test_the_longest_unused_files_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    for number in range(3):
        teacher = Teacher(tmp_path, number, str(number) * 64)
        ask(TeacherCache(teacher.ask, cache), teacher, np.arange(5))
        files = sorted(cache.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
        monkeypatch.setattr(teacher_cache, "MOST_BYTES", int(2.5 * files[0].stat().st_size))
        import os

        os.utime(files[-1], (1000 + number, 1000 + number))
    assert len(list(cache.glob("*.npz"))) == 2

"""A checkpoint is there whole or not at all, and the newest whole one is used."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.worker.training.fitting.spoiling import SPOIL, cut
from worker.training.fitting import checkpoint
from worker.training.fitting.checkpoint import Saved


def saved(step: int) -> Saved:
    return Saved(step, [np.full((2, 3), step, np.float32), np.array([7, step], np.uint32)], {"phase": 1, "note": "ü"})


def steps(home: Path, stage: str) -> list[int]:
    """Of the whole checkpoints, newest first."""
    return [one.step for one in checkpoint.whole(home, stage)]


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "made", "control/0", saved(40))
    (found,) = checkpoint.whole(tmp_path / "made", "control/0")
    assert (found.step, found.state) == (40, {"phase": 1, "note": "ü"})
    for ours, theirs in zip(found.arrays, saved(40).arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


@pytest.fixture
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers record every checkpoint at once."""
    monkeypatch.setattr(checkpoint, "DEAF_SECONDS", 0)


@pytest.mark.usefixtures("_heard")
def test_the_newest_two_are_kept_and_stages_do_not_mix(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint.save(tmp_path, "target", saved(step))
    checkpoint.save(tmp_path, "source", saved(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source-3", "target-10", "target-100"]
    assert steps(tmp_path, "target") == [100, 10]
    assert steps(tmp_path, "treated/1") == []


def test_one_from_before_a_worker_went_deaf_is_kept_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint every five seconds: there is always one of a minute ago, and none of more than two."""
    for second in range(5, 305, 5):
        monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda second=second: float(second)))
        checkpoint.save(tmp_path, "target", saved(second))
        found = sorted((int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir()), reverse=True)
        assert second == found[0] <= found[min(1, len(found) - 1)] + 5
        assert len(found) <= 4
        assert found[-1] == 5 if second < 65 else 60 <= second - found[-1] < 120


def test_what_an_attempt_inherited_was_recorded(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "before", "target", saved(step))
    (tmp_path / "before").rename(tmp_path / "now")
    for step in (3, 4, 5, 6):
        checkpoint.save(tmp_path / "now", "target", saved(step))
    assert steps(tmp_path / "now", "target") == [6, 5, 3, 2]


@pytest.mark.parametrize("how", list(SPOIL))
def test_a_spoilt_one_is_passed_over_for_the_one_before_it(how: str, tmp_path: Path) -> None:
    for step in (5, 6):
        checkpoint.save(tmp_path, "target", saved(step))
    SPOIL[how](tmp_path / "target-6")
    assert steps(tmp_path, "target") == [5]
    SPOIL[how](tmp_path / "target-5")
    assert steps(tmp_path, "target") == []
    checkpoint.save(tmp_path, "target", saved(6))
    assert steps(tmp_path, "target") == [6]


def test_what_was_passed_over_makes_way_for_what_is_saved_after_it(tmp_path: Path) -> None:
    for step in (5, 9):
        checkpoint.save(tmp_path, "target", saved(step))
    cut(tmp_path / "target-9" / "arrays.npz")
    checkpoint.save(tmp_path, "target", saved(7))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target-5", "target-7"]
    cut(tmp_path / "target-7" / "state.json")
    checkpoint.save(tmp_path, "target", saved(7))
    assert steps(tmp_path, "target") == [7, 5]


WRITES = ("open", "mkdir", "rename", "fsync", "rmdir", "unlink")


class Killed(BaseException):
    """As a kill: nothing of the program runs on, no handler of an error either."""


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_kill_at_any_moment_of_a_save_leaves_one_to_go_on_from(
    spoilt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each system call of a save in turn: a step after a whole one, or in place of a spoilt one."""
    for place in range(100):
        home = tmp_path / str(place)
        for step in (4, 5):
            checkpoint.save(home, "target", saved(step))
        if spoilt:
            cut(home / "target-5" / "arrays.npz")
        done = _stopping_at(place, Killed(), monkeypatch)
        try:
            checkpoint.save(home, "target", saved(5 if spoilt else 6))
        except Killed:
            monkeypatch.undo()
            assert steps(home, "target")[0] in ((4, 5) if spoilt else (5, 6))
            assert len(steps(home, "target")) >= 1
            checkpoint.save(home, "target", saved(7))
            assert steps(home, "target")[0] == 7
            assert not list(home.glob(".*"))
        else:
            monkeypatch.undo()
            assert place > 8
            assert done() == place
            return
    raise AssertionError


def test_a_full_disk_at_any_moment_leaves_those_before_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in range(9):
        home = tmp_path / str(place)
        for step in (4, 5):
            checkpoint.save(home, "target", saved(step))
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _stopping_at(place, full, monkeypatch, ("mkdir", "fsync"))
        refused = True
        try:
            checkpoint.save(home, "target", saved(6))
            refused = False
        except OSError:
            assert 5 in steps(home, "target")
            assert not list(home.glob(".*"))
        finally:
            monkeypatch.undo()
        assert refused == (place < 7)  # two folders, three files, and the names in both


def _stopping_at(
    place: int, error: BaseException, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = WRITES
) -> Callable[[], int]:
    """Raises `error` in place of call `place` (from 0) of those that change a disk; how many there were."""
    count = 0

    def counted(whole: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count > place:
                raise error
            return whole(*arguments, **named)

        return call

    for name in names:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: count


def test_a_torn_write_is_never_seen_as_a_checkpoint(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "target", saved(5))
    torn = tmp_path / ".target"
    torn.mkdir()
    (torn / "arrays.npz").write_bytes(b"half")
    assert steps(tmp_path, "target") == [5]


def test_a_finished_stage_is_forgotten(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "target", saved(5))
    checkpoint.forget(tmp_path, "target")
    assert list(tmp_path.iterdir()) == []
    checkpoint.forget(tmp_path / "never made", "target")

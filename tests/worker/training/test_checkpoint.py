"""A checkpoint is there whole or not at all, and the newest whole one is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worker.training import checkpoint
from worker.training.checkpoint import Saved


def saved(step: int) -> Saved:
    return Saved(step, [np.full((2, 3), step, np.float32), np.array([7, step], np.uint32)], {"phase": 1, "note": "ü"})


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "control/0", saved(40))
    found = checkpoint.newest(tmp_path, "control/0")
    assert found is not None
    assert (found.step, found.state) == (40, {"phase": 1, "note": "ü"})
    for ours, theirs in zip(found.arrays, saved(40).arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_the_newest_two_are_kept_and_stages_do_not_mix(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint.save(tmp_path, "target", saved(step))
    checkpoint.save(tmp_path, "source", saved(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source-3", "target-10", "target-100"]
    assert checkpoint.newest(tmp_path, "target").step == 100  # type: ignore[union-attr]
    assert checkpoint.newest(tmp_path, "treated/1") is None


def test_a_spoilt_one_is_passed_over_for_the_one_before_it(tmp_path: Path) -> None:
    for step in (5, 6):
        checkpoint.save(tmp_path, "target", saved(step))
    data = bytearray((tmp_path / "target-6" / "arrays.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "target-6" / "arrays.npz").write_bytes(bytes(data))
    assert checkpoint.newest(tmp_path, "target").step == 5  # type: ignore[union-attr]
    (tmp_path / "target-5" / "manifest.json").write_text("{")
    assert checkpoint.newest(tmp_path, "target") is None


def test_a_torn_write_is_never_seen_as_a_checkpoint(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "target", saved(5))
    torn = tmp_path / ".target-8.123"
    torn.mkdir()
    (torn / "arrays.npz").write_bytes(b"half")
    assert checkpoint.newest(tmp_path, "target").step == 5  # type: ignore[union-attr]


def test_a_finished_stage_is_forgotten(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "target", saved(5))
    checkpoint.forget(tmp_path, "target")
    assert list(tmp_path.iterdir()) == []
    checkpoint.forget(tmp_path / "never made", "target")

"""A file is there whole or not at all, and on the disk when its writer goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from app import durable


def test_the_new_file_takes_the_name_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("old")
    with durable.write(path) as beside:
        assert (beside.parent, beside.suffix, beside.name[0]) == (tmp_path, ".keras", ".")
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), durable.write(path) as beside:
        beside.write_text("half\ud800", encoding="utf-8")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    with durable.write(path) as first, durable.write(path) as second:
        first.write_text("first, and long")
        second.write_text("second")
    assert path.read_text() == "first, and long"  # the one that ended last
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_synced_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.npy"
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))  # noqa: PTH115

    monkeypatch.setattr(os, "fsync", fsync)
    with durable.write(path) as beside:
        beside.write_text("new")
    assert synced == [(str(beside), False), (str(tmp_path), True)]


def test_a_disk_that_cannot_sync_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.npy"
    path.write_text("old")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"), durable.write(path) as beside:
        beside.write_text("new")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]

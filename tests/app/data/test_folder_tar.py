"""A folder as a tar: the same bytes for the same files, no link followed, nothing but names and contents kept."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.data import folder_tar

FILES = {
    "b/2.txt": b"two",
    "a/1.txt": b"one",
    "a.txt": b"beside",
    ".hidden": b"",
    "a/deep/er/" + "x" * 200 + ".txt": b"long",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(made(tmp_path / "in"), os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def made(folder: Path, names: list[str] | None = None) -> Path:
    for name in names or list(FILES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
    (folder / "empty").mkdir()
    return folder


def packed(folder: int, count: int = len(FILES)) -> bytes:
    target = io.BytesIO()
    assert folder_tar.pack(folder, target, most=10**9) == count
    return target.getvalue()


def test_every_file_is_there_in_the_order_of_names_and_nothing_else(folder: int) -> None:
    content = packed(folder)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        read = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in tar} == {(0, 0, "", 0o644)}
    assert read == FILES
    assert list(read) == sorted(FILES)


def test_the_same_files_are_the_same_bytes(folder: int, tmp_path: Path) -> None:
    other = made(tmp_path / "other", list(reversed(FILES)))
    for name in FILES:
        os.utime(other / name, (1, 1))
        (other / name).chmod(0o600)
    descriptor = os.open(other, os.O_RDONLY)
    assert packed(descriptor) == packed(folder)
    os.close(descriptor)


def test_links_lead_nowhere_and_what_is_no_file_is_a_pipe(folder: int, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "in/link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "in/folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "in/pipe")
    content = packed(folder, len(FILES) + 3)
    assert b"secret" not in content
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        odd = {info.name: (info.type, info.size, info.linkname) for info in tar if not info.isreg()}
    link, pipe = (tarfile.SYMTYPE, 0, ""), (tarfile.FIFOTYPE, 0, "")
    assert odd == {"link.txt": link, "folder": link, "pipe": pipe}


@pytest.mark.parametrize("name", ["link/1.txt", "link", "a"])
def test_nothing_is_opened_through_a_link(folder: int, tmp_path: Path, name: str) -> None:
    (tmp_path / "in/link").symlink_to(tmp_path / "in/a")
    with (
        pytest.raises(OSError, match=r"Not a directory|Too many levels|no plain file"),
        folder_tar._opened(folder, name),
    ):
        pass


def test_what_is_too_long_is_refused_before_anything_is_written(folder: int) -> None:
    target = io.BytesIO()
    with pytest.raises(folder_tar.TooLarge, match="5 files take"):
        folder_tar.pack(folder, target, most=1000)
    assert target.getvalue() == b""


def test_names_in_no_known_encoding_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "in") + b"/\xff\xe9.txt")).write_bytes(b"odd")
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    assert packed(descriptor, 1).startswith(b"\xff\xe9.txt")
    os.close(descriptor)


def test_a_file_that_has_grown_is_cut_and_one_that_has_shrunk_is_an_error(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = folder_tar._listed
    file = tmp_path / "in/a.txt"

    def changed(content: bytes) -> None:
        def then(folder: int) -> object:
            found = listed(folder)
            file.write_bytes(content)
            return found

        file.write_bytes(b"beside")
        monkeypatch.setattr(folder_tar, "_listed", then)

    changed(b"beside and more")
    assert b"and more" not in packed(folder)
    changed(b"b")
    with pytest.raises(OSError, match="unexpected end of data"):
        packed(folder)

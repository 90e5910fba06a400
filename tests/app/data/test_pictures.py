"""Archives of pictures: class folders, parts, one size for all; every file is used, ignored or broken, and said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data import decode, prepared
from app.data.inputs import image
from app.data.upload_limits import UploadLimits
from app.spec.faults import Invalid
from tests.app.data.pictures import class_folders, noise, saved, tarred, zipped
from tests.app.data.reading import taken


@pytest.mark.parametrize("format", ["zip", "tar"])
def test_class_folders_become_rows_with_a_label(tmp_path: Path, format: str) -> None:
    files = class_folders(6)
    table, intake = taken(tmp_path, zipped(files) if format == "zip" else tarred(files), format)
    assert (table.schema.rows, table.schema.input.shape, table.schema.target) == (6, [12, 10, 3], "label")
    assert table.schema.columns["label"].classes == ["cats", "dogs"]
    assert table.schema.columns["label"].counts == [3, 3]
    names = sorted(files)
    for number, pixels in enumerate(table.inputs[np.arange(6)]):
        assert np.array_equal(pixels, decode.picture(files[names[number]], size=(12, 10), mode="RGB", fit="exact"))
    assert table.columns["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(table.hashes, image.hashes(table.inputs[np.arange(6)], table.schema.input))
    assert (intake.used, intake.ignored, intake.broken, intake.notes) == (6, [], [], [])


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        taken(folder, zipped(class_folders(4)), "zip", size=(8, 8))
    assert (first / "prepared").read_bytes() == (second / "prepared").read_bytes()


def test_every_other_file_is_counted_with_why(tmp_path: Path) -> None:
    files = {f"photos/{name}": content for name, content in class_folders(4).items()}
    files |= {
        "__MACOSX/photos/cats/._1.png": b"x",
        "photos/.DS_Store": b"x",
        "photos/cats/Thumbs.db": b"x",
        "photos/cats/notes.txt": b"x",
        "photos/cats/notes.doc": b"x",
        "photos/more.zip": b"x",
        "photos/LICENSE": b"x",
        "photos/beside.png": saved(noise(9, 12, 10, 3)),
        "photos/cats/../../etc/passwd.png": saved(noise(9, 12, 10, 3)),
    }
    table, intake = taken(tmp_path, zipped(files), "zip")
    assert len(table) == 4
    reasons = {counted.reason: counted.examples for counted in intake.ignored}
    assert reasons["its ending .doc is not known"] == ["cats/notes.doc"]
    assert reasons["a text among files of kind picture"] == ["cats/notes.txt"]
    assert reasons["an archive within the archive"] == ["more.zip"]
    assert reasons["it has no ending"] == ["LICENSE"]
    assert reasons["it stands beside the class folders, not in one"] == ["beside.png"]
    assert reasons["a hidden file"] == ["photos/.DS_Store"]
    assert len(reasons["a file of the system's, not of the data"]) == 2
    assert len(reasons["its name is no plain path within the archive"]) == 1
    assert intake.broken == []
    assert intake.used + sum(counted.count for counted in [*intake.ignored, *intake.broken]) == len(files)


def test_parts_become_a_split_column(tmp_path: Path) -> None:
    files = {}
    for part, seed in (("train", 0), ("val", 100), ("test", 200)):
        for number in range(4):
            files[f"{part}/{'ab'[number % 2]}/{number}.png"] = saved(noise(seed + number, 6, 6, 3))
    table, _ = taken(tmp_path, zipped(files), "zip")
    assert table.schema.target == "label"
    assert table.schema.columns["split"].classes == ["test", "train", "validation"]
    assert table.schema.columns["split"].counts == [4, 4, 4]
    assert table.schema.columns["label"].classes == ["a", "b"]


def test_sizes_that_differ_are_brought_to_one_and_it_is_said(tmp_path: Path) -> None:
    files = class_folders(4) | {"cats/large.jpg": saved(noise(5, 40, 60, 3), "JPEG")}
    table, intake = taken(tmp_path, zipped(files), "zip")
    assert table.schema.input.shape == [224, 224, 3]
    assert "2 sizes, 12×10 to 40×60" in intake.notes[0]
    assert "size=HEIGHTxWIDTH" in intake.notes[0]
    assert "fit=crop" in intake.notes[1]
    assert table.schema.input.decode is not None
    assert table.schema.input.decode.fit == "pad"
    table, intake = taken(tmp_path, zipped(files), "zip", size=(8, 6), fit="crop")
    assert (table.schema.input.shape, intake.notes) == ([8, 6, 3], [])


def test_grey_pictures_have_one_channel_unless_some_are_not(tmp_path: Path) -> None:
    grey = {f"{'ab'[n % 2]}/{n}.png": saved(noise(n, 7, 7)) for n in range(4)}
    table, _ = taken(tmp_path, zipped(grey), "zip")
    assert table.schema.input.shape == [7, 7, 1]
    mixed = grey | {"a/colour.png": saved(noise(9, 7, 7, 3))}
    table, intake = taken(tmp_path, zipped(mixed), "zip")
    assert table.schema.input.shape == [7, 7, 3]
    assert "4 of 5 pictures are grey" in intake.notes[0]


def test_broken_files_are_named_and_refused_beyond_one_in_a_hundred(tmp_path: Path) -> None:
    files = class_folders(6) | {"cats/9.jpg": b"<html>404</html>", "dogs/8.png": class_folders(2)["dogs/0.png"][:60]}
    with pytest.raises(Invalid) as refused:
        taken(tmp_path, zipped(files), "zip")
    messages = " ".join(fault.message for fault in refused.value.faults)
    assert "1 of 8 files are broken" in messages
    assert "cats/9.jpg" in messages
    assert "skip_broken" in str(refused.value.faults[0].hint)
    table, intake = taken(tmp_path, zipped(files), "zip", skip_broken=True)
    assert len(table) == 6
    assert sum(counted.count for counted in intake.broken) == 2


def test_one_in_a_hundred_may_be_broken_but_no_whole_class(tmp_path: Path) -> None:
    many = {f"{'ab'[n % 2]}/{n}.png": saved(noise(n, 4, 4, 3)) for n in range(100)}
    table, intake = taken(tmp_path, zipped(many | {"a/x.jpg": b"no"}), "zip")
    assert (len(table), intake.broken[0].examples) == (100, ["a/x.jpg"])
    with pytest.raises(Invalid, match="no file of class 'c'"):
        taken(tmp_path, zipped(many | {"c/x.jpg": b"no"}), "zip")


def test_a_picture_that_breaks_only_when_it_is_decoded_leaves_its_row_out(tmp_path: Path) -> None:
    whole = saved(noise(1, 40, 40, 3))
    files = class_folders(4, (40, 40)) | {"cats/a.png": whole[: len(whole) // 2]}
    table, intake = taken(tmp_path, zipped(files), "zip", skip_broken=True)
    assert (len(table), len(table.hashes), len(table.columns["label"])) == (4, 4, 4)
    assert intake.broken[0].examples == ["cats/a.png"]


def test_pictures_without_folders_have_no_labels(tmp_path: Path) -> None:
    files = {f"{n}.png": saved(noise(n, 5, 5, 3)) for n in range(3)}
    table, intake = taken(tmp_path, zipped(files), "zip")
    assert (table.columns, table.schema.target) == ({}, None)
    assert "no labels" in intake.notes[0]


def test_targets_must_be_there_and_pixels_fit(tmp_path: Path) -> None:
    content = zipped(class_folders(4))
    with pytest.raises(Invalid, match="no such column"):
        taken(tmp_path, content, "zip", targets=["species"])
    with pytest.raises(Invalid, match="bytes"):
        taken(tmp_path, content, "zip", size=(64, 64), limits=UploadLimits(archive_bytes=20_000))
    with pytest.raises(Invalid, match="no file in the archive"):
        taken(tmp_path, zipped({"a.doc": b"x", "b/c.exe": b"x"}), "zip")
    with pytest.raises(Invalid, match="folder's name"):
        taken(
            tmp_path,
            zipped({f"{name}/{n}.png": saved(noise(n, 4, 4)) for n in range(2) for name in ("a", "x" * 140)}),
            "zip",
        )


@pytest.mark.parametrize(
    ("content", "format", "options", "pointer"),
    [
        (zipped(class_folders(4)), "zip", {"length": 64, "size": (8, 8)}, "/length"),
        (zipped(class_folders(4)), "zip", {"inputs": ["a"]}, "/inputs"),
        (zipped({f"{k}/{n}.txt": b"some words" for k in "ab" for n in range(3)}), "zip", {"fit": "crop"}, "/fit"),
        (b"a,y\n1.5,x\n2.5,z\n", "csv", {"size": (8, 8)}, "/size"),
        (b"", "npz", {"skip_broken": True}, "/skip_broken"),
    ],
)
def test_an_option_without_meaning_is_refused_and_not_passed_over(
    tmp_path: Path, content: bytes, format: str, options: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        taken(tmp_path, content, format, **options)
    assert [fault.pointer for fault in refused.value.faults] == [pointer]


def test_an_old_prepared_file_is_read_as_before(tmp_path: Path) -> None:
    table, _ = taken(tmp_path, zipped(class_folders(4)), "zip")
    prepared.write(table, tmp_path / "old.npz")
    old = prepared.read(tmp_path / "old.npz")
    assert np.array_equal(old.inputs[np.arange(4)], table.inputs[np.arange(4)])
    assert np.array_equal(prepared.head(tmp_path / "prepared", 2).inputs, old.inputs[np.arange(2)])

"""COCO, YOLO and Pascal VOC become one column of boxes, which lie where the pixels lie; what is left out is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.data import decode
from app.data.intake.boxes import place
from app.data.table import Table
from app.spec.faults import Invalid
from tests.app.data.boxes import drawn
from tests.app.data.boxes.drawn import (
    COLOURS,
    PICTURES,
    coco,
    files,
    of_coco,
    of_voc,
    of_yolo,
    oriented,
    picture,
    yolo_lines,
)
from tests.app.data.pictures import noise, saved, tarred, zipped
from tests.app.data.reading import taken

FORMATS: dict[str, Any] = {"coco": of_coco, "yolo": of_yolo, "voc": of_voc}


def boxes_of(table: Table, row: int) -> list[tuple[str, list[float]]]:
    """(class, edges in pixels of the stored picture) of each box of a row."""
    height, width = table.schema.input.shape[:2]
    values = table.columns["boxes"][row].astype(np.float64)
    return [
        (
            (table.schema.columns["boxes"].classes or [])[int(box[4])],
            (box[:4] * [width, height, width, height]).tolist(),
        )
        for box in values[values[:, 4] >= 0]
    ]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("archive", ["zip", "tar"])
def test_the_three_formats_say_the_same(tmp_path: Path, name: str, archive: str) -> None:
    content = FORMATS[name]()
    table, intake = taken(tmp_path, zipped(content) if archive == "zip" else tarred(content), archive)
    column = table.schema.columns["boxes"]
    assert (column.type, column.classes, column.counts, column.shape) == ("boxes", ["blue", "red"], [2, 2], [2, 5])
    assert (table.schema.target, column.missing, intake.used, intake.broken) == ("boxes", 0, 4, [])
    for row, (_, boxes) in enumerate(PICTURES.values()):
        told = boxes_of(table, row)
        assert [name for name, _ in told] == [name for name, *_ in boxes]
        assert np.allclose([edges for _, edges in told], [edges for _, *edges in boxes] or np.zeros((0,)), atol=1e-3)
    assert table.labelled("boxes").all()  # a picture without boxes is one that was looked at
    assert (table.columns["boxes"][2] == -1).all()
    assert intake.columns[0].read_as == "boxes"
    assert intake.columns[0].why.endswith("blue 2, red 2")


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(40, 60), (30, 30), (64, 50), (17, 90), (80, 120)])
def test_a_box_lies_around_its_pixels_whatever_the_fit(tmp_path: Path, fit: str, size: tuple[int, int]) -> None:
    of_one = {"a": ((41, 67), [("red", 24, 13, 42, 30)])}
    content = {"a.png": saved(picture(*of_one["a"])), "a.json": json.dumps(coco(of_one)).encode()}
    table, _ = taken(tmp_path, zipped(content), "zip", size=size, fit=fit)
    ((_, edges),) = boxes_of(table, 0)
    red = np.abs(table.inputs[np.arange(1)][0].astype(int) - COLOURS["red"]).max(axis=-1) < 120
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.allclose(edges, seen, atol=1.0), (edges, seen)


@pytest.mark.parametrize(
    ("orientation", "stated"), [*((turn, "shown") for turn in range(1, 9)), *((turn, "stored") for turn in range(5, 9))]
)
def test_all_eight_orientations(tmp_path: Path, orientation: int, stated: str) -> None:
    """Boxes are of the picture as it is shown; of the stored one where the annotation states its sides, which shows
    when they are swapped."""
    shown: list[drawn.Box] = [("red", 5, 4, 25, 20)]
    document = coco({"a": ((40, 60), shown)})
    if stated == "stored":
        on_stored = {5: [4, 5, 16, 20], 6: [4, 35, 16, 20], 7: [20, 35, 16, 20], 8: [20, 5, 16, 20]}[orientation]
        document["images"][0] |= {"height": 60, "width": 40}
        document["annotations"][0]["bbox"] = on_stored
    content = {"a.png": oriented(picture((40, 60), shown), orientation), "a.json": json.dumps(document).encode()}
    table, intake = taken(tmp_path, zipped(content), "zip")
    assert table.schema.input.shape == [40, 60, 3]
    ((_, edges),) = boxes_of(table, 0)
    red = np.abs(table.inputs[np.arange(1)][0].astype(int) - COLOURS["red"]).max(axis=-1) == 0
    assert np.allclose(edges, [5, 4, 25, 20], atol=1e-4)
    assert red[4:20, 5:25].all()
    assert red.sum() == 16 * 20
    assert any("turned as the EXIF" in note for note in intake.notes) == (stated == "stored")


def test_boxes_turn_as_pillow_turns_pixels() -> None:
    """Independent of the table of turns: a rectangle of pixels is turned by Pillow and looked for."""
    for orientation in range(1, 9):
        stored = np.zeros((40, 60, 3), np.uint8)
        stored[4:20, 5:25] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(Image.fromarray(stored), exif=exif)
        upright = decode.picture(content, size=decode.header(content).size, mode="L", fit="exact")[..., 0] > 0
        rows, columns = np.flatnonzero(upright.any(axis=1)), np.flatnonzero(upright.any(axis=0))
        ((left, top, right, bottom),) = place.turned(np.array([[5.0, 4, 25, 20]]), (40, 60), orientation)
        assert (left, top, right, bottom) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_a_smaller_picture_than_the_annotation_states_scales_its_boxes(tmp_path: Path) -> None:
    document = coco({"a": ((80, 120), [("red", 10, 8, 50, 40)])})
    content = {"a.png": saved(picture((40, 60), [("red", 5, 4, 25, 20)])), "a.json": json.dumps(document).encode()}
    table, intake = taken(tmp_path, zipped(content), "zip")
    assert np.allclose(boxes_of(table, 0)[0][1], [5, 4, 25, 20])
    assert any("scaled" in note for note in intake.notes)


def test_what_is_cut_left_out_or_cropped_away_is_counted_with_its_file(tmp_path: Path) -> None:
    document = coco()
    extra = [[-8, -8, 20, 20], [5, 5, 0, 9], [5, 5, 9, 0.5], [70, 5, 9, 9], [5, 4, 20, 16]]
    document["annotations"] += [
        {"id": 900 + n, "image_id": 5, "category_id": 7, "bbox": box} for n, box in enumerate(extra)
    ]
    document["annotations"].append({"id": 990, "image_id": 5, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": 1})
    document["annotations"].append({"id": 991, "image_id": 999, "category_id": 3, "bbox": [1, 1, 5, 5]})
    table, intake = taken(tmp_path, zipped(of_coco(document)), "zip", size=(40, 20), fit="crop")
    notes = " ".join(intake.notes)
    for words in (
        "1 box: cut, they reach beyond their picture (images/a.png)",
        "3 boxes: left out, less than a pixel wide or high",
        "1 box: left out, the same box is there twice (images/a.png)",
        "left out, it is marked as a crowd (iscrowd) (annotations.json, annotation 10)",
        "left out, its image_id is not among the images (annotations.json, annotation 11)",
        "left out, less than a quarter of it is left once the picture is cropped",
    ):
        assert words in notes, (words, notes)
    height, width = 40, 20
    edges = np.array([edges for row in range(4) for _, edges in boxes_of(table, row)])
    assert (edges >= 0).all()
    assert (edges <= [width, height, width, height]).all()


def test_pictures_that_are_not_listed_are_no_rows(tmp_path: Path) -> None:
    content = of_coco(**{"images/e.png": saved(noise(1, 40, 60, 3)), "README.md": b"x", "images/notes.txt": b"x"})
    _, intake = taken(tmp_path, zipped(content), "zip")
    reasons = {counted.reason: counted.examples for counted in intake.ignored}
    assert reasons["the annotations do not list it"] == ["images/e.png"]
    assert reasons["a text among files of kind picture"] == ["images/notes.txt"]
    assert intake.used == 4
    content = of_voc(**{"Annotations/a.xml": None})
    _, intake = taken(tmp_path, zipped(content), "zip")
    assert {counted.reason: counted.examples for counted in intake.ignored} == {
        "no annotation is of it": ["JPEGImages/a.png"]
    }


def test_a_picture_without_a_label_file_is_background_in_yolo_and_said_to_be(tmp_path: Path) -> None:
    _, intake = taken(tmp_path, zipped(of_yolo()), "zip")
    assert any("1 pictures have no label file" in note and "images/c.png" in note for note in intake.notes)


PARTS = {"train": "ab", "val": "c", "test": "d"}


def in_parts(place: str) -> dict[str, bytes]:
    return {place.format(part, n): saved(picture(*PICTURES[n])) for part, names in PARTS.items() for n in names}


def of_roboflow() -> dict[str, bytes]:
    documents = {part: json.dumps(coco({n: PICTURES[n] for n in names})).encode() for part, names in PARTS.items()}
    return in_parts("{}/{}.png") | {f"{part}/_annotations.coco.json": text for part, text in documents.items()}


def of_parted_yolo() -> dict[str, bytes]:
    lines = {f"labels/{part}/{n}.txt": yolo_lines(*PICTURES[n]) for part, names in PARTS.items() for n in names}
    names = b'names:\n  0: red  # the first\n  1: "blue"\n'
    return in_parts("images/{}/{}.png") | {name: text.encode() for name, text in lines.items()} | {"data.yaml": names}


LISTS = {
    "VOC2007/ImageSets/Main/train.txt": b"b\nc\n",
    "VOC2007/ImageSets/Main/val.txt": b"\xef\xbb\xbfd \r\n\r\n",
    "VOC2007/ImageSets/Main/test.txt": b"a\n",
    "VOC2007/ImageSets/Main/trainval.txt": b"b\nc\nd\n",
    "VOC2007/ImageSets/Main/red_train.txt": b"b 1\nc -1\n",
}


def voc_with(lists: dict[str, bytes]) -> bytes:
    return zipped({f"VOC2007/{name}": content for name, content in of_voc().items()} | lists)


def test_lists_of_pictures_become_the_column_split(tmp_path: Path) -> None:
    assert sorted(PICTURES) == ["a", "b", "c", "d"]
    table, intake = taken(tmp_path, voc_with(LISTS), "zip")
    split = table.schema.columns["split"]
    assert [(split.classes or [])[code] for code in table.columns["split"]] == ["test", "train", "train", "validation"]
    assert sum(counted.count for counted in intake.ignored) == 2, "those of no one part"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"VOC2007/ImageSets/Main/test.txt": b"a\nb\n"}, "1 pictures stand in two lists of ImageSets (b)"),
        ({"VOC2007/ImageSets/Main/test.txt": b"\xff\xfe\x00a"}, "test.txt cannot be read"),
        (
            {"VOC2007/ImageSets/Main/test.txt": b"nobody\n"},
            "1 pictures stand in no list of ImageSets (JPEGImages/a.png)",
        ),
    ],
)
def test_lists_that_leave_a_picture_out_make_no_split(tmp_path: Path, changed: dict[str, bytes], told: str) -> None:
    table, intake = taken(tmp_path, voc_with(LISTS | changed), "zip")
    assert "split" not in table.schema.columns
    assert any(told in note for note in intake.notes)
    assert intake.used == 4


@pytest.mark.parametrize("content", [of_roboflow(), of_parted_yolo()], ids=["Roboflow", "YOLO"])
def test_folders_of_parts_become_the_column_split(tmp_path: Path, content: dict[str, bytes]) -> None:
    table, _ = taken(tmp_path, zipped({f"set/{name}": file for name, file in content.items()}), "zip")
    split = table.schema.columns["split"]
    assert [(split.classes or [])[code] for code in table.columns["split"]] == ["test", "train", "train", "validation"]
    assert table.schema.columns["boxes"].counts == [2, 2]


@pytest.mark.parametrize(
    "names",
    [
        b"names: [red, blue]", b"names: ['red', \"blue\"]", b"names:\n- red\n- blue\nnc: 2", b"names:\n  - red\n  - blue\n",
        b"names:\n  1: blue\n  0: red\n", b"names: {0: red, 1: blue}", b"names: [\n  red,\n  blue\n]\n",
        b"\xef\xbb\xbfnames: [red, blue] # two",
    ],
)  # fmt: skip
def test_the_ways_to_name_classes_in_yaml(tmp_path: Path, names: bytes) -> None:
    table, _ = taken(tmp_path, zipped(of_yolo(**{"data.yaml": names})), "zip")
    assert table.schema.columns["boxes"].counts == [2, 2]
    assert boxes_of(table, 0)[0][0] == "red"


def test_classes_without_a_box_are_left_out_and_said_to_be(tmp_path: Path) -> None:
    document = coco()
    document["annotations"] = [each for each in document["annotations"] if each["category_id"] == 3]
    document["annotations"].append({"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 1, 0, 0]})
    table, intake = taken(tmp_path, zipped(of_coco(document)), "zip")
    assert table.schema.columns["boxes"].classes == ["blue"]
    assert any("which are left out: red" in note for note in intake.notes)


def test_class_folders_and_metadata_are_read_as_before(tmp_path: Path) -> None:
    content = {f"{name}/{n}.png": saved(noise(n, 8, 8, 3)) for n in range(4) for name in ("cats", "dogs")}
    table, _ = taken(tmp_path, zipped({**content, "package.json": b'{"name": "x"}'}), "zip")
    assert table.schema.target == "label"


def test_no_box_at_all_is_refused(tmp_path: Path) -> None:
    document = coco()
    document["annotations"] = []
    with pytest.raises(Invalid, match="no picture has a box"):
        taken(tmp_path, zipped(of_coco(document)), "zip")


def test_too_many_boxes_on_a_picture_break_it(tmp_path: Path) -> None:
    document = coco()
    document["annotations"] += [
        {"id": n, "image_id": 5, "category_id": 7, "bbox": [n % 50, n % 30, 5, 5]} for n in range(301)
    ]
    with pytest.raises(Invalid, match="more than 300 boxes are on it"):
        taken(tmp_path, zipped(of_coco(document)), "zip")
    _, intake = taken(tmp_path, zipped(of_coco(document)), "zip", skip_broken=True)
    assert intake.used == 3


def test_files_of_the_same_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    content = {f"{part}/{name}": data for part in ("x", "y") for name, data in files("images").items()}
    document = coco()
    for image in document["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    content |= {"x/annotations.json": json.dumps(document).encode()}
    _, intake = taken(tmp_path, zipped(content), "zip")
    assert intake.used == 4
    assert [counted.count for counted in intake.ignored] == [4]

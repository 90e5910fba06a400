"""Annotations that are wrong: refused as a whole, or their picture is broken; each with its file, and never with a
traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.spec.faults import Invalid
from tests.app.data.boxes.drawn import PICTURES, coco, of_coco, of_voc, of_yolo, voc_xml
from tests.app.data.pictures import zipped
from tests.app.data.reading import taken


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    document = coco()
    change(document)
    return of_coco(document)


def of_annotation(**fields: Any) -> dict[str, bytes]:
    return changed(lambda document: document["annotations"][0].update(fields))


def raw(text: bytes) -> dict[str, bytes]:
    return of_coco(**{"annotations.json": text})


DEEP = b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
COCO = {
    "no JSON": (raw(b'{"images": [,'), "not JSON in line 1"),
    "cut": (raw(json.dumps(coco()).encode()[:-40]), "not JSON"),
    "not UTF-8": (raw(b'\xff\xfe{"images": []}'), "not UTF-8"),
    "deep": (raw(DEEP), "nested too deep|not JSON"),
    "a long number": (raw(b'{"images": [' + b"9" * 9000 + b"]}"), "not JSON"),
    "a list": (raw(b'[{"annotations": []}]'), "expected an object with images"),
    "no categories": (changed(lambda d: d.pop("categories")), "expected a list of objects"),
    "images a mapping": (changed(lambda d: d.update(images={"a": 1})), "expected a list of objects"),
    "annotations of numbers": (changed(lambda d: d.update(annotations=[1, 2])), "expected a list of objects"),
    "an id of text": (changed(lambda d: d["images"][0].update(id="a")), "its id is no whole number"),
    "an id twice": (changed(lambda d: d["images"][1].update(id=5)), "another entry has its id too"),
    "a category's id twice": (changed(lambda d: d["categories"][1].update(id=7)), "another entry has its id too"),
    "no file name": (changed(lambda d: d["images"][0].pop("file_name")), "expected a text"),
    "an empty category": (changed(lambda d: d["categories"][0].update(name="")), "expected a text"),
    "an odd category": (changed(lambda d: d["categories"][0].update(name="a\x00b")), "in 1 class names"),
    "a picture that is not there": (changed(lambda d: d["images"][0].update(file_name="z.png")), "the archive lacks it .z.png"),
    "a picture twice": (changed(lambda d: d["images"][1].update(file_name="a.png")), "two annotations are of it .images/a.png"),
    "an unknown category": (of_annotation(category_id=99), "category_id .* annotation 1"),
    "a category of text": (of_annotation(category_id="7"), "category_id"),
    "NaN": (of_annotation(bbox=[float("nan"), 1, 2, 3]), "four finite numbers .annotations.json, annotation 1"),
    "infinite": (of_annotation(bbox=[1, 1, float("inf"), 3]), "four finite numbers"),
    "three numbers": (of_annotation(bbox=[1, 2, 3]), "four finite numbers"),
    "text in a box": (of_annotation(bbox=["1", 2, 3, 4]), "four finite numbers"),
    "no box": (of_annotation(bbox=None), "four finite numbers"),
    "true in a box": (of_annotation(bbox=[True, 2, 3, 4]), "four finite numbers"),
    "other proportions": (changed(lambda d: d["images"][0].update(width=600)), "other proportions"),
}  # fmt: skip


def line(text: str) -> dict[str, bytes]:
    return of_yolo(**{"labels/a.txt": text.encode()})


def names(text: bytes | None) -> dict[str, bytes]:
    return of_yolo(**{"data.yaml": text})


YOLO = {
    "no names": (names(None), "nothing names their classes"),
    "other yaml": (names(b"train: images\n"), "nothing names their classes"),
    "names without words": (names(b"names:\n\nnc: 2\n"), "nc says 2 classes, names has 0"),
    "an empty list": (names(b"names: []\n"), "names no class"),
    "names a word": (names(b"names: red\n"), "no list and no mapping"),
    "names with a gap": (names(b"names: {0: red, 2: blue}\n"), "without a gap"),
    "names twice": (names(b"names: [red, red]\n"), "the same name"),
    "nc of another number": (names(b"nc: 5\nnames: [red, blue]\n"), "nc says 5 classes, names has 2"),
    "an empty name": (names(b"names:\n- red\n- ''\n"), "no list and no mapping"),
    "names not UTF-8": (names(b"names: [red, bl\xfce]\n"), "not UTF-8"),
    "two lists": (of_yolo(**{"classes.txt": b"red\ngreen\n"}), "name other classes"),
    "a class beyond the names": (line("2 .5 .5 .1 .1"), "class number .* 0 to 1.*labels/a.txt, line 1"),
    "a negative class": (line("-1 .5 .5 .1 .1"), "class number"),
    "half a class": (line("0.5 .5 .5 .1 .1"), "class number"),
    "pixels": (line("0 12 30 20 16"), "no share of the picture"),
    "a negative width": (line("0 .5 .5 -.2 .1"), "no share of the picture"),
    "four numbers": (line("0 .5 .5 .1"), "is not class, x, y"),
    "six numbers": (line("0 .5 .5 .1 .1 .9"), "is not class, x, y"),
    "words": (line("red .5 .5 .1 .1"), "no number"),
    "NaN": (line("0 nan .5 .1 .1"), "not finite"),
    "the second line": (line("0 .5 .5 .1 .1\n\n0 .5 .5 .1 x"), "no number .*line 3"),
    "commas": (line("0,.5,.5,.1,.1"), "is not class, x, y"),
    "not UTF-8": (of_yolo(**{"labels/a.txt": b"0 .5 .5 .1 \xff"}), "not UTF-8"),
    "a label without its picture": (of_yolo(**{"labels/z.txt": b"0 .5 .5 .1 .1"}), "the archive lacks it .labels/z.txt"),
}  # fmt: skip


def xml(text: str | bytes) -> dict[str, bytes]:
    return of_voc(**{"Annotations/a.xml": text if isinstance(text, bytes) else text.encode()})


GOOD = voc_xml(*PICTURES["a"], "a.png")
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>' + GOOD.replace("red", "&b;")
VOC = {
    "no XML": (xml("{}"), "is no XML .line 1"),
    "empty": (xml(b""), "is no XML"),
    "cut": (xml(GOOD[:-30]), "is no XML"),
    "entities": (xml(BOMB), "declares a document type"),
    "an external entity": (xml('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + GOOD), "document type"),
    "an entity that is not declared": (xml(GOOD.replace("red", "&a;")), "is no XML"),
    "UTF-16 with a document type": (xml(("<!DOCTYPE x []>" + GOOD).encode("utf-16")), "document type"),
    "an unknown encoding": (xml('<?xml version="1.0" encoding="klingon"?>' + GOOD), "is no XML"),
    "not of its encoding": (xml(GOOD.replace("red", "r\xffd").encode("latin-1")), "is no XML"),
    "deep": (xml("<annotation>" + "<a>" * 1000 + "</a>" * 1000 + "</annotation>"), "nested too deep"),
    "another root": (xml("<annotations><image>x</image></annotations>"), "outermost element must be"),
    "long": (xml(GOOD + " " * 2**22), "longer than"),
    "no name": (xml(GOOD.replace("<name>red</name>", "")), "object 1 of its annotation has no name"),
    "an odd name": (xml(GOOD.replace("red", "r\x7fd")), "the name of object 1"),
    "no corner": (xml(GOOD.replace("<xmax>25</xmax>", "")), "no bndbox of four finite numbers"),
    "a corner of words": (xml(GOOD.replace(">25<", ">far<")), "no bndbox of four finite numbers"),
    "NaN": (xml(GOOD.replace(">25<", ">nan<")), "no bndbox of four finite numbers"),
    "infinite": (xml(GOOD.replace(">25<", ">1e999<")), "no bndbox of four finite numbers"),
    "a second box without any": (xml(GOOD.replace("<xmin>30</xmin>", "<xmin></xmin>")), "object 2"),
    "other proportions": (xml(GOOD.replace(">60<", ">600<")), "other proportions"),
    "no picture": (of_voc(**{"Annotations/z.xml": voc_xml((4, 4), [], "z.png").encode()}), "the archive lacks it"),
    "no picture and no name": (
        of_voc(**{"Annotations/z.xml": b"<annotation><size><width>4</width></size></annotation>"}), "the archive lacks it"
    ),
    "two of one picture": (of_voc(**{"more/a.xml": GOOD.encode()}), "two annotations are of it"),
}  # fmt: skip

WHOLE = {  # refused however few pictures they are of
    *(("COCO", name) for name in list(COCO)[:15]),
    *(("YOLO", name) for name in list(YOLO)[:11]),
}


CASES = {"COCO": COCO, "YOLO": YOLO, "VOC": VOC}


@pytest.mark.parametrize(("format", "name"), [(kind, name) for kind, cases in CASES.items() for name in cases])
def test_each_is_refused_with_its_place_or_breaks_its_picture_alone(tmp_path: Path, format: str, name: str) -> None:
    content, words = CASES[format][name]
    with pytest.raises(Invalid, match=words) as refused:
        taken(tmp_path, zipped(content), "zip")
    assert all(fault.hint for fault in refused.value.faults)
    if (format, name) in WHOLE:
        with pytest.raises(Invalid, match=words):
            taken(tmp_path, zipped(content), "zip", skip_broken=True)
    else:
        _, intake = taken(tmp_path, zipped(content), "zip", skip_broken=True)
        assert sum(counted.count for counted in intake.broken) == 1
        assert intake.used in (2, 3, 4)


def test_all_faults_of_a_document_are_told_at_once(tmp_path: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["images"][0]["id"] = "a"
        document["images"][2].pop("file_name")
        document["categories"][1]["id"] = None

    with pytest.raises(Invalid) as refused:
        taken(tmp_path, zipped(changed(spoil)), "zip")
    places = [fault.pointer for fault in refused.value.faults]
    assert places == [
        "/file/member/annotations.json/images/0",
        "/file/member/annotations.json/images/2/file_name",
        "/file/member/annotations.json/categories/1",
    ]


def test_annotations_of_two_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="annotations of 2 formats"):
        taken(tmp_path, zipped({**of_coco(), **of_yolo()}), "zip")

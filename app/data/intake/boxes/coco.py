"""COCO JSON: `images`, `annotations` with `bbox` (left, top, width, height in pixels) and `categories`, which count by
name.

A picture that is listed and has no annotation shows none of the classes; one that is not listed is no row. One file or
several: a folder for each part, as Roboflow writes them, or `annotations/instances_train.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from app.data.boxes import PictureBoxes
from app.data.intake.archive import Member
from app.data.intake.boxes.found import (
    Found,
    Wrong,
    array,
    box_numbers,
    class_names,
    join,
    member_pointer,
    part_in,
    text,
)
from app.spec.faults import MOST, Fault, Invalid

NAME = "COCO"
MARKS = (b'"annotations"', b'"images"')
LARGEST_ID = 2**63
EXPORT = "export the annotations as COCO: an object with images, annotations and categories"


def files(inner: Mapping[str, Member], pictures: set[str]) -> dict[str, Member]:  # noqa: ARG001
    """JSON files that speak of annotations or images."""
    found = {}
    for name, member in inner.items():
        if name.lower().endswith(".json") and not member.refused:
            try:
                content = member.content()
            except Exception:  # what cannot be read is told as any other file is
                continue
            if any(mark in content for mark in MARKS):
                found[name] = member
    return found


def read(files: Mapping[str, Member], found: Found) -> None:
    faults = list[Fault]()
    documents = {}
    for name, member in files.items():
        try:
            documents[name] = _document(text(member, name), name)
        except Invalid as invalid:
            faults += invalid.faults
    if faults:
        raise Invalid(faults[:MOST])
    for name, document in documents.items():
        _collect(document, name, found)


def _document(content: str, name: str) -> dict[str, Any]:
    """The JSON of a file, its three lists checked as far as all pictures need them. Raises Invalid."""
    try:
        document = json.loads(content)
    except RecursionError:
        raise Invalid([Fault(member_pointer(name), "its JSON is nested too deep", EXPORT)]) from None
    except ValueError as error:
        line = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Invalid([Fault(member_pointer(name), f"it is not JSON{line}", "export it again, or remove it")]) from None
    if not isinstance(document, dict):
        raise Invalid(
            [Fault(member_pointer(name), "expected an object with images, annotations and categories", EXPORT)]
        )
    faults = [
        Fault(member_pointer(name, key), "expected a list of objects", EXPORT)
        for key in ("images", "annotations", "categories")
        if not isinstance(document.get(key), list) or not all(isinstance(item, dict) for item in document[key])
    ]
    if not faults:
        faults = _faults_in_ids(document, name)
    if faults:
        raise Invalid(faults[:MOST])
    return document


def _faults_in_ids(document: dict[str, Any], name: str) -> list[Fault]:
    faults = list[Fault]()
    for key in ("images", "categories"):
        seen = set[int]()
        for number, item in enumerate(document[key]):
            number_of = item.get("id")
            place = member_pointer(name, key, number)
            if isinstance(number_of, bool) or not isinstance(number_of, int) or abs(number_of) >= LARGEST_ID:
                faults.append(Fault(place, "its id is no whole number", "give each entry an id of its own"))
            elif number_of in seen:
                faults.append(Fault(place, "another entry has its id too", "give each entry an id of its own"))
            else:
                seen.add(number_of)
            field = "file_name" if key == "images" else "name"
            if not isinstance(item.get(field), str) or not item[field]:
                faults.append(Fault(f"{place}/{field}", "expected a text", EXPORT))
            if len(faults) >= MOST:
                return faults
    return faults or class_names([item["name"] for item in document["categories"]], name)


def _collect(document: dict[str, Any], name: str, found: Found) -> None:
    """Adds the pictures that one file lists."""
    folder = name.rpartition("/")[0]
    of_class = {item["id"]: item["name"] for item in document["categories"]}
    twice = len(of_class) - len(set(of_class.values()))
    if twice:
        found.notes.append(f"{name} has {twice} categories of a name that another one has: they are one class.")
    listed = {item["id"] for item in document["images"]}
    of_image = defaultdict[int, list[tuple[int, dict[str, Any]]]](list)
    for number, annotation in enumerate(document["annotations"]):
        image_id, place = annotation.get("image_id"), f"{name}, annotation {number + 1}"
        if isinstance(image_id, bool) or not isinstance(image_id, int) or image_id not in listed:
            found.left_out.add("left out, its image_id is not among the images", place)
        elif annotation.get("iscrowd"):
            found.left_out.add("left out, it is marked as a crowd (iscrowd)", place)
        else:
            of_image[image_id].append((number, annotation))
    for image in document["images"]:
        picture = None
        try:
            picture = found.locate(image["file_name"], folder)
            boxes = _boxes(of_image[image["id"]], of_class, _size(image))
            found.add(picture, boxes, *([name] if part_in(name) else []))
        except Wrong as wrong:
            found.spoil(
                picture, str(wrong), (wrong.where and f"{name}, {wrong.where}") or join(folder, image["file_name"])
            )


def _boxes(
    annotations: list[tuple[int, dict[str, Any]]], of_class: Mapping[int, str], size: tuple[int, int] | None
) -> PictureBoxes:
    values, names = list[list[float]](), list[str]()
    for number, annotation in annotations:
        where = f"annotation {number + 1}"
        category, box = annotation.get("category_id"), annotation.get("bbox")
        if isinstance(category, bool) or not isinstance(category, int) or category not in of_class:
            raise Wrong("the category_id of its annotation is not among the categories", where)
        try:
            left, top, width, height = box_numbers(box if isinstance(box, list) else [])
        except Wrong as wrong:
            raise Wrong(str(wrong), where) from None
        values.append([left, top, left + width, top + height])
        names.append(of_class[category])
    return PictureBoxes(array(values), names, size)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) where both are stated."""
    sides = image.get("height"), image.get("width")
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**31]
    return (whole[0], whole[1]) if len(whole) == 2 else None

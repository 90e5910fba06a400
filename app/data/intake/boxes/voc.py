"""Pascal VOC: an XML file for each picture, with `object`s that have a `name` and a `bndbox` of xmin, ymin, xmax, ymax
in pixels.

The numbers are taken as the box's edges, as labelling tools write them. A file that declares a document type or
entities is not read. Lists of pictures in ImageSets/Main say which part of the split each is of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from xml.parsers import expat

from app.data.boxes import PictureBoxes
from app.data.intake.archive import Member, Unreadable
from app.data.intake.boxes.found import LACKING, Found, Wrong, array, base, stem
from app.data.names import fault_in_name

NAME = "Pascal VOC"
LONGEST, DEEPEST, LONGEST_TEXT = 4 * 2**20, 16, 4096
LIST = re.compile(r"(.*/)?imagesets/main/(train|val|test)\.txt")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def files(inner: Mapping[str, Member], pictures: set[str]) -> dict[str, Member]:
    """XML files that speak of an annotation, or are named as a picture is; and beside such, lists of pictures."""
    stems = {stem(name) for name in pictures}
    found = {
        name: member
        for name, member in inner.items()
        if name.lower().endswith(".xml") and (stem(name) in stems or _annotates(member))
    }
    lists = {name: member for name, member in inner.items() if LIST.fullmatch(name.lower())}
    return found | lists if found else {}


def _annotates(member: Member) -> bool:
    try:
        return b"<annotation" in member.content()
    except Unreadable:
        return False


def read(files: Mapping[str, Member], found: Found) -> None:
    found.unlisted = "no annotation is of it"
    hard, parts = 0, _parts({name: member for name, member in files.items() if LIST.fullmatch(name.lower())}, found)
    for name in sorted(name for name in files if not LIST.fullmatch(name.lower())):
        picture = None
        try:
            fields = _fields(files[name])
            picture = _picture(name, fields, found)
            boxes, difficult = _boxes(fields)
            hard += difficult
            found.add(picture, boxes, *parts.get(stem(picture), ()))
        except Wrong as wrong:
            found.spoil(picture, str(wrong), name)
    without = sorted(picture for picture, entry in found.entries.items() if parts and entry.part is None)
    if without:
        first = ", ".join(without[:3])
        found.notes.append(
            f"{len(without)} pictures stand in no list of ImageSets ({first}): no column split was made."
        )
    if hard:
        found.notes.append(f"{hard} boxes are marked as difficult; they are learnt and scored as all others are.")


def _parts(lists: Mapping[str, Member], found: Found) -> dict[str, list[str]]:
    """{a picture's name without its ending: a path that names its part of the split} of the lists, a line a picture."""
    parts = dict[str, list[str]]()
    twice = set[str]()
    for name in sorted(lists):
        try:
            lines = lists[name].content().decode("utf-8-sig").splitlines()
        except (Unreadable, UnicodeDecodeError):
            found.notes.append(f"{name} cannot be read: it names no part of the split.")
            continue
        for word in filter(None, (line.strip() for line in lines)):
            twice |= {word} & parts.keys()
            parts[word] = [f"{stem(name).lower()}/"]
    if twice:
        first = ", ".join(sorted(twice)[:3])
        found.notes.append(f"{len(twice)} pictures stand in two lists of ImageSets ({first}).")
    return {word: part for word, part in parts.items() if word not in twice}


Fields = list[tuple[str, str]]
"""(path, text) of the elements that have text, in order: ("annotation/size/width", "640"); an object begins with
("annotation/object", "")."""


def _fields(member: Member) -> Fields:
    """Raises Wrong."""
    try:
        content = member.content()
    except Unreadable as error:
        raise Wrong(str(error)) from None
    if len(content) > LONGEST:
        raise Wrong(f"its annotation is longer than {LONGEST} bytes")
    fields, path, texts = Fields(), list[str](), list[str]()

    def start(tag: str, _: object) -> None:
        path.append(tag)
        texts.append("")
        if len(path) > DEEPEST:
            raise Wrong("its annotation is nested too deep")
        if path == ["annotation", "object"]:
            fields.append(("annotation/object", ""))

    def end(_: str) -> None:
        words = texts.pop().strip()
        if words:
            fields.append(("/".join(path), words[:LONGEST_TEXT]))
        path.pop()

    def characters(data: str) -> None:
        texts[-1] = (texts[-1] + data)[: 2 * LONGEST_TEXT]

    def refuse(*_: object) -> None:
        raise Wrong("its annotation declares a document type, which is not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError, OSError) as error:
        line = f" (line {error.lineno})" if isinstance(error, expat.ExpatError) else ""
        raise Wrong(f"its annotation is no XML{line}") from None
    if not fields or not all(place.split("/")[0] == "annotation" for place, _ in fields):
        raise Wrong("its annotation is not of Pascal VOC: the outermost element must be <annotation>")
    return fields


def _picture(name: str, fields: Fields, found: Found) -> str:
    """The picture that an annotation is of: of its own name, else the one that it names. Raises Wrong."""
    folder = name.rpartition("/")[0]
    named = next((words for place, words in fields if place == "annotation/filename"), None)
    alike = [picture for picture in found.of_stem(stem(name)) if picture.rpartition("/")[0] == folder]
    alike = alike or found.of_stem(stem(name))
    if named and any(base(picture) == base(named.replace("\\", "/")) for picture in alike):
        alike = [picture for picture in alike if base(picture) == base(named.replace("\\", "/"))]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise Wrong("several pictures have the name that the annotations give")
    if named is None:
        raise Wrong(LACKING)
    return found.locate(named, folder)


def _boxes(fields: Fields) -> tuple[PictureBoxes, int]:
    """The boxes of an annotation, and how many of them are marked as difficult. Raises Wrong."""
    objects, sides = list[dict[str, str]](), dict[str, str]()
    for place, words in fields:
        if place == "annotation/object":
            objects.append({})
        elif place.startswith("annotation/object/") and objects:
            objects[-1].setdefault(place.removeprefix("annotation/object/"), words)
        elif place.startswith("annotation/size/"):
            sides.setdefault(place.removeprefix("annotation/size/"), words)
    values, names, hard = list[list[float]](), list[str](), 0
    for number, found in enumerate(objects, 1):
        if "name" not in found:
            raise Wrong(f"object {number} of its annotation has no name")
        if fault_in_name(found["name"]):
            raise Wrong(f"the name of object {number} of its annotation: {fault_in_name(found['name'])}")
        corners = [_number(found.get(f"bndbox/{corner}")) for corner in CORNERS]
        if not all(map(math.isfinite, corners)):
            raise Wrong(f"object {number} of its annotation has no bndbox of four finite numbers")
        values.append(corners)
        names.append(found["name"])
        hard += found.get("difficult") == "1"
    height, width = (_number(sides.get(side)) for side in ("height", "width"))
    stated = height > 0 and width > 0 and math.isfinite(height + width)
    return PictureBoxes(array(values), names, (round(height), round(width)) if stated else None), hard


def _number(words: str | None) -> float:
    """NaN where it is none."""
    try:
        return float(words or "nan")
    except ValueError:
        return math.nan

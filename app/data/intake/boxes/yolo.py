"""YOLO: a text file for each picture, `labels/a.txt` for `images/a.jpg`, with a line `class x y width height` for each
box.

The numbers are shares of the picture's sides, x and y of the box's middle. The classes' names stand in `data.yaml`, or
one a line in `classes.txt` or `obj.names`. A picture without a label file shows none of the classes. Of a polygon the
box around it is taken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from app.data.boxes import PictureBoxes
from app.data.intake.archive import Member, Unreadable
from app.data.intake.boxes.found import LACKING, Found, Wrong, array, base, class_names, member_pointer, stem, text
from app.spec.faults import Fault, Invalid

NAME = "YOLO"
LISTS = ("classes.txt", "obj.names")
YAML = (".yaml", ".yml")
SLACK = 1e-3
"""How far beyond 0 and 1 a share may be: labels are written with a few digits."""
ADD_NAMES = "add data.yaml with a line such as names: [cat, dog], in the order of the class numbers"


def files(inner: Mapping[str, Member], pictures: set[str]) -> dict[str, Member]:
    """Label files and what names their classes: a text file in a folder `labels`, or beside a picture of its name where
    classes are named."""
    texts = [name for name in inner if name.lower().endswith(".txt") and base(name) not in LISTS]
    named = {name for name in inner if _names_classes(name, inner[name])}
    stems = {name.rpartition(".")[0] for name in pictures}
    labels = {name for name in texts if "labels" in name.split("/")[:-1] or (named and name[:-4] in stems)}
    return {name: inner[name] for name in inner if name in labels or name in named} if labels or named else {}


def _names_classes(name: str, member: Member) -> bool:
    if base(name) in LISTS:
        return True
    if not name.lower().endswith(YAML):
        return False
    try:
        return re.search(rb"^(\xef\xbb\xbf)?names[ \t]*:", member.content(), re.MULTILINE) is not None
    except Unreadable:
        return False


def read(files: Mapping[str, Member], found: Found) -> None:
    names = _class_names(files)
    found.unlisted = "it is no picture of the labels"
    labels = {name: member for name, member in files.items() if not _names_classes(name, member)}
    label_of = {
        name: next((label for label in _labels_of(name) if label in labels), None) for name in sorted(found.pictures)
    }
    uses = Counter(filter(None, label_of.values()))
    for unused in sorted(labels.keys() - uses.keys()):
        found.spoil(None, LACKING, unused)
    for picture, label in label_of.items():
        if label is None:
            continue
        try:
            if uses[label] > 1:
                raise Wrong("several pictures have one label file")
            found.add(picture, _boxes(labels[label], label, names, found), label)
        except Wrong as wrong:
            found.spoil(picture, str(wrong), f"{label}{wrong.where}")
    without = [picture for picture, label in label_of.items() if label is None]
    for picture in without:
        found.add(picture, PictureBoxes(array([]), [], None, shares=True))
    if without:
        shown = ", ".join(without[:5])
        found.notes.append(f"{len(without)} pictures have no label file, so none of the classes is on them ({shown}).")


def _labels_of(picture: str) -> list[str]:
    """Where a picture's label file may be: in `labels` in place of `images`, beside the picture, or in a folder
    `labels` beside."""
    folders, own = picture.split("/")[:-1], f"{stem(picture)}.txt"
    places = [[*folders[:at], "labels", *folders[at + 1 :]] for at, name in enumerate(folders) if name == "images"][
        ::-1
    ]
    return ["/".join([*place, own]) for place in [*places, folders, [*folders, "labels"], [*folders[:-1], "labels"]]]


def _boxes(member: Member, label: str, names: list[str], found: Found) -> PictureBoxes:
    try:
        lines = member.content().decode("utf-8-sig").splitlines()
    except Unreadable as error:
        raise Wrong(str(error)) from None
    except UnicodeDecodeError:
        raise Wrong("its label file is not UTF-8") from None
    values, classes = list[list[float]](), list[str]()
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if cells:
            try:
                kind, box = _line(cells, names)
            except Wrong as wrong:
                raise Wrong(str(wrong), f", line {number}") from None
            if len(cells) > 5:
                found.left_out.add("taken around a polygon", f"{label}, line {number}")
            classes.append(kind)
            values.append(box)
    return PictureBoxes(array(values), classes, None, shares=True)


def _line(cells: list[str], names: list[str]) -> tuple[str, list[float]]:
    """(class, left, top, right and bottom). Raises Wrong."""
    if len(cells) < 5 or (len(cells) > 5 and len(cells) % 2 == 0):
        raise Wrong("a line of its label file is not class, x, y, width, height, nor class and a polygon")
    try:
        kind, *numbers = map(float, cells)
    except ValueError:
        raise Wrong("a line of its label file has a word that is no number") from None
    if not np.isfinite([kind, *numbers]).all():
        raise Wrong("a line of its label file has a number that is not finite")
    if not kind.is_integer() or not 0 <= kind < len(names):
        raise Wrong(f"a class number in its label file is not among 0 to {len(names) - 1}, which have names")
    if min(numbers) < -SLACK or max(numbers) > 1 + SLACK:
        raise Wrong("a number in its label file is no share of the picture, from 0 to 1")
    if len(numbers) > 4:
        x, y = numbers[::2], numbers[1::2]
        return names[int(kind)], [min(x), min(y), max(x), max(y)]
    x0, y0, width, height = numbers
    return names[int(kind)], [x0 - width / 2, y0 - height / 2, x0 + width / 2, y0 + height / 2]


def _class_names(files: Mapping[str, Member]) -> list[str]:
    """The names of the classes, by number. Raises Invalid."""
    named = {name: text(member, name) for name, member in files.items() if _names_classes(name, member)}
    if not named:
        raise Invalid([Fault("/file", "there are label files of YOLO, and nothing names their classes", ADD_NAMES)])
    read = {
        name: (content.split("\n") if base(name) in LISTS else yaml_names(content, name))
        for name, content in named.items()
    }
    lists = {name: [word.strip() for word in words if word.strip()] for name, words in read.items()}
    first = next(iter(lists))
    other = next((name for name in lists if lists[name] != lists[first]), None)
    if other:
        message = f"{first} and {other} name other classes"
        raise Invalid([Fault("/file", message, "leave one of them in the archive")])
    names = lists[first]
    faults = class_names(names, first)
    if not names:
        faults = [Fault(member_pointer(first), "it names no class", ADD_NAMES)]
    if len(set(names)) < len(names):
        faults.append(
            Fault(member_pointer(first), "two classes have the same name", "give each class a name of its own")
        )
    if faults:
        raise Invalid(faults)
    return names


def yaml_names(content: str, name: str) -> list[str]:
    """`names` in a data.yaml: a list, or a mapping of numbers to names, each on one line or on one line an entry.
    Raises Invalid."""
    lines = [line.rstrip() for line in content.splitlines()]
    at = next(number for number, line in enumerate(lines) if re.match(r"names[ \t]*:", line))
    inline = lines[at].partition(":")[2].partition(" #")[0].strip()
    follow = at + 1
    if inline[:1] in ("[", "{"):  # it may go on in the next lines
        while inline[-1] not in "]}" and follow < len(lines):
            inline += " " + lines[follow].strip()
            follow += 1
        entries = _cells(inline[1:-1])
    elif inline:
        raise Invalid([_not_read(name)])
    else:
        entries = []
        for line in lines[follow:]:
            if line.strip() and not line.lstrip().startswith("#"):
                if not re.match(r"\s+\S|-", line):
                    break
                entries.append(line.strip())
    plain = [entry.removeprefix("-").strip() for entry in entries]
    keyed = [re.fullmatch(r"(\d{1,6})\s*:\s*(.*)", entry) for entry in plain]
    if plain and all(keyed):
        pairs = sorted((int(match[1]), _unquoted(match[2])) for match in keyed if match)
        if [number for number, _ in pairs] != list(range(len(pairs))):
            message = "the numbers of its names are not 0 and on, without a gap"
            raise Invalid([Fault(member_pointer(name, "names"), message, ADD_NAMES)])
        names = [word for _, word in pairs]
    else:
        names = [_unquoted(entry) for entry in plain]
    count = next((re.match(r"nc\s*:\s*(\d+)\s*(#.*)?$", line) for line in lines if re.match(r"nc\s*:", line)), None)
    if count and int(count[1]) != len(names):
        message = f"nc says {count[1][:9]} classes, names has {len(names)}"
        raise Invalid([Fault(member_pointer(name, "names"), message, "make both agree")])
    if any(not word for word in names):
        raise Invalid([_not_read(name)])
    return names


def _cells(inline: str) -> list[str]:
    """What stands between the commas, those in quotes not counted."""
    return [cell.strip() for cell in re.findall(r"(?:[^,'\"]|'[^']*'|\"[^\"]*\")+", inline) if cell.strip()]


def _unquoted(word: str) -> str:
    word = word.strip()
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1]
    return word.partition(" #")[0].strip()


def _not_read(name: str) -> Fault:
    return Fault(member_pointer(name, "names"), "its names are no list and no mapping of numbers to names", ADD_NAMES)

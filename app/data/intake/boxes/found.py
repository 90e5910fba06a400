"""What annotations say, collected picture by picture; a picture whose annotation is wrong is broken, with why and
where."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from app.data.boxes import PictureBoxes
from app.data.intake.archive import Member, Unreadable
from app.data.intake.folders import PARTS, Tally
from app.data.names import fault_in_name
from app.data.upload_limits import UploadLimits
from app.spec.faults import Fault, Invalid, pointer

LACKING = "the annotations name it, the archive lacks it"
TWICE = "two annotations are of it"


class Wrong(Exception):
    """An annotation that says nothing of use. The message says why, the second argument where: a line, an entry."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(why)
        self.where = where


@dataclass(frozen=True)
class Entry:
    """A picture's boxes, and the part of the split that it belongs to, where its place says so."""

    boxes: PictureBoxes
    part: str | None


class Found:
    """What a reader of annotations has found.

    Attributes:
        pictures: the archive's, by name.
        entries: by picture. spoilt: the pictures whose annotation is wrong.
        broken: these, and pictures that are named and not there. left_out: boxes, by why.
        notes: for `Intake`. unlisted: why a picture without an annotation is no row.
    """

    def __init__(self, pictures: Mapping[str, Member], limits: UploadLimits):
        self.pictures, self.limits = pictures, limits
        self.entries: dict[str, Entry] = {}
        self.spoilt: set[str] = set()
        self.broken, self.left_out = Tally(), Tally()
        self.notes: list[str] = []
        self.unlisted = "the annotations do not list it"
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in pictures:
            self._by_stem[stem(name)].append(name)
            self._by_base[base(name)].append(name)

    def locate(self, wanted: str, folder: str) -> str:
        """The picture that an annotation in `folder` means by `wanted`: a path from there, or just a name.

        Raises:
            Wrong: there is none, or there are several.
        """
        path = unicodedata.normalize("NFC", wanted).replace("\\", "/").removeprefix("./")
        above = folder.rpartition("/")[0]
        for place in (join(folder, path), join(folder, f"images/{path}"), join(above, f"images/{path}"), path):
            if place in self.pictures:
                return place
        alike = self._by_base.get(base(path), [])
        ending = [name for name in alike if name.endswith(f"/{path}")] or alike
        if len(ending) != 1:
            raise Wrong("several pictures have the name that the annotations give" if ending else LACKING)
        return ending[0]

    def of_stem(self, word: str) -> list[str]:
        """The pictures of a name, whatever their ending."""
        return self._by_stem.get(word, [])

    def add(self, picture: str, boxes: PictureBoxes, *places: str) -> None:
        """Adds a picture's boxes. `places`: paths that may name the part of the split; the picture's own is one."""
        if picture in self.entries or picture in self.spoilt:
            self.entries.pop(picture, None)
            self.spoil(picture, TWICE, picture)
        else:
            self.entries[picture] = Entry(boxes, part_in(picture, *places))

    def spoil(self, picture: str | None, why: str, where: str) -> None:
        """Counts a picture as broken, once; None: one that is not there."""
        if picture is None or picture not in self.spoilt:
            self.broken.add(why, where)
        if picture is not None:
            self.spoilt.add(picture)

    def left_out_notes(self) -> list[str]:
        return [note(counted.count, counted.reason, counted.examples) for counted in self.left_out.counted()]


def note(count: int, reason: str, examples: Iterable[str]) -> str:
    """A sentence on boxes that were left out or changed."""
    return f"{count} {'box' if count == 1 else 'boxes'}: {reason} ({', '.join(examples)})."


def box_numbers(values: Iterable[object]) -> list[float]:
    """Four finite numbers. Raises Wrong."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise Wrong("a box of its annotation is not four finite numbers")
    return numbers


def array(boxes: list[list[float]]) -> np.ndarray:
    """(k, 4) float64, also of none."""
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def text(member: Member, name: str) -> str:
    """A small file's text. Raises Invalid."""
    try:
        return member.content().decode("utf-8-sig")
    except Unreadable as error:
        raise Invalid([Fault(member_pointer(name), str(error), "make the archive again")]) from None
    except UnicodeDecodeError:
        raise Invalid([Fault(member_pointer(name), "it is not UTF-8", "save it as UTF-8")]) from None


def class_names(names: Iterable[str], name: str) -> list[Fault]:
    """Faults in the names of classes that stand in the file `name`."""
    reasons = [reason for reason in map(fault_in_name, names) if reason]
    hint = "name classes with 1 to 128 printable characters"
    return [Fault(member_pointer(name), f"in {len(reasons)} class names: {reasons[0]}", hint)] if reasons else []


def member_pointer(name: str, *parts: str | int) -> str:
    return pointer("file", "member", name, *parts)


def base(name: str) -> str:
    """A path's last part."""
    return name.rpartition("/")[2]


def stem(name: str) -> str:
    """A path's last part without its ending."""
    whole = base(name)
    return whole.rpartition(".")[0] or whole


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def part_in(*places: str) -> str | None:
    """The part of the split that a path's folders name, or the words of an annotation file's name, such as
    instances_train2017.json."""
    for place in places:
        folders, _, own = place.lower().rpartition("/")
        words = [*folders.split("/"), *(re.split("[^a-z]+", own) if own.endswith(".json") else ())]
        part = next((PARTS[word] for word in words if word in PARTS), None)
        if part:
            return part
    return None

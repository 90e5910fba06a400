"""Boxes that a labelling tool drew on the pictures of an archive: COCO JSON, YOLO label files or Pascal VOC XML.

`find` says whether an archive holds such annotations, and reads them; `place` brings the boxes to the stored pictures.
A module for each format: its `files` are those among an archive's that are meant to be of it, and `read` adds to a
`Found` what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from app.data.boxes import COLUMN, Annotated
from app.data.intake.archive import Member
from app.data.intake.boxes import coco, voc, yolo
from app.data.intake.boxes.found import Found
from app.data.intake.folders import METADATA, SPLIT, Layout, Tally, add_groups, kind_of, why_other
from app.data.upload_limits import UploadLimits
from app.spec.faults import Fault, Invalid

LONGEST_SHOWN = 5


class AnnotationFormat(Protocol):
    """The face of a module for one format."""

    NAME: str

    def files(self, inner: Mapping[str, Member], pictures: set[str]) -> dict[str, Member]:
        """The files of the archive that are meant to be annotations of this format. Raises nothing."""

    def read(self, files: Mapping[str, Member], found: Found) -> None:
        """Adds what they say. Raises Invalid where the whole is of no use."""


FORMATS = cast("tuple[AnnotationFormat, ...]", (coco, yolo, voc))


def find(
    inner: Mapping[str, Member],
    ignored: Tally,
    kind: str,
    endings: Mapping[str, Sequence[str]],
    limits: UploadLimits,
) -> Layout | None:
    """The annotated pictures of an archive; None where it has no annotations.

    Args:
        inner, ignored: from `folders.by_name`.
        kind: of pictures, among `endings`.

    Raises:
        Invalid: annotations of two formats; or that cannot be read as what they are meant to be.
    """
    pictures = {name: member for name, member in inner.items() if kind_of(name, endings) == kind}
    if not pictures or any(name in inner for name in METADATA):
        return None
    of_format = {known.NAME: known.files(inner, set(pictures)) for known in FORMATS}
    there = {name: files for name, files in of_format.items() if files}
    if not there:
        return None
    if len(there) > 1:
        examples = ", ".join(f"{name} ({next(iter(files))})" for name, files in there.items())
        message = f"annotations of {len(there)} formats: {examples}"
        raise Invalid([Fault("/file", message, "leave one of them in the archive")])
    ((name_of_format, files),) = there.items()
    found = Found(pictures, limits)
    next(known for known in FORMATS if name_of_format == known.NAME).read(files, found)
    for name in inner:
        if name not in pictures and name not in files:
            ignored.add(why_other(name, kind_of(name, endings), kind), name)
    for name in sorted(pictures.keys() - found.entries.keys() - found.spoilt):
        ignored.add(found.unlisted, name)
    return _layout(found, name_of_format, files, ignored)


def _layout(found: Found, format: str, files: Mapping[str, Member], ignored: Tally) -> Layout:
    names = sorted(found.entries)
    parts = [found.entries[name].part for name in names]
    whole = all(parts) and len(set(parts)) > 1
    shown = ", ".join(list(files)[:LONGEST_SHOWN]) + (
        f" and {len(files) - LONGEST_SHOWN} more" if len(files) > LONGEST_SHOWN else ""
    )
    layout = Layout(
        [found.pictures[name] for name in names],
        [{SPLIT: str(part)} if whole else {} for part in parts],
        None,
        ignored=ignored,
        broken=found.broken,
        notes=[*found.notes, *found.left_out_notes()],
        missing=found.broken.count,
        boxes=Annotated(f"{format}: {shown}", [found.entries[name].boxes for name in names]),
    )
    add_groups(layout)
    return layout


__all__ = ["COLUMN", "find"]

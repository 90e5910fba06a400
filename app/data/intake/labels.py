"""What the rows of an archive can teach: the columns of their folders or of a metadata file; and when too many files are broken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.data import columns
from app.data.boxes import COLUMN as BOXES
from app.data.intake import metadata
from app.data.intake.folders import LABEL, SPLIT, Layout, whole_broken
from app.data.intake.groups import GROUP
from app.data.names import fault_in_name, shown
from app.data.prepared import Writer
from app.data.table import describe
from app.data.upload import Upload
from app.data.upload_limits import UploadLimits
from app.spec.data import Column, InputSchema, Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import ColumnReading, Intake, UploadOptions

MOST_BROKEN = 0.01  # of all files; beyond it the sender is asked

Columns = tuple[dict[str, np.ndarray], dict[str, Column]]
"""{name: stored values} and {name: what they are}."""


def check_broken(layout: Layout, kept: Sequence[int], options: UploadOptions) -> None:
    """Goes on where few files are broken, or the sender said so.

    Args:
        kept: the numbers of the candidates that could be read so far.

    Raises:
        Invalid: more than 1 % of the files are broken, or a whole class, or all.
    """
    total, left = layout.total, set(kept)
    whole = whole_broken(layout.labels, lambda number: number not in left)
    if kept and (options.skip_broken or (layout.broken.count <= MOST_BROKEN * total and not whole)):
        return
    faults = [
        Fault(
            "/file",
            f"{counted.count} of {total} files are broken: {counted.reason} ({', '.join(counted.examples)})",
            "mend or remove them, or send -F skip_broken=true to go on without them"
            if kept
            else "send files that open in a viewer or a player",
            "broken_files",
        )
        for counted in layout.broken.counted()
    ]
    faults += [
        Fault(
            "/file",
            f"no file of class {shown(name)!r} can be read",
            "mend its files, or remove the folder",
            "broken_files",
        )
        for name in whole[:20]
    ]
    raise Invalid(faults)


def finish(
    layout: Layout,
    kept: Sequence[int],
    input: InputSchema,
    hashes: np.ndarray,
    upload: Upload,
    notes: list[str],
    out: Writer,
) -> tuple[Schema, Intake]:
    """Writes the columns of the rows that were kept, and says what became of the archive. Raises Invalid."""
    if layout.metadata is None:
        stored, described = _of_folders(layout, kept, upload.options, upload.limits)
        readings = [_reading(column, layout) for column in described.values()]
    else:
        stored, described, readings = metadata.read(layout, np.array(kept), upload.options.targets, upload.limits)
    asked = columns.parse_targets(upload.options.targets, list(described))[0]
    target = asked[0].column if asked else next((name for name in described if name not in (SPLIT, GROUP)), None)
    schema = Schema(rows=len(kept), input=input, columns=described, target=target)
    out.finish(stored, hashes, schema)
    return schema, Intake(
        used=len(kept), ignored=layout.ignored.counted(), broken=layout.broken.counted(), columns=readings, notes=notes
    )


def _of_folders(layout: Layout, kept: Sequence[int], options: UploadOptions, limits: UploadLimits) -> Columns:
    rows = [layout.labels[number] for number in kept]
    names = [name for name in (LABEL, SPLIT) if any(name in row for row in rows)]
    _, faults = columns.parse_targets(options.targets, [*([BOXES] if layout.boxes else []), *names])
    stored, described = dict[str, np.ndarray](), dict[str, Column]()
    if layout.boxes is not None:
        fault = _fault_in_boxes(layout.boxes.classes, limits)
        if fault:
            raise Invalid([*faults, fault])
        stored[BOXES] = layout.boxes.column(kept)
        described[BOXES] = describe(BOXES, stored[BOXES], layout.boxes.classes)
    for name in names:
        words = [row[name] for row in rows]
        classes = sorted(set(words))
        bad = next(filter(None, map(fault_in_name, classes)), None)
        fault = columns.fault_in_classes(classes, f"/file/column/{name}", limits, least=1)
        if bad:
            faults.append(Fault("/file", f"a folder's name: {bad}", "rename the folder"))
        elif fault:
            faults.append(fault)
        else:
            number = {word: place for place, word in enumerate(classes)}
            stored[name] = np.array([number[word] for word in words], np.int32)
            described[name] = describe(name, stored[name], classes)
    if any(GROUP in row for row in rows):
        number = {word: place for place, word in enumerate(sorted({row[GROUP] for row in rows}))}
        stored[GROUP] = np.array([number[row[GROUP]] for row in rows], np.float32)
        described[GROUP] = describe(GROUP, stored[GROUP])
    if faults:
        raise Invalid(faults)
    return stored, described


def _fault_in_boxes(classes: Sequence[str], limits: UploadLimits) -> Fault | None:
    if not classes:
        return Fault("/file", "no picture has a box", "the note on boxes that were left out says why; draw some")
    return columns.fault_in_classes(classes, "/file", limits, least=1)


def _reading(column: Column, layout: Layout) -> ColumnReading:
    if column.name == BOXES and layout.boxes is not None:
        counted = ", ".join(
            f"{name} {count}" for name, count in zip(column.classes or [], column.counts or [], strict=True)
        )
        return ColumnReading(column=BOXES, read_as="boxes", why=shown(f"{layout.boxes.why}; {counted}"))
    if column.name == GROUP:
        return ColumnReading(column=GROUP, read_as="number", why="what belongs together by its names, to split by")
    classes = column.classes or []
    first = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
    return ColumnReading(column=column.name, read_as="category", why=f"{len(classes)} folders: {first}")

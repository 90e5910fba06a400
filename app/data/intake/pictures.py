"""An archive of pictures becomes rows of pixels: headers first, to choose one size for all, then one picture after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL

from app.data import columns, decode
from app.data.inputs import image
from app.data.intake import folders
from app.data.intake.archive import Member, Unreadable
from app.data.intake.folders import Layout, Tally
from app.data.lists import times
from app.data.names import fault_in_name
from app.data.prepared import Writer
from app.data.table import HASH_BYTES, describe
from app.data.upload import Upload
from app.data.upload_limits import UploadLimits
from app.spec.data import Column, InputSchema, PictureDecoding, Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import ColumnReading, Fit, Intake, UploadOptions

KIND = "picture"
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DEFAULT_SIZE = (224, 224)
DEFAULT_FIT: Fit = "pad"
MOST_BROKEN = 0.01  # of all files; beyond it the sender is asked
BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Row:
    """A picture that has a readable header: its file, what its place says, and its header."""

    member: Member
    labels: dict[str, str]
    header: decode.Header


def read(layout: Layout, upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    """Writes the pictures of `layout` to `out`, in the order of their names.

    Raises:
        Invalid: more than 1 % of the files, or a whole class, are broken, and `skip_broken` was not said; no file is left; too many pixels.
    """
    options, limits, progress = upload.options, upload.limits, upload.progress
    broken, total = Tally(), len(layout.members)
    rows = list[Row]()
    for number, (member, labels) in enumerate(zip(layout.members, layout.labels, strict=True)):
        try:
            rows.append(Row(member, labels, decode.header(member.content())))
        except (Unreadable, decode.Undecodable) as error:
            broken.add(str(error), member.name)
        progress(number // 8, total)
    _check_broken(layout, rows, broken, options)
    notes = [*layout.notes]
    decoding = _decoding(rows, options, notes)
    schema = InputSchema(kind="image", shape=[*decoding.size, len(decoding.mode)], scale=255.0, decode=decoding)
    _check_room(len(rows), schema, limits)
    kept, hashes = _decoded(rows, schema, broken, out, lambda done: progress(total // 8 + done * 7 // 8, total))
    _check_broken(layout, kept, broken, options)
    stored, described = _columns(kept, options, limits)
    target = next((target.column for target in columns.parse_targets(options.targets, list(described))[0]), None)
    target = target or next((name for name in described if name != folders.SPLIT), None)
    whole = Schema(rows=len(kept), input=schema, columns=described, target=target)
    out.finish(stored, hashes, whole)
    intake = Intake(
        used=len(kept),
        ignored=layout.ignored.counted(),
        broken=broken.counted(),
        columns=[_reading(column) for column in described.values()],
        notes=notes,
    )
    return whole, intake


def _decoded(
    rows: Sequence[Row], input: InputSchema, broken: Tally, out: Writer, progress: Callable[[int], None]
) -> tuple[list[Row], np.ndarray]:
    """The rows whose pictures could be decoded, and their hashes; their pixels are written."""
    how = input.decode
    assert how is not None
    kept, block, hashes = list[Row](), list[np.ndarray](), [np.zeros((0, HASH_BYTES), np.uint8)]
    at_once = max(1, BLOCK_BYTES // int(np.prod(input.shape)))
    with out.rows(input.shape, np.dtype(np.uint8)) as append:

        def flush() -> None:
            if block:
                pixels = np.stack(block)
                hashes.append(image.hashes(pixels, input))
                append(pixels)
                block.clear()

        for number, row in enumerate(rows):
            try:
                block.append(decode.picture(row.member.content(), size=how.size, mode=how.mode, fit=how.fit))
                kept.append(row)
            except (Unreadable, decode.Undecodable) as error:
                broken.add(str(error), row.member.name)
            if len(block) == at_once:
                flush()
            progress(number)
        flush()
    return kept, np.concatenate(hashes)


def _check_broken(layout: Layout, kept: Sequence[Row], broken: Tally, options: UploadOptions) -> None:
    total, left = len(layout.members), {row.member.name for row in kept}
    whole = folders.whole_broken(layout.labels, lambda number: layout.members[number].name not in left)
    if kept and (options.skip_broken or (broken.count <= MOST_BROKEN * total and not whole)):
        return
    faults = [
        Fault(
            "/file",
            f"{counted.count} of {total} files are broken: {counted.reason} ({', '.join(counted.examples)})",
            "mend or remove them, or send -F skip_broken=true to go on without them"
            if kept
            else "send pictures that open in a viewer",
            "broken_files",
        )
        for counted in broken.counted()
    ]
    faults += [
        Fault("/file", f"no file of class {name!r} can be read", "mend its files, or remove the folder", "broken_files")
        for name in whole[:20]
    ]
    raise Invalid(faults)


def _decoding(rows: Sequence[Row], options: UploadOptions, notes: list[str]) -> PictureDecoding:
    """One size and mode for all. What was not asked for is said in `notes`."""
    sizes = Counter(row.header.size for row in rows)
    grey = sum(row.header.grey for row in rows)
    mode: Literal["L", "RGB"] = "L" if grey == len(rows) else "RGB"
    if 0 < grey < len(rows):
        notes.append(f"{grey} of {len(rows)} pictures are grey: like the others they have three channels.")
    size, fit = options.size, options.fit or DEFAULT_FIT
    if size is None and len(sizes) == 1:
        size = next(iter(sizes))
    elif size is None:
        smallest = [min(size[side] for size in sizes) for side in (0, 1)]
        largest = [max(size[side] for size in sizes) for side in (0, 1)]
        size = DEFAULT_SIZE
        notes.append(
            f"The pictures have {len(sizes)} sizes, {times(smallest)} to {times(largest)} at the sides: "
            f"each was brought to {times(size)}; -F size=HEIGHTxWIDTH chooses another size."
        )
    if options.fit is None and any(there != size for there in sizes):
        notes.append(
            "Proportions are kept, with black beside the picture; -F fit=crop or -F fit=stretch does otherwise."
        )
    return PictureDecoding(version=PIL.__version__, mode=mode, size=list(size), fit=fit)


def _check_room(rows: int, input: InputSchema, limits: UploadLimits) -> None:
    values = int(np.prod(input.shape))
    if values > limits.row_values or rows * values > limits.archive_bytes:
        message = f"{rows} pictures of {times(input.shape)} take {rows * values} bytes, at most {limits.archive_bytes} are kept"
        if values > limits.row_values:
            message = f"a row of {times(input.shape)} has {values} numbers, at most {limits.row_values} are allowed"
        raise Invalid([Fault("/file", message, "give a smaller size: -F size=64x64", "too_large")])


def _columns(
    rows: Sequence[Row], options: UploadOptions, limits: UploadLimits
) -> tuple[dict[str, np.ndarray], dict[str, Column]]:
    """The columns that folders give. Raises Invalid."""
    names = [name for name in (folders.LABEL, folders.SPLIT) if any(name in row.labels for row in rows)]
    _, faults = columns.parse_targets(options.targets, names)
    stored, described = dict[str, np.ndarray](), dict[str, Column]()
    for name in names:
        words = [row.labels[name] for row in rows]
        classes = sorted(set(words))
        bad = [fault_in_name(word) for word in classes]
        if any(bad):
            faults.append(Fault("/file", f"a folder's name: {next(filter(None, bad))}", "rename the folder"))
            continue
        fault = columns.fault_in_classes(classes, f"/file/column/{name}", limits, least=1)
        if fault:
            faults.append(fault)
            continue
        number = {word: place for place, word in enumerate(classes)}
        stored[name] = np.array([number[word] for word in words], np.int32)
        described[name] = describe(name, stored[name], classes)
    if faults:
        raise Invalid(faults)
    return stored, described


def _reading(column: Column) -> ColumnReading:
    classes = column.classes or []
    shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
    return ColumnReading(column=column.name, read_as="category", why=f"{len(classes)} folders: {shown}")

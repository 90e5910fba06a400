"""An archive of pictures becomes rows of pixels: headers first, to choose one size for all, then one picture after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL

from app.data import decode
from app.data.inputs import image
from app.data.intake import labels
from app.data.intake.archive import Member, Unreadable
from app.data.intake.folders import Layout, Tally
from app.data.lists import times
from app.data.prepared import Writer
from app.data.table import HASH_BYTES
from app.data.upload import Upload
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema, PictureDecoding, Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import Fit, Intake, UploadOptions

KIND = "picture"
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DEFAULT_SIZE = (224, 224)
DEFAULT_FIT: Fit = "pad"
BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Picture:
    """A candidate that has a readable header: its number among them, its file, and its header."""

    number: int
    member: Member
    header: decode.Header


def read(layout: Layout, upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    """Writes the pictures of `layout` to `out`, in its order.

    Raises:
        Invalid: too many broken files, see `labels.check_broken`; too many pixels; faults in the columns.
    """
    broken, total = layout.broken, len(layout.members)
    pictures = list[Picture]()
    for number, member in enumerate(layout.members):
        try:
            pictures.append(Picture(number, member, decode.header(member.content())))
        except (Unreadable, decode.Undecodable) as error:
            broken.add(str(error), member.name)
        upload.progress(number // 8, total)
    labels.check_broken(layout, [picture.number for picture in pictures], upload.options)
    notes = [*layout.notes]
    how = _decoding(pictures, upload.options, notes)
    shape = InputSchema(kind="image", shape=[*how.size, len(how.mode)], scale=255.0, decode=how)
    _check_room(len(pictures), shape, upload.limits)
    kept, hashes = _decoded(
        pictures, shape, broken, out, lambda done: upload.progress(total // 8 + done * 7 // 8, total)
    )
    labels.check_broken(layout, kept, upload.options)
    return labels.finish(layout, kept, shape, hashes, upload, notes, out)


def _decoded(
    pictures: Sequence[Picture], input: InputSchema, broken: Tally, out: Writer, progress: Callable[[int], None]
) -> tuple[list[int], np.ndarray]:
    """The numbers of the pictures that could be decoded, and their hashes; their pixels are written."""
    how = input.decode
    assert isinstance(how, PictureDecoding)
    kept, block, hashes = list[int](), list[np.ndarray](), [np.zeros((0, HASH_BYTES), np.uint8)]
    at_once = max(1, BLOCK_BYTES // int(np.prod(input.shape)))
    with out.rows(input.shape, np.dtype(np.uint8)) as append:

        def flush() -> None:
            if block:
                pixels = np.stack(block)
                hashes.append(image.hashes(pixels, input))
                append(pixels)
                block.clear()

        for done, picture in enumerate(pictures):
            try:
                block.append(decode.picture(picture.member.content(), size=how.size, mode=how.mode, fit=how.fit))
                kept.append(picture.number)
            except (Unreadable, decode.Undecodable) as error:
                broken.add(str(error), picture.member.name)
            if len(block) == at_once:
                flush()
            progress(done)
        flush()
    return kept, np.concatenate(hashes)


def _decoding(rows: Sequence[Picture], options: UploadOptions, notes: list[str]) -> PictureDecoding:
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

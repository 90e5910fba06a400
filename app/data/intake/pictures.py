"""An archive of pictures becomes rows of pixels: headers first, to choose one size for all, then one picture after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from app.data import decode
from app.data.inputs import image
from app.data.intake import decoded, labels
from app.data.intake.boxes.place import place
from app.data.intake.folders import Layout
from app.data.lists import times
from app.data.prepared import Writer
from app.data.upload import Upload
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema, PictureDecoding, Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import Fit, Intake, UploadOptions

KIND = "picture"
OPTIONS = ("size", "fit")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DEFAULT_SIZE = (224, 224)
DEFAULT_FIT: Fit = "pad"


def read(layout: Layout, upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    """Writes the pictures of `layout` to `out`, in its order.

    Raises:
        Invalid: too many broken files, see `labels.check_broken`; too many pixels; faults in the columns.
    """
    pictures = decoded.headers(layout, upload, decode.header)
    notes = list[str]()
    how = _decoding([picture.header for picture in pictures], upload.options, notes)
    if layout.boxes is not None:
        pictures = place(layout, pictures, how, upload.limits)
        labels.check_broken(layout, [picture.number for picture in pictures], upload.options)
    notes = [*layout.notes, *notes]
    shape = InputSchema(kind="image", shape=[*how.size, len(how.mode)], scale=255.0, decode=how)
    _check_room(len(pictures), shape, upload.limits)
    return decoded.finish(layout, pictures, shape, np.dtype(np.uint8), upload, notes, out)


def _decoding(headers: Sequence[decode.Header], options: UploadOptions, notes: list[str]) -> PictureDecoding:
    """One size and mode for all. What was not asked for is said in `notes`."""
    sizes = Counter(header.size for header in headers)
    grey = sum(header.grey for header in headers)
    if 0 < grey < len(headers):
        notes.append(f"{grey} of {len(headers)} pictures are grey: like the others they have three channels.")
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
    return image.decoded((*size, 1 if grey == len(headers) else 3), fit)


def _check_room(rows: int, input: InputSchema, limits: UploadLimits) -> None:
    values = int(np.prod(input.shape))
    if values > limits.row_values or rows * values > limits.archive_bytes:
        message = f"{rows} pictures of {times(input.shape)} take {rows * values} bytes, at most {limits.archive_bytes} are kept"
        if values > limits.row_values:
            message = f"a row of {times(input.shape)} has {values} numbers, at most {limits.row_values} are allowed"
        raise Invalid([Fault("/file", message, "give a smaller size: -F size=64x64", "too_large")])

"""The readers of uploads, by format: each turns a client's bytes into a prepared file and says what became of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from app.data import npz_file
from app.data.prepared import Writer
from app.data.upload import Read, Upload, refuse_unused
from app.data.upload_limits import MIB, UploadLimits
from app.spec.data import Schema
from app.spec.intake import Intake

Format = Literal["npz", "csv", "jsonl", "parquet", "conll", "zip", "tar"]
FORMATS: tuple[Format, ...] = get_args(Format)
TABLES, ARCHIVES = ("csv", "jsonl", "parquet"), ("zip", "tar")
ARCHIVE_MEMORY = 2**31


@dataclass(frozen=True)
class Walls:
    """What the reading process may take: address space beyond what it has at first, and the length of a file that it writes."""

    memory_bytes: int
    longest_file_bytes: int


def by_name(filename: str | None) -> Format | None:
    """The format that a file's name says, where its first bytes would not show it; None: look at those."""
    name = (filename or "").lower().removesuffix(".gz")
    return "conll" if name.endswith((".conll", ".bio", ".iob", ".iob2")) else None


def of(format: str) -> tuple[Read, bytes]:
    """The reader of a format, and a tiny file that goes through all of it. A reader is imported when it is needed: pyarrow takes a third
    of a second, which an npz need not wait for."""
    if format == "npz":
        return _read_npz, _npz_sample()
    from app.data import tabular
    from app.data.tagged import files as tagged

    if format == tagged.CONLL:
        tagged.warm_up()
        return _read_tagged, tagged.samples()[tagged.CONLL]
    if format in TABLES:
        tabular.warm_up(cast("tabular.Format", format))
        tagged.warm_up()
        return _read_table, tabular.samples(cast("tabular.Format", format))[0]
    from app.data.intake import files

    for table in TABLES:  # of a metadata file
        tabular.warm_up(cast("tabular.Format", table))
    return files.read, files.sample(format)


def walls(format: str, limits: UploadLimits) -> Walls:
    """Tables are held in memory while they are read; of an archive's files one is, and a block of rows."""
    if format in ARCHIVES:
        return Walls(ARCHIVE_MEMORY, limits.archive_bytes + 64 * MIB)
    return Walls(4 * limits.decoded_bytes + limits.spare_bytes, 2 * limits.decoded_bytes + 64 * MIB)


def _read_npz(upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    refuse_unused(upload.options, ("targets",), "arrays")
    table = npz_file.read(upload.file, upload.options.targets, upload.limits)
    out.table(table)
    return table.schema, Intake(used=len(table))


def _read_table(upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    from app.data import tabular
    from app.data.tagged import files as tagged

    if upload.format == "jsonl" and tagged.holds_tags(upload.file, upload.options, upload.limits):
        return _read_tagged(upload, out)
    refuse_unused(upload.options, ("targets", "inputs", "length"), "a table's rows")
    table, intake = tabular.read(upload.file, cast("tabular.Format", upload.format), upload.options, upload.limits)
    out.table(table)
    return table.schema, intake


def _read_tagged(upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    from app.data.tagged import files as tagged

    refuse_unused(upload.options, ("targets", "length"), "texts with tags")
    table, intake = tagged.read(upload.file, cast("tagged.Format", upload.format), upload.options, upload.limits)
    out.table(table)
    return table.schema, intake


def _npz_sample() -> bytes:
    sample = io.BytesIO()
    np.savez_compressed(sample, x=np.zeros((2, 3)), y=np.array(["a", "b"]))
    return sample.getvalue()

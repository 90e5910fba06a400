"""Files that become rows of one shape: the headers of all first, so that the shape can be chosen, then one file after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from app.data import file_rows
from app.data.intake import beside, labels
from app.data.intake.archive import Member, Unreadable
from app.data.intake.beside import RowForm
from app.data.intake.folders import Layout
from app.data.prepared import Writer
from app.data.table import HASH_BYTES
from app.data.upload import Upload
from app.spec.data import InputSchema, Schema
from app.spec.intake import Intake

BLOCK_BYTES = 4 * 2**20
OF_HEADERS = 8
"""One part in so many of the work, as far as progress is told."""

Header = TypeVar("Header")


@dataclass(frozen=True)
class Candidate(Generic[Header]):
    """A file that has a readable header: its number among all candidates, the file, and the header."""

    number: int
    member: Member
    header: Header


def headers(layout: Layout, upload: Upload, header: Callable[[bytes], Header]) -> list[Candidate[Header]]:
    """The candidates whose header can be read.

    Raises:
        Invalid: too many cannot, see `labels.check_broken`.
    """
    found, total = list[Candidate[Header]](), len(layout.members)
    for number, member in enumerate(layout.members):
        try:
            found.append(Candidate(number, member, header(member.content())))
        except (Unreadable, *file_rows.UNDECODABLE) as error:
            layout.broken.add(str(error), member.name)
        upload.progress(number // OF_HEADERS, total)
    labels.check_broken(layout, [candidate.number for candidate in found], upload.options)
    return found


def finish(
    layout: Layout,
    candidates: Sequence[Candidate[Header]],
    input: InputSchema,
    dtype: np.dtype[np.uint8] | np.dtype[np.int16],
    upload: Upload,
    notes: list[str],
    out: Writer,
) -> tuple[Schema, Intake]:
    """Decodes the candidates as `input.decode` says, and writes their rows and columns.

    Raises:
        Invalid: too many broken files; faults in the columns.
    """
    form = beside.form(layout, input, dtype)
    kept, hashes = _rows(layout, candidates, form, upload, out)
    labels.check_broken(layout, kept, upload.options)
    return labels.finish(layout, kept, form.input, hashes, upload, notes, out)


def _rows(
    layout: Layout,
    candidates: Sequence[Candidate[Header]],
    form: RowForm,
    upload: Upload,
    out: Writer,
) -> tuple[list[int], np.ndarray]:
    """The numbers of the files that could be decoded, and their rows' hashes; the rows are written."""
    how, total = form.alone.decode, len(layout.members)
    assert how is not None, "files become rows somehow"
    kept, block, hashes = list[int](), list[np.ndarray](), [np.zeros((0, HASH_BYTES), np.uint8)]
    at_once = max(1, BLOCK_BYTES // (form.dtype.itemsize * int(np.prod(form.shape))))
    with out.rows(form.shape, form.dtype) as append:

        def flush() -> None:
            if block:
                rows = form.stored(np.stack(block), kept[-len(block) :])
                hashes.append(form.hashes(rows))
                append(rows)
                block.clear()

        for done, candidate in enumerate(candidates):
            try:
                block.append(file_rows.row(candidate.member.content(), how))
                kept.append(candidate.number)
            except (Unreadable, *file_rows.UNDECODABLE) as error:
                layout.broken.add(str(error), candidate.member.name)
            if len(block) == at_once:
                flush()
            upload.progress(total // OF_HEADERS + done * (OF_HEADERS - 1) // OF_HEADERS, total)
        flush()
    return kept, np.concatenate(hashes)

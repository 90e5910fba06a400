"""An archive of text files becomes rows of bytes: one file, one text."""

from __future__ import annotations

from app.data.inputs import text
from app.data.intake import beside, labels
from app.data.intake.archive import Unreadable
from app.data.intake.folders import Layout
from app.data.prepared import Writer
from app.data.upload import Upload
from app.spec.data import Schema
from app.spec.intake import Intake

KIND = "text"
OPTIONS = ("length",)
ENDINGS = (".txt", ".text", ".eml")


def read(layout: Layout, upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    """Writes the texts of `layout` to `out`, in its order.

    Raises:
        Invalid: too many broken files, see `labels.check_broken`; faults in the columns.
    """
    found, kept, old = list[str](), list[int](), 0
    for number, member in enumerate(layout.members):
        try:
            words, is_utf8 = decoded(member.content())
        except Unreadable as error:
            layout.broken.add(str(error), member.name)
            continue
        if words.strip():
            found.append(words)
            kept.append(number)
            old += not is_utf8
        else:
            layout.broken.add("the file is empty", member.name)
        upload.progress(number, len(layout.members))
    labels.check_broken(layout, kept, upload.options)
    notes = [*layout.notes]
    if old:
        notes.append(f"{old} of {len(found)} files are not UTF-8: they were read as Windows-1252.")
    rows, alone = text.stored(found, upload.options.length, notes)
    form = beside.form(layout, alone, rows.dtype)
    stored = form.stored(rows, kept)
    with out.rows(form.shape, form.dtype) as append:
        append(stored)
    return labels.finish(layout, kept, form.input, form.hashes(stored), upload, notes, out)


def decoded(content: bytes) -> tuple[str, bool]:
    """The text in a file, and whether it is UTF-8. Bytes that are neither become question marks."""
    try:
        return content.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), False

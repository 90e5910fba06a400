"""Names of columns, classes, files and data sets. They are shown to people and put in pointers; none becomes a path."""

from __future__ import annotations

from app.spec.base import LONGEST_NAME as LONGEST
from app.spec.base import fault_in_name, is_visible
from app.spec.faults import Fault, pointer

__all__ = ["LONGEST", "column_pointer", "fault_in_label", "fault_in_name", "shown"]

LONGEST_SHOWN = 300


def shown(text: str) -> str:
    """A text of a client's as an answer may repeat it: its beginning, with U+FFFD for what cannot be printed.

    A name in a tar that is not UTF-8 has halves of characters, which neither JSON nor the database can hold.
    """
    return "".join(letter if is_visible(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text[:LONGEST_SHOWN])


def fault_in_label(label: str, field: str) -> Fault | None:
    """The fault in a file's or a data set's name, or None. The name is a label only; still, one that looks like a path is refused.

    Args:
        field: where it was given, "filename" or "name".
    """
    reason = fault_in_name(label)
    if reason is None and (label.strip(". ") == "" or any(mark in label for mark in "/\\")):
        reason = "the name is a path"
    if reason is None:
        return None
    return Fault(pointer(field), reason, f"give 1 to {LONGEST} printable characters, without / and \\")


def column_pointer(name: str, number: int) -> str:
    """Where a column is: by its name, or by its place (from 0) when the name itself is the fault."""
    return pointer("file", "column", name if fault_in_name(name) is None else number)

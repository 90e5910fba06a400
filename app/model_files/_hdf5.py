"""HDF5 files of strangers. Only hard links are followed, and only datasets that lie within the file, as numbers, are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import IO, Any

import h5py
import numpy as np

from app.model_files._arrays import Array, Budget, of_bfloat16, plain
from app.spec.faults import Fault, Invalid

RATIO = 100
"""What a dataset declares, to what is stored of it."""

FLOOR = 2**16
"""Bytes from which that counts."""

STRIPE = 16 * 2**20
LONGEST_TEXT = 4096
FILTERS = {1, 2, 3}
"""Deflate, shuffle, checksum. Any other would be looked for among the system's libraries."""

AGAIN = "save the model again with Keras 3"


class Refused(Exception):
    """Something in the file that is not read."""


@contextmanager
def opened(file: IO[bytes]) -> Iterator[Any]:
    """The root of an HDF5 file. h5py answers hostile bytes with many an exception; all of them mean that the file is damaged.

    Raises:
        Invalid: it is none, or damaged.
    """
    try:
        with h5py.File(file, "r") as root:
            yield root
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, OverflowError, AttributeError):
        raise Invalid([Fault("", "not an HDF5 file, or damaged", AGAIN, "unreadable")]) from None


def child(group: Any, name: str) -> Any:
    """A group or dataset in `group`. Raises Refused: the link leads elsewhere."""
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise Refused("a link in the file leads elsewhere")
    return group[name]


def holds(group: Any, name: str) -> bool:
    """Whether there is a link of that name. It is not followed: `in` would open the file that it leads to."""
    return bool(group.id.links.exists(name.encode()))


def is_dataset(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def group(root: Any, path: str) -> Any:
    """The group at `path`, None where there is none. Raises Refused."""
    here = root
    for name in path.split("/"):
        if not holds(here, name):
            return None
        here = child(here, name)
        if not isinstance(here, h5py.Group):
            raise Refused("an array stands where a group should be")
    return here


def address(item: Any) -> int:
    """Where the file keeps a group: two links to one group have one address."""
    return int(h5py.h5o.get_info(item.id).addr)


def text(item: Any, name: str) -> str | None:
    """An attribute that is a short text; "" where it is something else, None where there is none."""
    if name not in item.attrs:
        return None
    kept = item.attrs.get_id(name)
    if kept.shape != () or kept.get_storage_size() > LONGEST_TEXT:
        return ""
    value = item.attrs[name]
    return value if isinstance(value, str) and len(value) <= LONGEST_TEXT else ""


def dataset(within: Any, name: str) -> Any:
    """A dataset that may be read: in the file, of numbers, no longer than what is stored of it. Raises Refused."""
    if not holds(within, name):
        raise Refused("an array is missing")
    found = child(within, name)
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise Refused("a group stands where an array should be")
    created = found.id.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL or created.get_external_count():
        raise Refused("an array lies in another file")
    if any(created.get_filter(place)[0] not in FILTERS for place in range(created.get_nfilters())):
        raise Refused("an array is packed in a way that is not read")
    kind, size = found.dtype.kind, found.dtype.itemsize
    is_bfloat16 = kind == "V" and size == 2 and text(found, "dtype") == "bfloat16"
    if len(found.shape) > 8 or size > 8 or not (kind in "fiu" or is_bfloat16):
        raise Refused("an array holds something else than numbers")
    declared = prod(found.shape) * size
    if declared > FLOOR and declared > RATIO * found.id.get_storage_size():
        raise Refused("an array declares much more than is stored of it")
    return found


def values(found: Any, budget: Budget) -> Array:
    """What a dataset holds, read stripe by stripe: float32, or whole numbers as they are. Raises Invalid: beyond the budget."""
    kind, size = found.dtype.kind, found.dtype.itemsize
    target = np.dtype(np.float32) if kind in "fV" else found.dtype.newbyteorder("=")
    budget.take(prod(found.shape) * target.itemsize)
    if not found.shape:
        return _plain(np.asarray(found[()]), target)
    result = np.empty(found.shape, target)
    rows = max(1, STRIPE // max(1, prod(found.shape[1:]) * size))
    for start in range(0, found.shape[0], rows):
        result[start : start + rows] = _plain(found[start : start + rows], target)
    return result


def _plain(read: Array, target: np.dtype[Any]) -> Array:
    return plain(of_bfloat16(read.view("<u2")) if read.dtype.kind == "V" else read, target)

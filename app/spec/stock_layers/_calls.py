"""What layers are called with: tensors, numbers, slices, and lists of these, all of it plain data.

A tensor is {"tensor": NAME} or {"tensor": NAME, "output": NUMBER}, a slice {"slice": [start, stop, step]}, an ellipsis {"ellipsis": true},
a constant {"array": numbers, "dtype": type}.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from math import isfinite
from typing import Any

from app.spec.faults import Nearest, nearest, pointer
from app.spec.stock_layers._layers import CALL_ARGUMENTS
from app.spec.stock_layers._rules import DTYPES

DEEPEST = 16
MOST_OUTPUTS = 1024
LARGEST_WHOLE = 2**53
LARGEST = 1e38

Found = tuple[str, str, str | Nearest | None]


def tensors(value: Any) -> Iterator[dict[str, Any]]:
    """The tensors among the arguments of a call."""
    if isinstance(value, list):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        if "tensor" in value:
            yield value
        else:
            for item in value.values():
                yield from tensors(item)


def faults(args: list[Any], kwargs: dict[str, Any], known: Set[str], several: Set[str]) -> Iterator[Found]:
    """What is wrong with the arguments of a call: pointers below {"args", "kwargs"}.

    Args:
        known: the tensors that there are, by the name of the input or call.
        several: those of them that are calls that give several.
    """
    for place, value in enumerate(args):
        yield from _faults(value, f"/args/{place}", DEEPEST, known, several)
    for key, value in kwargs.items():
        at = "/kwargs" + pointer(key)
        if key not in CALL_ARGUMENTS:
            yield at, "no layer is called with this", nearest(key, CALL_ARGUMENTS, "arguments")
        else:
            yield from _faults(value, at, DEEPEST, known, several)


def _faults(value: Any, at: str, deep: int, known: Set[str], several: Set[str]) -> Iterator[Found]:
    if not deep:
        yield at, f"nested deeper than {DEEPEST} levels", "take the lists apart"
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _faults(item, f"{at}/{place}", deep - 1, known, several)
    elif isinstance(value, dict):
        yield from _of_object(value, at, known, several)
    elif value is not None and not is_number(value):
        yield (
            at,
            "expected a tensor, a number, a slice, an array, true, false, null, or a list of these",
            '{"tensor": "NAME"} is a tensor',
        )


def _of_object(value: dict[str, Any], at: str, known: Set[str], several: Set[str]) -> Iterator[Found]:
    keys = value.keys()
    if "tensor" in keys and keys <= {"tensor", "output"}:
        yield from _of_tensor(value, at, known, several)
    elif keys == {"slice"}:
        ends = value["slice"]
        if not isinstance(ends, list) or len(ends) != 3 or not all(end is None or _is_whole(end) for end in ends):
            yield at + "/slice", "expected three whole numbers or nulls: start, stop, step", None
    elif keys == {"ellipsis"}:
        if value["ellipsis"] is not True:
            yield at + "/ellipsis", "expected true", None
    elif keys == {"array", "dtype"}:
        if value["dtype"] not in DTYPES:
            yield at + "/dtype", "expected a type of numbers", nearest(str(value["dtype"])[:64], DTYPES)
        if not _are_numbers(value["array"], 8):
            yield at + "/array", "expected numbers, or lists of them", None
    else:
        yield at, "expected a tensor, a slice, an ellipsis or an array", '{"tensor": "NAME"} is a tensor'


def _of_tensor(value: dict[str, Any], at: str, known: Set[str], several: Set[str]) -> Iterator[Found]:
    name = value["tensor"]
    if not isinstance(name, str) or name not in known:
        hint = nearest(name, known, "tensors") if isinstance(name, str) else None
        yield at + "/tensor", "there is no such input or earlier call", hint
    elif name in several:
        output = value.get("output")
        if type(output) is not int or not 0 <= output < MOST_OUTPUTS:
            yield at + "/output", "this call gives several tensors: expected the number of one, from 0", None
    elif value.get("output", 0) != 0 or isinstance(value.get("output"), bool):
        yield at + "/output", "this call gives one tensor", "leave it out"


def is_number(value: Any) -> bool:
    """Whether it is true, false or a number that may stand among the arguments."""
    return (
        isinstance(value, bool)
        or _is_whole(value)
        or (isinstance(value, float) and isfinite(value) and abs(value) <= LARGEST)
    )


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST_WHOLE


def _are_numbers(value: Any, deep: int) -> bool:
    return is_number(value) or (
        isinstance(value, list) and deep > 0 and all(_are_numbers(item, deep - 1) for item in value)
    )

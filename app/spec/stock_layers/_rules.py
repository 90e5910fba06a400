"""Rules for an argument of a stock layer: what it may be, as JSON. A rule answers what was expected, or None where a value fits."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

Rule = Callable[[Any], str | None]

LARGEST = 2**24
"""Units, filters, rows of an embedding, sides."""

MOST_VALUES = 2**16
"""In one list."""

LONGEST_TEXT = 128

ACTIVATIONS = frozenset(
    [
        "celu",
        "elu",
        "exponential",
        "gelu",
        "glu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "log_softmax",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softmax",
        "softplus",
        "softsign",
        "sparse_plus",
        "sparse_sigmoid",
        "sparsemax",
        "squareplus",
        "tanh",
        "tanh_shrink",
        "threshold",
    ]
)
"""Names in keras.activations."""

DTYPES = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "bool",
)


def whole(low: int, high: int = LARGEST, *, none: bool = False) -> Rule:
    expected = f"expected a whole number from {low} to {high}" + (" or null" if none else "")
    return lambda value: None if (none and value is None) or _whole(value, low, high) else expected


def number(low: float = -1e30, high: float = 1e30, *, none: bool = False) -> Rule:
    expected = f"expected a number from {low:g} to {high:g}" + (" or null" if none else "")
    return lambda value: None if (none and value is None) or _number(value, low, high) else expected


def numbers(low: float = -1e30, high: float = 1e30, *, most: int = MOST_VALUES, alone: bool = True) -> Rule:
    """A list of numbers, lists of such, or null; `alone`: or one number."""

    def check(value: Any) -> str | None:
        if value is None or (alone and _number(value, low, high)) or _list_of_numbers(value, low, high, most, 4):
            return None
        return f"expected numbers from {low:g} to {high:g}, at most {most} of them"

    return check


def wholes(low: int, high: int = LARGEST, *, most: int = 16, alone: bool = True, none: bool = False) -> Rule:
    """A list of whole numbers; `alone`: or one."""

    def check(value: Any) -> str | None:
        if (none and value is None) or (alone and _whole(value, low, high)):
            return None
        if isinstance(value, list) and len(value) <= most and all(_whole(item, low, high) for item in value):
            return None
        return f"expected whole numbers from {low} to {high}, at most {most} of them" + (", or null" if none else "")

    return check


def sides(low: int, high: int = LARGEST) -> Rule:
    """A list of whole numbers, null for those that are not fixed; or one number."""

    def check(value: Any) -> str | None:
        items = value if isinstance(value, list) else [value]
        fits = len(items) <= 16 and all((item is None and items is value) or _whole(item, low, high) for item in items)
        return None if fits else f"expected whole numbers from {low} to {high}, or null, at most 16 of them"

    return check


def pairs(low: int, high: int) -> Rule:
    """A whole number, a list of them, or a list of pairs: paddings and croppings."""

    def check(value: Any) -> str | None:
        items = value if isinstance(value, list) else [value]
        fits = len(items) <= 8 and all(
            _whole(item, low, high)
            or (isinstance(item, list) and len(item) == 2 and all(_whole(side, low, high) for side in item))
            for item in items
        )
        return None if fits else f"expected whole numbers from {low} to {high}, or a pair of them for each side"

    return check


def one_of(*options: str | bool | int | None) -> Rule:
    shown = ", ".join("null" if option is None else str(option) for option in options)

    def check(value: Any) -> str | None:
        fits = any(value is option or (type(value) is type(option) and value == option) for option in options)
        return None if fits else f"expected one of: {shown}"

    return check


def text(pattern: str) -> Rule:
    """A short text of the characters in `pattern` alone."""
    allowed = frozenset(pattern)

    def check(value: Any) -> str | None:
        if isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and allowed.issuperset(value):
            return None
        return f"expected a text of at most {LONGEST_TEXT} of these characters: {pattern}"

    return check


def activation(value: Any) -> str | None:
    """A name of an activation, or null."""
    return (
        None
        if value is None or (isinstance(value, str) and value in ACTIVATIONS)
        else "expected the name of an activation"
    )


def any_of(*rules: Rule) -> Rule:
    def check(value: Any) -> str | None:
        said = [rule(value) for rule in rules]
        return None if None in said else ", or ".join(filter(None, said))

    return check


BOOL = one_of(True, False)
AXIS = whole(-16, 16)
AXES = wholes(-16, 16, none=True)
DTYPE = one_of(None, *DTYPES)
LAST = one_of(None, "channels_last")
RATE = number(0, 1)


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high and isfinite(value)


def _list_of_numbers(value: Any, low: float, high: float, most: int, deep: int) -> bool:
    if not isinstance(value, list) or len(value) > most or not deep:
        return False
    return all(_number(item, low, high) or _list_of_numbers(item, low, high, most, deep - 1) for item in value)

"""Names in a graph: made valid, and each given once."""

from __future__ import annotations

import re

from app.spec.architectures.keras_graph import RESERVED

LONGEST = 128


class Names:
    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def new(self, wanted: str, otherwise: str) -> str:
        """`wanted` as a name that was not given before: other letters than A-Z, a-z, 0-9, "_", "." and "-" become "_".

        Args:
            otherwise: where nothing is left of it.
        """
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted).lstrip("_.-")[: LONGEST - 8]
        base = base or re.sub(r"[^A-Za-z0-9]", "", otherwise)[:64] or "layer"
        base = f"own-{base}" if RESERVED.fullmatch(base) else base
        name, number = base, self._given.get(base, 0)
        while name in self._given:
            number += 1
            name = f"{base}-{number + 1}"
        self._given[base] = number
        self._given.setdefault(name, 0)
        return name


def snake_case(name: str) -> str:
    """The name of a class as Keras writes it in paths."""
    if name == "GroupQueryAttention":  # what keras.layers calls it; the class itself is
        name = "GroupedQueryAttention"
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

"""Discriminative learning rates: lower layers learn more slowly (Howard and Ruder 2018, section 3.2: η of a layer is η of the next / 2.6).

An optimizer whose every update, weight decay included, uses its rate times the variable's factor. Unlike one optimizer for each
layer, it clips gradients by their global norm and has one step counter, one schedule and one loss scale; with factors of 1 it computes
the same as the plain optimizer, bit by bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def pattern(layer: str) -> str:
    """Matches the paths of a layer's variables."""
    return rf"{re.escape(layer)}/.+"


def factors_of(paths: Sequence[str], patterns: Mapping[str, float]) -> tuple[float, ...]:
    """The factor of each variable, by the one pattern that matches its whole path.

    Raises:
        ValueError: a pattern matches nothing, or a path is matched by none or by several.
    """
    matching = {path: [regex for regex in patterns if re.fullmatch(regex, path)] for path in paths}
    odd = [f"{path} matches {len(hits)} patterns" for path, hits in matching.items() if len(hits) != 1]
    used = {regex for hits in matching.values() for regex in hits}
    odd += [f"{regex!r} matches no trained variable" for regex in patterns if regex not in used]
    if odd:
        raise ValueError(f"learning rates must name each trained variable once: {'; '.join(odd)}")
    return tuple(patterns[matching[path][0]] for path in paths)


def scaled(kind: Any, patterns: Mapping[str, float]) -> Any:
    """The optimizer class `kind`, with the rate of each variable multiplied by the factor of its pattern."""

    class Scaled(kind):
        _factor = 1.0

        def build(self, variables: Any) -> None:
            self._factors = factors_of([variable.path for variable in variables], patterns)
            super().build(variables)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            super().update_step(gradient, variable, _times(learning_rate, self._of(variable)))

        def _apply_weight_decay(self, variables: Any) -> None:
            for variable in variables:
                self._factor = self._of(variable)
                super()._apply_weight_decay([variable])
            self._factor = 1.0

        def _get_current_learning_rate(self) -> Any:
            return _times(super()._get_current_learning_rate(), self._factor)

        def _of(self, variable: Any) -> float:
            return self._factors[self._get_variable_index(variable)]

    Scaled.__name__ = kind.__name__
    return Scaled


def plain(optimizer: Any) -> Any:
    """The optimizer that a scaling of losses wraps, or itself: it has the rate."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _times(rate: Any, factor: float) -> Any:
    return rate if factor == 1.0 else rate * factor

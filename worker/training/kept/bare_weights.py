"""The numbers of a network out of a file that has numbers alone: matched, and where that was asked for completed by drawn ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from app.data.lists import times
from app.spec.adopted import Head
from app.spec.faults import MOST, Fault, Invalid
from app.spec.imports import MisshapenArray, NamedArray, WeightsReport
from app.spec.named_weights import WeightsOrder
from worker.training.kept import matching
from worker.training.networks import build, initial
from worker.training.networks.network import Network, Weights

T = TypeVar("T")

SAYS_PARTIAL = "or say -F partial=true"
LEFT_OUT = 20
"""Arrays that a note names."""


def read(network: Network, heads: Sequence[Head], path: Path, order: WeightsOrder) -> tuple[Weights, WeightsReport]:
    """The numbers of `network`, by layer, as its Keras layers hold them, and what became of each array of the file.

    Args:
        network: without numbers.
        path: the npz of the arrays that `order` names.

    Raises:
        Invalid: the file has others than the network, and it was not said that this is meant; each of them is named.
    """
    clash = [head.task for head in heads if any(name in network.trace.by_name for name in head.layers.values())]
    if clash:
        message = f"layers of the architecture are called as those of the head {clash[0]}"
        raise Invalid([Fault("/target", message, "give the task another name", "name_taken")])
    layers = build.keras_layers(network)
    of_two = {head.layers["logits"] for head in heads if head.of_two}
    matched = matching.match(layers, network.trace, order.arrays, of_two, leftover=order.leftover)
    faults = list(_faults(matched.report, order))
    if faults:
        raise Invalid(faults)
    weights = initial.initial(layers, order.seed)
    with np.load(path, allow_pickle=False) as stored:
        for name, pairs in matched.pairs.items():
            for number, array in pairs.items():
                weights[name][number] = stored[str(array)].astype(np.float32)
    for name in of_two & weights.keys():
        kernel, bias = weights[name][0], weights[name][1:]
        if any(part.shape[-1] != kernel.shape[-1] for part in bias):  # the one was sent and the other drawn
            weights[name][1:] = [np.zeros(kernel.shape[-1], np.float32)]
    return weights, matched.report


def notes(report: WeightsReport, order: WeightsOrder) -> Iterator[str]:
    """What was decided, in sentences."""
    by_order = sum(array.by == "order" for array in report.matched)
    if by_order:
        yield (
            f"{by_order} of {len(report.matched)} arrays have layers of other names in the file, or of names that Keras counts: they were "
            "matched by the order of the layers of each class (`weights.matched`, by: order)"
        )
    if report.unmatched_in_file:
        yield f"left out of the file: {_named(report.unmatched_in_file)}"
    drawn = [*report.unmatched_in_network, *(_as_variable(array) for array in report.of_another_shape)]
    if drawn:
        yield f"drawn with seed {order.seed}, since the file does not have them: {_named(drawn)}"


def _named(arrays: Sequence[NamedArray]) -> str:
    more = f", … {len(arrays) - LEFT_OUT} more in `weights`" if len(arrays) > LEFT_OUT else ""
    return ", ".join(_shown(array) for array in arrays[:LEFT_OUT]) + more


def _as_variable(array: MisshapenArray) -> NamedArray:
    return NamedArray(name=array.variable, shape=array.expected)


def _shown(array: NamedArray) -> str:
    return f"{array.name} ({times(array.shape) or 'a number'})"


def _faults(report: WeightsReport, order: WeightsOrder) -> Iterator[Fault]:
    """All that does not match, each array by name; several in one fault where they are more than an answer has faults."""
    if not report.matched:
        message = "no array of the file fits a variable of the network"
        yield Fault("/architecture", message, "name the architecture that the file was saved from", "weights")
    if order.partial:
        return
    extra = [] if order.leftover else report.unmatched_in_file
    total = len(report.of_another_shape) + len(report.unmatched_in_network) + len(extra)
    at_once = -(-total // (MOST - 4)) or 1
    for wrong in _bundles(report.of_another_shape, at_once):
        told = "; ".join(
            f"{array.array} is {times(array.shape) or 'a number'}, the network's {array.variable} "
            f"{times(array.expected) or 'a number'}"
            for array in wrong
        )
        yield Fault("/weights", f"of another shape: {told}", f"{wrong[0].hint}; {SAYS_PARTIAL}", "wrong_shape")
    for missing in _bundles(report.unmatched_in_network, at_once):
        hint = f"send a file that has it, {SAYS_PARTIAL}, and `seed` draws it; -F classes=none keeps the trunk without heads"
        yield Fault("/weights", f"the file has nothing for {', '.join(map(_shown, missing))}", hint, "missing")
    for more in _bundles(extra, at_once):
        hint = f"name the architecture that the file was saved from, {SAYS_PARTIAL}, and it is left out"
        yield Fault("/weights", f"the network has no {', '.join(map(_shown, more))}", hint, "unknown_member")


def _bundles(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

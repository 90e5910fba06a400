"""Calls of functions of rows, one at a time, first come first served. Rows that wait for the same function are answered by one call."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Answers = dict[str, NDArray[np.float32]]
"""By name, each with a first axis as long as the rows'."""


class Function(Protocol):
    """A row's answer does not depend on the rows beside it."""

    @property
    def rows_at_once(self) -> int:
        """The most that a call may be given."""

    def __call__(self, rows: Rows) -> Answers: ...


@dataclass(eq=False)
class _Asked:
    """Rows that a thread waits for the answers of. `told`: the answers, or why there are none."""

    function: Function
    rows: Rows
    told: Answers | BaseException | None = None


class Turns:
    """There is no thread of its own: whoever waits while nobody calls, makes the next call, for whomever it is."""

    def __init__(self) -> None:
        self._waiting: list[_Asked] = []
        self._called = False
        self._changed = threading.Condition()

    def answers(self, function: Function, rows: Rows) -> Answers:
        """The answers to at most `rows_at_once` rows. Waits for no others: what is asked on its own is called at once.

        Raises:
            Exception: the function's own; only to those whose rows it cannot answer.
        """
        asked = _Asked(function, rows)
        with self._changed:
            self._waiting.append(asked)
        while together := self._next(asked):
            try:
                _call(together)
            finally:
                with self._changed:
                    self._called = False
                    self._changed.notify_all()
        if isinstance(asked.told, BaseException):
            raise asked.told
        assert asked.told is not None, "it waits until it has been told"
        return asked.told

    def _next(self, asked: _Asked) -> list[_Asked]:
        """What this thread has to call next: the one that has waited longest, and all that fit into a call with it. Nothing once `asked`
        has been told."""
        with self._changed:
            self._changed.wait_for(lambda: asked.told is not None or not self._called)
            if asked.told is not None:
                return []
            first = self._waiting[0]
            self._called = True
            together, room = list[_Asked](), first.function.rows_at_once
            for one in self._waiting:
                if one.function is first.function and (one is first or len(one.rows) <= room):
                    together.append(one)
                    room -= len(one.rows)
            self._waiting = [one for one in self._waiting if one not in together]
            return together


def _call(together: Sequence[_Asked]) -> None:
    """Tells each of them something, whatever happens: who was told nothing would wait for ever."""
    ends = np.cumsum([len(one.rows) for one in together]).tolist()
    pairs = list(zip(together, ends, strict=True))
    try:
        answers = together[0].function(np.concatenate([one.rows for one in together]))
        parts = [{name: answer[end - len(one.rows) : end] for name, answer in answers.items()} for one, end in pairs]
    except BaseException as error:
        if len(together) == 1:
            together[0].told = error
        else:  # one of them is the reason
            for one in together:
                _call([one])
        return
    for one, part in zip(together, parts, strict=True):
        one.told = part

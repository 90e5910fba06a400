"""Turns: who is called when, with whom together, and who is told of a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from worker.turns import Answers, Rows, Turns


@dataclass(eq=False)
class Double:
    """Twice the rows. Holds its first call until `go` is set; a row of -1 fails."""

    rows_at_once: int = 8
    name: str = "one"
    calls: list[list[float]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, rows: Rows) -> Answers:
        self.calls.append(rows.ravel().tolist())
        self.begun.set()
        assert self.go.wait(30)
        if (rows == -1).any():
            raise ValueError("a row of -1")
        return {"twice": 2 * rows}


def rows(*numbers: float) -> Rows:
    return np.array(numbers, np.float32)[:, None]


class Asking:
    """Requests of as many threads, in the order in which they are made."""

    def __init__(self) -> None:
        self.turns, self._threads, self.count = Turns(), ThreadPoolExecutor(40), 0

    def ask(self, function: Double, *numbers: float) -> Future[Answers]:
        asked = self._threads.submit(self.turns.answers, function, rows(*numbers))
        if self.count == 0:
            assert function.begun.wait(30)  # it is being called; those that follow wait
        else:
            until = time.monotonic() + 30
            while len(self.turns._waiting) < self.count:
                assert time.monotonic() < until
                time.sleep(0.001)
        self.count += 1
        return asked


def told(asked: Sequence[Future[Answers]]) -> list[list[float]]:
    return [future.result(30)["twice"].ravel().tolist() for future in asked]


def test_who_asks_alone_is_called_at_once_and_alone() -> None:
    function = Double()
    function.go.set()
    turns = Turns()
    assert [turns.answers(function, rows(one))["twice"].tolist() for one in (1, 2)] == [[[2]], [[4]]]
    assert function.calls == [[1], [2]]


def test_rows_that_wait_for_the_same_function_are_called_together_and_each_is_told_its_own() -> None:
    function, asking = Double(), Asking()
    asked = [asking.ask(function, *numbers) for numbers in ([1], [2, 3], [4], [5, 6, 7])]
    function.go.set()
    assert told(asked) == [[2], [4, 6], [8], [10, 12, 14]]
    assert function.calls == [[1], [2, 3, 4, 5, 6, 7]]


def test_first_come_first_served_whatever_the_function() -> None:
    order = list[str]()

    class Noted(Double):
        def __call__(self, rows: Rows) -> Answers:
            order.append(f"{self.name}: {rows.ravel().tolist()}")
            return super().__call__(rows)

    one, other, asking = Noted(), Noted(name="other"), Asking()
    other.go.set()
    asked = [asking.ask(*each) for each in ((one, 1), (other, 2), (one, 3), (other, 4), (one, 5))]
    one.go.set()
    assert told(asked) == [[2], [4], [6], [8], [10]]
    assert order == ["one: [1.0]", "other: [2.0, 4.0]", "one: [3.0, 5.0]"]


def test_a_call_has_no_more_rows_than_the_function_takes_and_who_does_not_fit_is_next() -> None:
    function, asking = Double(rows_at_once=4), Asking()
    asked = [asking.ask(function, *numbers) for numbers in ([0], [1, 2, 3], [4, 5, 6, 7], [8])]
    function.go.set()
    told(asked)
    assert function.calls == [[0], [1, 2, 3, 8], [4, 5, 6, 7]]


def test_only_the_one_that_fails_is_told_so() -> None:
    function, asking = Double(), Asking()
    asked = [asking.ask(function, *numbers) for numbers in ([1], [2], [3, -1], [4])]
    function.go.set()
    with pytest.raises(ValueError, match="a row of -1"):
        asked.pop(2).result(30)
    assert told(asked) == [[2], [4], [8]]
    assert asking.turns.answers(function, rows(9))["twice"].tolist() == [[18]]


def test_many_threads_are_each_told_their_own() -> None:
    functions, turns = [Double(16), Double(5)], Turns()
    for function in functions:
        function.go.set()

    def ask(number: int) -> bool:
        mine = np.random.default_rng(number).random((1 + number % 5, 1), np.float32)
        return bool((turns.answers(functions[number % 2], mine)["twice"] == 2 * mine).all())

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(ask, range(1000)))
    assert max(len(call) for call in functions[1].calls) <= 5


@pytest.mark.parametrize("ends_with", [SystemExit(3), None])
def test_whatever_ends_a_call_everybody_is_told_and_the_next_are_answered(ends_with: BaseException | None) -> None:
    """An exit, or an answer that has no rows to be divided."""

    class Breaks(Double):
        def __call__(self, rows: Rows) -> Answers:
            answers = super().__call__(rows)
            if (rows == 7).any():
                if ends_with is not None:
                    raise ends_with
                return {"twice": np.float32(1)}  # type: ignore[dict-item]
            return answers

    function, asking = Breaks(), Asking()
    asked = [asking.ask(function, number) for number in (1, 7, 3)]
    function.go.set()
    assert told([asked[0], asked[2]]) == [[2], [6]]
    with pytest.raises((SystemExit, IndexError, TypeError)):
        asked[1].result(30)
    assert asking.turns.answers(function, rows(5))["twice"].tolist() == [[10]]

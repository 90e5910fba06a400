"""A measurement's figures, its goal and its line in the table; and how two or more things are timed in turns."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Literal

from benchmarks.rivals.answering import seconds_a_step

LEAST_SECONDS = 1.5
"""Of one measurement."""

Steps = Callable[[int], int]
"""Makes at least so many steps and returns their true number."""

HEAD = ["| work | against | measured | goal | beside |", "|---|---|---|---|---|"]


@dataclass(frozen=True)
class Goal:
    """`way` "least": the median is to be `value` or more; "most": `value` or less."""

    way: Literal["least", "most"]
    value: float

    def reached(self, median: float) -> bool:
        return median >= self.value if self.way == "least" else median <= self.value

    def told(self, median: float, unit: str) -> str:
        sign = "≥" if self.way == "least" else "≤"
        return f"{sign} {self.value:g}{unit}, {'reached' if self.reached(median) else 'not reached'}"


@dataclass(frozen=True)
class Result:
    """`values`: one a round, each a ratio of two measurements of that round, or what `unit` says. `beside`: what else is worth knowing."""

    work: str
    against: str
    values: Sequence[float]
    goal: Goal | None = None
    beside: str = ""
    unit: str = "×"

    def line(self) -> str:
        goal = "" if self.goal is None else self.goal.told(statistics.median(self.values), self.unit)
        return f"| {self.work} | {self.against} | {quartiles(self.values, self.unit)} | {goal} | {self.beside} |"


@dataclass(frozen=True)
class NotRun:
    """A measurement that this machine cannot make, and the reason."""

    work: str
    against: str
    reason: str
    goal: str = ""

    def line(self) -> str:
        return f"| {self.work} | {self.against} | not run: {self.reason} | {self.goal} | |"


Results = Iterator[Result | NotRun]


def quartiles(values: Sequence[float], unit: str = "×") -> str:
    """The median and, between brackets, the quartiles. Of equal values, or one, the value alone."""
    middle = statistics.median(values)
    if min(values) == max(values):
        return f"**{middle:.4g}{unit}**"
    low, _, high = statistics.quantiles(values, n=4)
    return f"**{middle:.2f}{unit}** ({low:.2f} to {high:.2f})"


def over(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Each of `ones` divided by the one of `others` from the same round."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def in_turns(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm gives in each round, the arms one after another within a round.

    Each round begins with another arm: a machine that grows slower in the course of a round disturbs all alike.
    """
    names, found = list(arms), {arm: list[float]() for arm in arms}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(arms[name]())
    return found


def timed(arms: Mapping[str, Steps], rounds: int) -> dict[str, list[float]]:
    """Seconds a step in each round, once all is compiled and a fit knows how many steps it makes in a call."""

    def measure(go: Steps) -> Callable[[], float]:
        return warm(lambda: seconds_a_step(go, LEAST_SECONDS))

    return in_turns({arm: measure(go) for arm, go in arms.items()}, rounds)


def warm(measure: Callable[[], float]) -> Callable[[], float]:
    """A measurement that has been made twice: the first may be over once all is compiled."""
    measure()
    measure()
    return measure


def command(only: Sequence[str], rounds: int) -> str:
    """The command that measures these rows; none: all."""
    chosen = f" --only {' '.join(only)}" if only else ""
    return f"python -m benchmarks.performance{chosen} --rounds {rounds} --write docs/performance.md"


def page(how: Sequence[str], command: str, rounds: int, found: Sequence[Result | NotRun]) -> str:
    """The table with the machine, the versions and the date. `how`: paragraphs on what was measured."""
    about = f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} processor cores, {platform.machine()}, Python {platform.python_version()}, "
    about += f"TensorFlow {metadata.version('tensorflow')}, Keras {metadata.version('keras')}; {rounds} rounds"
    ways = "Where the goal is a least number, the ratio is the other's time by the service's: above 1 the service is faster. Where it is a "
    ways += "most number, it is the service's by the other's, or what its unit says."
    paragraphs = [" ".join(paragraph.split()) for paragraph in how]
    table = "\n".join([*HEAD, *(result.line() for result in found)])
    return "\n\n".join(["# Speed, measured", f"`{command}`: {about}.", *paragraphs, ways, table]) + "\n"

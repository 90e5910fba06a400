"""Rows of the table: how long a step takes, and a short fit with its compilation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.performance import fits, programs
from benchmarks.performance.programs import FORMER, ROOT, Bench
from benchmarks.performance.results import LEAST_SECONDS, Goal, Result, Results, in_turns, over, timed, warm

SHORT = 50
"""Steps of a short fit."""

BARE_GOALS = {"mlp": 0.9, "mlp-short": 0.9, "cnn10": 0.95, "cnn64": 0.95, "mobile": 0.95}
FORMER_GOALS = {"mlp": 15.0, "mlp-short": 15.0, "cnn10": 1.0, "cnn64": 1.0, "mobile": 1.0}
COST_GOAL = 1.7
"""Of a step whose tasks' gradients are weighed."""

AUGMENTED = "cnn64"


def steps(bench: Bench, name: str) -> Results:
    """In one process: against the same with a call of TensorFlow for each step, and against a bare compiled loop."""
    case = fits.CASES[name]
    arms = {"service": fits.service(case), "call": fits.service(case, many=False), "bare": fits.bare(case)}
    times = timed(arms, bench.rounds)
    fits.forget()
    mine = times["service"]
    beside = f"{1000 * statistics.median(mine):.2f} ms a step"
    yield Result(case.what, "a call for each step", over(times["call"], mine), beside=beside)
    yield Result(case.what, "a bare loop", over(times["bare"], mine), Goal("least", BARE_GOALS[name]))


def weighted(bench: Bench, name: str) -> Results:
    """The same of several tasks with a weighting, and what a step costs above one with equal weights."""
    of_gradients = name != "uncertainty"
    case = fits.CASES["mlp-short" if of_gradients else "mlp"]
    arms = {
        f"{weighting} {many}": fits.service(case, many=many, weighting=weighting)
        for weighting in (name, "equal")
        for many in (True, False)
    }
    times = timed(arms, bench.rounds)
    fits.forget()
    mine, alone, equal = (times[arm] for arm in (f"{name} True", f"{name} False", "equal True"))
    what = f"{case.what}, {fits.TASKS} tasks, `{name}`"
    yield Result(what, "a call for each step", over(alone, mine))
    yield Result(what, "equal weights", over(mine, equal), Goal("most", COST_GOAL) if of_gradients else None)


def against_former(bench: Bench, name: str) -> Results:
    """Against the loop at `FORMER`, each in a process of its own."""
    name = name.removeprefix("former-")
    with both(bench, name) as (present, former):
        times = in_turns({"present": asking(present), "former": asking(former)}, bench.rounds)
    yield Result(
        fits.CASES[name].what,
        f"the loop at {FORMER}",
        over(times["former"], times["present"]),
        Goal("least", FORMER_GOALS[name]),
        f"{1000 * statistics.median(times['present']):.2f} ms a step",
    )


def augmented(bench: Bench, name: str) -> Results:  # noqa: ARG001
    """With rows that are flipped, shifted, turned and zoomed, against the code at `FORMER`, each in a process of its own."""
    with both(bench, AUGMENTED, fits.AUGMENTATION) as (present, former):
        times = in_turns({"present": asking(present), "former": asking(former)}, bench.rounds)
    yield Result(
        f"{fits.CASES[AUGMENTED].what}: flip, shift, turn, zoom",
        f"the loop at {FORMER}",
        over(times["former"], times["present"]),
        Goal("least", 1.3),
        f"{1000 * statistics.median(times['present']):.2f} ms a step",
    )


def fresh(bench: Bench, name: str) -> Results:
    """A fit of 50 steps from nothing, layers and compilation included, against the loop at `FORMER`, each in a process of its own.

    Both have made such a fit before, which is not counted: so has the service's spare process, before its first job comes.
    """
    name = name.removeprefix("fresh-")
    with both(bench, name) as (present, former):
        asked: dict[str, Callable[[], float]] = {
            "present": lambda: present(f"fresh {SHORT}"),
            "former": lambda: former(f"fresh {SHORT}"),
        }
        for ask in asked.values():
            ask()
        times = in_turns(asked, bench.rounds)
    yield Result(
        f"{fits.CASES[name].what}: a fit of {SHORT} steps with its compilation",
        f"the loop at {FORMER}",
        over(times["former"], times["present"]),
        Goal("least", 1.0),
        f"{statistics.median(times['present']):.2f} s",
    )


@contextmanager
def both(
    bench: Bench, name: str, augmentation: Sequence[dict[str, str]] = ()
) -> Iterator[tuple[Callable[[str], float], Callable[[str], float]]]:
    """The present code and the former one, each with the same fit."""
    former = bench.former
    file = bench.place / f"{name}.npz"
    fits.written(fits.CASES[name], augmentation, file)
    present = programs.present_side(name, *(["augmented"] if augmentation else []))
    commands = {"present": (present, ROOT), "former": (programs.former_side(file), former)}
    with programs.sides(commands) as asked:
        yield asked["present"], asked["former"]


def asking(side: Callable[[str], float]) -> Callable[[], float]:
    """What asks a side for the seconds of a step."""
    return warm(lambda: side(f"steps {LEAST_SECONDS}"))

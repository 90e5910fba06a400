"""A program that is timed in turns with others: it answers each line on its standard input with a number. No imports but Python's own.

`steps SECONDS`: makes steps for about so long, and answers with the seconds of one. `fresh N`: a fit of N steps from nothing, compilation
included, and its seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

ENDLESS = 10**9


def answer(begin: Callable[[int], Callable[[int], int]], forget: Callable[[], None]) -> None:
    """`begin`: a new fit of so many steps at most, whose function makes at least as many as it is asked for and returns their number.
    `forget`: frees what fits have left."""
    go: Callable[[int], int] | None = None
    print("ready", flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "fresh":
            go = None
            forget()
            begun = time.perf_counter()
            fit, done = begin(int(number)), 0
            while done < int(number):
                done += fit(1)
            seconds = time.perf_counter() - begun
        else:
            go = go or begin(ENDLESS)
            seconds = seconds_a_step(go, float(number))
        print(repr(seconds), flush=True)


def seconds_a_step(go: Callable[[int], int], seconds: float) -> float:
    """Of the steps that are made in about so long."""
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        done += go(1)
    return (time.perf_counter() - begun) / done

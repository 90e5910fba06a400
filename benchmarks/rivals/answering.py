"""A program that is timed in turns with others: it answers each line on its standard input with a number. No imports but Python's own.

`steps SECONDS`: makes steps for about so long, and answers with the seconds of one. `fresh N`: a fit of N steps from nothing, compilation
included, and its seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def answer(begin: Callable[[], Callable[[int], int]], forget: Callable[[], None]) -> None:
    """`begin`: a new fit, whose function makes at least so many steps and returns their number. `forget`: frees what fits have left."""
    go: Callable[[int], int] | None = None
    print("ready", flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "fresh":
            go = None
            forget()
            begun = time.perf_counter()
            fit, done = begin(), 0
            while done < int(number):
                done += fit(1)
            seconds = (time.perf_counter() - begun) * int(number) / done
        else:
            go = go or begin()
            begun, done = time.perf_counter(), 0
            while time.perf_counter() - begun < float(number):
                done += go(1)
            seconds = (time.perf_counter() - begun) / done
        print(repr(seconds), flush=True)

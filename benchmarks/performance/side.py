"""The service's fits in a process of their own, timed in turns with another program.

`python -m benchmarks.performance.side CASE [augmented | weighting NAME]`
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.performance import fits
from benchmarks.rivals.answering import answer
from worker.training.process import device


def main() -> None:
    device.import_keras()
    device.prepare()
    name, *more = sys.argv[1:]
    chosen: dict[str, Any] = {}
    if more[:1] == ["augmented"]:
        chosen = {"augmentation": fits.AUGMENTATION}
    elif more[:1] == ["weighting"]:
        chosen = {"weighting": more[1]}
    answer(lambda steps: fits.service(fits.CASES[name], steps=steps, **chosen), fits.forget)


if __name__ == "__main__":
    main()

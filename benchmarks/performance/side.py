"""The service's fits in a process of their own, timed in turns with another program: `python -m benchmarks.performance.side CASE [augmented]`."""

from __future__ import annotations

import sys

from benchmarks.performance import fits
from benchmarks.rivals.answering import answer
from worker.training.process import device


def main() -> None:
    device.import_keras()
    device.prepare()
    case = fits.CASES[sys.argv[1]]
    augmentation = fits.AUGMENTATION if "augmented" in sys.argv[2:] else ()
    answer(lambda: fits.service(case, augmentation=augmentation), fits.forget)


if __name__ == "__main__":
    main()

"""One job as by command line, its seconds counted from when Keras is imported: `python -m benchmarks.performance.job job.json out/`.

The last line on standard output is the number of seconds.
"""

from __future__ import annotations

import os
import sys
import time

from worker.training.process import device


def main() -> int:
    device.import_keras()
    own = os.dup(1)  # the trainer takes standard output for itself
    begun = time.perf_counter()
    from worker.training import trainer

    status = trainer.main(sys.argv[1:])
    os.write(own, f"{time.perf_counter() - begun}\n".encode())
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The trainer: one job, then exit.

`python -m worker.training job.json out/` trains with no server: a job as POST /v1/jobs takes it, or an assignment.
`python -m worker.training --spare` imports Keras, says that it is ready, and waits for one assignment on its standard input.
"""

from __future__ import annotations

import sys

from worker.training.process import guard

if __name__ == "__main__":
    if sys.argv[1:] == ["--spare"]:
        guard.start()
    from worker.training import trainer

    sys.exit(trainer.main(sys.argv[1:]))

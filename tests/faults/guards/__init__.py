"""What in the source must not go missing, and what turns red when it does (`tests/faults/mutation.py`)."""

from tests.faults.guards import archives, causes, jobs, model_files, requests, serving, sounds, tables, words
from tests.faults.guards.guard import Guard

__all__ = ["GUARDS", "Guard"]

GUARDS: tuple[Guard, ...] = (
    *jobs.GUARDS,
    *causes.GUARDS,
    *requests.GUARDS,
    *words.GUARDS,
    *serving.GUARDS,
    *tables.GUARDS,
    *sounds.GUARDS,
    *archives.GUARDS,
    *model_files.GUARDS,
)

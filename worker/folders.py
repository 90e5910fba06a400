"""The working folders of jobs: what an attempt inherits of those before it, and what is tidied up."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Container
from pathlib import Path

from app.settings import settings


def checkpoints(home: Path, attempt: int, recorded: Container[str]) -> Path:
    """This attempt's own folder, with the checkpoints of earlier ones that were `recorded` with all that led to them.

    A trainer outlives a worker that is merely frozen: its later checkpoints count for nothing, and nobody reads them here.
    """
    own = home / f"checkpoints-{attempt}"
    own.mkdir(parents=True, exist_ok=True)
    earlier = [home / f"checkpoints-{number}" for number in range(attempt - 1, 0, -1)]
    for folder in (folder for folder in earlier if folder.is_dir()):
        for entry in sorted(folder.iterdir()):
            if not (own / entry.name).exists() and (entry.is_file() or entry.name in recorded):
                with contextlib.suppress(OSError):  # its trainer has just removed it
                    entry.rename(own / entry.name)
        shutil.rmtree(folder, ignore_errors=True)
    return own


def forget_finished(is_over: Callable[[str], bool], folder: Path | None = None) -> None:
    """Removes working folders of jobs that are over: a killed worker left them, or the job was cancelled between two attempts."""
    folder = folder or settings().jobs_dir
    for home in folder.glob("job_*"):
        if is_over(home.name):
            shutil.rmtree(home, ignore_errors=True)


def forget_half_written(older_than: float = 3600.0) -> None:
    """Removes files that killed programs left in the folders for temporary files; nothing is written for as long as an hour."""
    oldest = time.time() - older_than
    for entry in (*(settings().store / "tmp").glob("*"), *(settings().home / "tmp").glob("*")):
        with contextlib.suppress(OSError):  # another worker tidies up as well
            if entry.lstat().st_mtime >= oldest:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()

"""The names of tasks: those of layers of a kept model, so no two layers may want the same one."""

from __future__ import annotations

import re

# Names that other layers of a kept model have: a task's output layer bears the task's name.
TAKEN = re.compile(
    r"input(_(shrunk|flattened|averaged|restored|repeated))?|resize(_\d+)?|preprocessing(_mean|_std)?|(head_)?flatten|"
    r"backbone(_scaled)?|(conv|dense|norm|activation|dropout|pool|relu)\d+",
    re.ASCII,
)


def task_name(column: str) -> str:
    """A column's name made fit for a task and its layers: letters, digits and underscores, and no other layer's name."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_")[:60]
    name = plain if plain[:1].isalpha() else f"task_{plain}".rstrip("_")
    return f"{name[:59]}_task" if TAKEN.fullmatch(name) else name

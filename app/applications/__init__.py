"""What the service is for, as jobs: a body for each application, on data that is always there. Nothing else is imported.

Each file in `bodies` is a body of POST /v1/jobs as it stands; `examples/jobs` in the repository is the same folder.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

_BODIES = Path(__file__).with_name("bodies")


@cache
def bodies() -> dict[str, dict[str, Any]]:
    """{application: the body of its job}, in order. A body's `name` says in words what it shows."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(_BODIES.glob("*.json"))}

"""What docs/extending.md shows, as files: tests run them, so that the page cannot be wrong."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"

FILES = dict(re.findall(r"(?ms)^`team/([\w/]+\.py)`\n\n```python\n(.*?)^```$", PAGE.read_text()))
"""The files of a team's package, as the documentation has them."""

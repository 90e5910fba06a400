"""Which files belong together: pictures of one patient, cuttings of one photograph, recordings of one speaker, as folders and names say.

Rows that belong together and stand on both sides of a split flatter a model: what it saw of one it knows of the
other. A guess by names can be wrong, so it is a column that a split may go by, and said to be one; nothing is split
by it unasked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

GROUP = "group"

_LAST_PART = re.compile(r"([ _.-]+(copy|aug|crop|part|frame|seg|rot|flip)?[ _.-]*\(?\d+\)?)$", re.IGNORECASE)
LEAST_GROUPS, LEAST_SHARE = 5, 0.5
"""So many groups, and this share of the files in groups of several, make a guess worth its while."""


def of(names: Sequence[str], labels: Sequence[Mapping[str, str]]) -> tuple[list[str], str] | None:
    """A word for each file, alike for those that belong together, and how it was found; None where names show nothing.

    Args:
        names: paths within the archive. labels: what each file is by its place.
    """
    folders = [name.rpartition("/")[0] for name in names]
    by_folder = Counter(folders)
    classes = {(row.get("split"), row.get("label")) for row in labels}
    if len(by_folder) > len(classes) and _worth(by_folder, len(names)):
        example = by_folder.most_common(1)[0][0]
        return folders, f"files of one folder, such as {example}, are one group"
    stems = [_stem(name) for name in names]
    by_stem = Counter(stems)
    if _worth(by_stem, len(names)) and max(by_stem.values()) <= len(names) // LEAST_GROUPS:
        example = by_stem.most_common(1)[0][0].rpartition("/")[2]
        return stems, f"files whose names begin alike, such as {example}, are one group"
    return None


def _stem(name: str) -> str:
    """The file's name without its ending and without what numbers it; of whichever folder, for one photograph may have parts in several."""
    whole = name.rpartition("/")[2].rpartition(".")[0]
    return _LAST_PART.sub("", whole) or whole


def _worth(groups: Counter[str], files: int) -> bool:
    several = sum(count for count in groups.values() if count > 1)
    return len(groups) >= LEAST_GROUPS and several >= LEAST_SHARE * files

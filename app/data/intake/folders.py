"""Which member of an archive is which row: class folders, or a metadata file that names each file and its columns.

    cats/1.jpg  dogs/2.jpg                       the first folder is the row's `label`
    train/cats/1.jpg  test/dogs/2.jpg            … below train, val and test, which become the column `split`
    metadata.csv (file_name,age,…)  a/1.jpg …    a metadata file gives the columns; folder names are then no labels

One folder around it all is looked through. Every file that is no row is counted, with why.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.data.boxes import Annotated
from app.data.intake import groups
from app.data.intake.archive import Member
from app.data.names import fault_in_name, shown
from app.data.tabular import Frame
from app.data.tabular.parts import Parts
from app.spec.intake import MOST_EXAMPLES, Counted

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
LABEL, SPLIT, FILE_NAME = "label", "split", "file_name"

_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")


MOST_REASONS = 50
OTHER_REASONS = "for other reasons"


class Tally:
    """Counts files by reason, and keeps the first few of each. Beyond `MOST_REASONS` reasons are one: an answer stays short."""

    def __init__(self) -> None:
        self._found: dict[str, Counted] = {}

    def add(self, reason: str, example: str) -> None:
        reason = shown(reason)
        if reason not in self._found and len(self._found) >= MOST_REASONS:
            reason = OTHER_REASONS
        counted = self._found.setdefault(reason, Counted(reason=reason, count=0))
        counted.count += 1
        if len(counted.examples) < MOST_EXAMPLES:
            counted.examples.append(shown(example))

    @property
    def count(self) -> int:
        return sum(counted.count for counted in self._found.values())

    def counted(self) -> list[Counted]:
        """The most frequent reason first."""
        return sorted(self._found.values(), key=lambda counted: -counted.count)


@dataclass
class Layout:
    """The candidates for rows, in order of their names, and what each is by its place: {column: word}.

    `metadata`: the file that describes them, by its name; then `labels` say each one's `file_name` beside it, and
    `frame` has a row for each, once it is read. `missing`: files that it names and that are not there. `boxes`: what is
    drawn on the pictures, where they are annotated. `beside`: the columns of `frame` that are inputs too."""

    members: list[Member]
    labels: list[dict[str, str]]
    metadata: tuple[str, Member] | None
    ignored: Tally = field(default_factory=Tally)
    broken: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)
    frame: Frame | None = None
    missing: int = 0
    boxes: Annotated | None = None
    beside: Parts | None = None

    @property
    def total(self) -> int:
        """The files that should become rows, those that are not there included."""
        return len(self.members) + self.missing


def by_name(members: Sequence[Member]) -> tuple[dict[str, Member], Tally]:
    """The members under their names, without the one folder that all of them stand in; and those that are left out,
    with why."""
    ignored = Tally()
    named = dict[str, Member]()
    for member in members:
        name = unicodedata.normalize("NFC", member.name.removeprefix("./"))
        reason = _odd(name) or _litter(name) or ("an earlier file has this name too" if name in named else None)
        if reason:
            ignored.add(reason, name)
        else:
            named[name] = member
    return _within_one_folder(named), ignored


def layout(inner: dict[str, Member], ignored: Tally, endings: Mapping[str, Sequence[str]]) -> tuple[str | None, Layout]:
    """The kind of file that most members are, and where they stand; None where none is of a known kind.

    Args:
        inner, ignored: from `by_name`; both change.
        endings: {kind: the endings of its files, in small letters, with their dots}.
    """
    metadata = next(((name, inner.pop(name)) for name in METADATA if name in inner), None)
    kinds = {name: kind_of(name, endings) for name in inner}
    kind = next((kind for kind, _ in Counter(filter(None, kinds.values())).most_common(1)), None)
    for name in [name for name in inner if kinds[name] != kind or kind is None]:
        ignored.add(why_other(name, kinds[name], kind), name)
        del inner[name]
    found = Layout([], [], metadata, ignored=ignored)
    if metadata is None:
        _by_folders(inner, found)
    else:
        found.members = [inner[name] for name in sorted(inner)]
        found.labels = [{FILE_NAME: name} for name in sorted(inner)]
    return kind, found


def _odd(name: str) -> str | None:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or any(fault_in_name(part[-128:]) for part in parts):
        return "its name is no plain path within the archive"
    return None


def _litter(name: str) -> str | None:
    parts = name.lower().split("/")
    if any(part in _LITTER for part in parts) or any(part.startswith("._") for part in parts):
        return "a file of the system's, not of the data"
    return "a hidden file" if any(part.startswith(".") for part in parts) else None


def _within_one_folder(named: Mapping[str, Member]) -> dict[str, Member]:
    """Without the one folder that all of them stand in; two of them where the inner ones are the classes."""
    inner = dict(named)
    while True:
        tops = {name.split("/", 1)[0] for name in inner}
        rest = {name.split("/", 1)[1]: member for name, member in inner.items() if "/" in name}
        deep = any("/" in name or name in METADATA for name in rest)
        if len(tops) != 1 or len(rest) != len(inner) or not deep or next(iter(tops)).lower() in PARTS:
            return inner
        inner = rest


def kind_of(name: str, endings: Mapping[str, Sequence[str]]) -> str | None:
    """The kind of file that a name ends like."""
    return next((kind for kind, known in endings.items() if name.lower().endswith(tuple(known))), None)


def why_other(name: str, kind: str | None, wanted: str | None) -> str:
    """Why a file of `kind` is no row among files of the kind `wanted`."""
    if kind is not None:
        return f"{_a(kind)} among files of kind {wanted}"
    if name.lower().endswith(_ARCHIVES):
        return "an archive within the archive"
    dot = name.rpartition("/")[2].rpartition(".")
    return f"its ending .{dot[2].lower()} is not known" if dot[1] else "it has no ending"


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _by_folders(inner: dict[str, Member], found: Layout) -> None:
    """Rows by class folders; files beside the folders are ignored, unless there are no folders at all."""
    parts = {name.split("/", 1)[0].lower() for name in inner if "/" in name}
    split = bool(parts) and parts <= set(PARTS) and len({PARTS[part] for part in parts}) > 1
    placed = dict[str, dict[str, str]]()
    for name in sorted(inner):
        labels, rest = dict[str, str](), name
        if split and "/" in name:
            top, rest = name.split("/", 1)
            labels[SPLIT] = PARTS[top.lower()]
        if "/" in rest:
            labels[LABEL] = rest.split("/", 1)[0]
        placed[name] = labels
    folders = {labels[LABEL] for labels in placed.values() if LABEL in labels}
    classed = len(folders) > 1
    if len(folders) == 1:  # a folder of all files says nothing of any
        placed = {
            name: {column: word for column, word in labels.items() if column != LABEL}
            for name, labels in placed.items()
        }
    for name, labels in placed.items():
        if (classed and LABEL not in labels) or (split and SPLIT not in labels):
            found.ignored.add("it stands beside the class folders, not in one", name)
        else:
            found.members.append(inner[name])
            found.labels.append(labels)
    add_groups(found)
    if not classed and found.members:
        found.notes.append(
            "There are no class folders and no metadata file: the rows have no labels. "
            "Put each class in a folder of its own, or add metadata.csv with file_name and the columns to learn."
        )


def add_groups(found: Layout) -> None:
    """Adds the column of what belongs together by its names, where names show it."""
    grouped = groups.of([member.name for member in found.members], found.labels)
    if grouped is not None:
        words, why = grouped
        found.labels = [{**row, groups.GROUP: word} for row, word in zip(found.labels, words, strict=True)]
        found.notes.append(
            f"{len(set(words))} groups were found by names: {why}. Rows of one group are alike: to keep each group on one side of the "
            f'split, send the job with "split": {{"by": "group", "column": "{groups.GROUP}"}}.'
        )


def whole_broken(labels: Sequence[Mapping[str, str]], broken: Callable[[int], bool]) -> list[str]:
    """The classes of which no file could be read."""
    there = Counter(row[LABEL] for row in labels if LABEL in row)
    gone = Counter(row[LABEL] for number, row in enumerate(labels) if LABEL in row and broken(number))
    return [name for name, count in sorted(there.items()) if gone[name] == count]

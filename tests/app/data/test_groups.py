"""What belongs together by folders and names: found where it is, and not invented where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.data.intake import groups
from tests.app.data.pictures import noise, saved, zipped
from tests.app.data.reading import taken


def labels(names: list[str]) -> list[dict[str, str]]:
    return [{"label": name.split("/", 1)[0]} for name in names]


def found(names: list[str]) -> int | None:
    """How many groups; None: none was looked for."""
    grouped = groups.of(names, labels(names))
    return None if grouped is None else len(set(grouped[0]))


def test_cuttings_of_one_photograph_are_a_group_in_whichever_class() -> None:
    names = [
        f"{kind}/smear_{photo:03}_{part}.jpg" for photo in range(8) for part in range(3) for kind in ("red", "white")
    ]
    words, why = groups.of(names, labels(names)) or ([], "")
    assert len(set(words)) == 8
    assert [word for word, name in zip(words, names, strict=True) if "smear_003" in name] == ["smear_003"] * 6
    assert "smear_0" in why


def test_folders_below_the_classes_are_groups() -> None:
    names = [f"{kind}/patient{number}/{shot}.png" for number in range(6) for shot in range(4) for kind in ("a", "b")]
    assert found(names) == 12
    assert found([f"{name.rpartition(chr(46))[0]}_aug2.png" for name in names]) == 12


def test_numbered_files_are_no_groups() -> None:
    assert found([f"{'ab'[n % 2]}/{n}.png" for n in range(60)]) is None
    assert found([f"{'ab'[n % 2]}/IMG_{n:04}.jpg" for n in range(60)]) is None
    assert found([f"{'ab'[n % 2]}/photo ({n}).jpg" for n in range(60)]) is None
    assert found([f"a/bird{n}.jpg" for n in range(60)]) is None
    assert found([f"a/x{n}_1.jpg" for n in range(3)]) is None


def test_a_group_is_a_column_to_split_by_and_no_target(tmp_path: Path) -> None:
    files = {f"{'ab'[n % 2]}/roll{n // 4}-{n % 4}.png": saved(noise(n, 6, 6)) for n in range(40)}
    table, intake = taken(tmp_path, zipped(files), "zip")
    assert table.schema.target == "label"
    assert table.schema.columns["group"].type == "number"
    by_name = [int(name.split("roll")[1].split("-")[0]) for name in sorted(files)]
    values = table.columns["group"]
    assert len(np.unique(values)) == 10
    assert all((values[i] == values[j]) == (by_name[i] == by_name[j]) for i in range(40) for j in range(40))
    assert any("10 groups" in note and '"by": "group"' in note for note in intake.notes)

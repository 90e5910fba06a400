"""Archives of sounds: class folders and metadata, one rate and length for all; every file is used, ignored or broken, and said to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.data import decode_sound, encode, prepared
from app.data.inputs import audio
from app.data.intake import folders
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema, PictureDecoding, SoundDecoding
from app.spec.faults import Fault, Invalid
from tests.app.data.pictures import class_folders as pictures
from tests.app.data.pictures import tarred, zipped
from tests.app.data.reading import taken
from tests.app.data.sounds import class_folders, saved, sine, sixteen, wav

INPUT = audio.schema(SoundDecoding(version="x", resampler="y", rate=8000, samples=4))


@pytest.mark.parametrize("format", ["zip", "tar"])
def test_class_folders_become_rows_with_a_label(tmp_path: Path, format: str) -> None:
    files = class_folders(6)
    table, intake = taken(tmp_path, zipped(files) if format == "zip" else tarred(files), format)
    shape = table.schema.input
    assert (shape.kind, shape.shape, shape.scale, shape.rate) == ("audio", [1600, 1], 32768.0, 8000)
    assert (table.schema.target, table.schema.columns["label"].classes) == ("label", ["high", "low"])
    assert table.columns["label"].tolist() == [0, 0, 0, 1, 1, 1]
    rows = table.inputs[np.arange(6)]
    assert rows.dtype == np.int16
    for name, row in zip(sorted(files), rows, strict=True):
        assert np.array_equal(row[:, 0], np.frombuffer(files[name][44:], "<i2"))
    assert np.array_equal(table.hashes, audio.hashes(rows, shape))
    assert (intake.used, intake.ignored, intake.broken, intake.notes) == (6, [], [], [])


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        taken(folder, zipped(class_folders(4)), "zip", rate=11025, seconds=0.1)
    assert (first / "prepared").read_bytes() == (second / "prepared").read_bytes()


def test_metadata_gives_the_columns(tmp_path: Path) -> None:
    files = {f"clips/{n}.wav": wav(sixteen(sine(300 + 50 * n, 8000, 0.1)), 8000) for n in range(4)}
    rows = "".join(f"clips/{n}.wav,{'ab'[n % 2]},{n / 2}\n" for n in reversed(range(4)))
    files["metadata.csv"] = b"file_name,who,pitch\n" + rows.encode()
    table, intake = taken(tmp_path, zipped(files), "zip", targets=["who", "pitch"])
    assert table.schema.columns["who"].classes == ["a", "b"]
    assert table.columns["pitch"].tolist() == [1.5, 1.0, 0.5, 0.0]
    assert np.array_equal(table.inputs[np.array([0])][0, :, 0], np.frombuffer(files["clips/3.wav"][44:], "<i2"))
    assert intake.used == 4


def test_what_nobody_asked_for_is_said(tmp_path: Path) -> None:
    """Rates that differ, lengths that differ, channels; the longest sound decides, up to ten seconds."""
    stereo = np.stack([sixteen(sine(500, 22050, 0.5))] * 2, axis=1)
    files = class_folders(4) | {"low/x.wav": wav(stereo, 22050)}
    table, intake = taken(tmp_path, zipped(files), "zip")
    assert (table.schema.input.rate, table.schema.input.shape) == (16000, [8000, 1])
    rates, channels, lengths = intake.notes
    assert rates.startswith(
        "The sounds have 2 rates, 8000 to 22050 samples a second: each was brought to 16000; -F rate="
    )
    assert channels.startswith("1 of 5 sounds have several channels")
    assert "last 0.2 to 0.5 s: each has 0.5 s now. 4 shorter ones were filled" in lengths
    assert "-F seconds=" in lengths
    long = class_folders(2) | {"low/x.wav": wav(np.zeros(8000 * 11, np.int16), 8000)}
    table, intake = taken(tmp_path, zipped(long), "zip")
    assert table.schema.input.shape == [80000, 1]
    assert "each has 10 s now. 1 longer ones were cut there and 2 shorter ones were filled" in intake.notes[0]
    table, intake = taken(tmp_path, zipped(files), "zip", rate=4000, seconds=0.25)
    assert (table.schema.input.rate, table.schema.input.shape) == (4000, [1000, 1])
    assert "1 longer ones were cut there; -F seconds" in intake.notes[1]
    assert len(intake.notes) == 2


def test_a_rate_beyond_what_may_be_asked_for_is_brought_to_the_usual_one(tmp_path: Path) -> None:
    files = {f"{'ab'[n % 2]}/{n}.wav": wav(sixteen(sine(900 + n, 192000, 0.1)), 192000) for n in range(4)}
    table, intake = taken(tmp_path, zipped(files), "zip")
    assert table.schema.input.rate == 16000
    assert intake.notes[0].startswith("The sounds have 192000 samples a second")


def test_all_formats_stand_side_by_side_and_others_are_counted(tmp_path: Path) -> None:
    wave = sine(440, 8000, 0.2)
    formats = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF"}
    files = {f"{place}/1.{ending}": saved(wave, 8000, name) for place in "ab" for ending, name in formats.items()}
    files |= {"a/2.m4a": b"\0\0\0\x20ftypM4A " + bytes(99), "a/3.opus": saved(wave, 8000, "OGG", "OPUS")}
    files |= {"a/4.wav": b"\0\0\0\x20ftypmp42" + bytes(99), "a/notes.txt": b"x", "a/5.mid": b"MThd"}
    with pytest.raises(Invalid) as refused:
        taken(tmp_path, zipped(files), "zip")
    said = " ".join(fault.message for fault in refused.value.faults)
    assert said.count("convert it: ffmpeg -i FILE FILE.wav") == 2
    for name in ("a/2.m4a", "a/3.opus", "a/4.wav"):
        assert name in said
    table, intake = taken(tmp_path, zipped(files), "zip", skip_broken=True)
    assert len(table) == 10
    assert {counted.reason for counted in intake.ignored} == {
        "a text among files of kind sound",
        "its ending .mid is not known",
    }
    rows = table.inputs[np.arange(10)][..., 0] / 32768
    assert all(np.corrcoef(row, wave)[0, 1] > 0.99 for row in rows)


def test_a_sound_that_breaks_only_when_it_is_decoded_leaves_its_row_out(tmp_path: Path) -> None:
    whole = saved(sine(440, 8000, 0.2), 8000, "FLAC")
    files = class_folders(4) | {"low/a.flac": whole[: len(whole) // 2], "low/b.wav": b"<html>"}
    assert decode_sound.header(files["low/a.flac"]).frames == 1600
    table, intake = taken(tmp_path, zipped(files), "zip", skip_broken=True)
    assert (len(table), len(table.hashes), len(table.columns["label"])) == (4, 4, 4)
    assert sorted(name for counted in intake.broken for name in counted.examples) == ["low/a.flac", "low/b.wav"]


def test_reasons_out_of_hostile_files_are_told_apart_only_so_far(tmp_path: Path) -> None:
    broken = {f"low/{n}x.wav": _of_rate(2 * 10**6 + n) for n in range(80)}
    table, intake = taken(tmp_path, zipped(class_folders(4) | broken), "zip", skip_broken=True)
    assert len(table) == 4
    assert len(intake.broken) == folders.MOST_REASONS + 1
    assert sum(counted.count for counted in intake.broken) == 80
    assert intake.broken[0].reason == folders.OTHER_REASONS


def _of_rate(rate: int) -> bytes:
    content = wav(np.zeros(90, np.int16), 8000)
    return content[:24] + rate.to_bytes(4, "little") + content[28:]


def test_what_takes_too_much_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = zipped(class_folders(4))
    with pytest.raises(Invalid, match="4 sounds of 16000 samples take 128000 bytes, at most 20000"):
        taken(tmp_path, content, "zip", seconds=2, limits=UploadLimits(archive_bytes=20_000))
    with pytest.raises(Invalid, match="a sound of 1600 samples is too long"):
        taken(tmp_path, content, "zip", limits=UploadLimits(row_values=1000))


def test_the_kind_that_most_files_are_wins(tmp_path: Path) -> None:
    table, intake = taken(tmp_path, zipped(class_folders(6) | pictures(4)), "zip")
    assert table.schema.input.kind == "audio"
    assert [(counted.reason, counted.count) for counted in intake.ignored] == [
        ("a picture among files of kind sound", 4)
    ]


def test_the_reading_process_can_do_it_within_its_walls(tmp_path: Path) -> None:
    """No thread, no file of the interpreter's, bounded memory: all that is needed was loaded before."""
    files = class_folders(4) | {"low/y.mp3": saved(sine(440, 44100, 0.2), 44100, "MP3")}
    raw = tmp_path / "sounds.zip"
    raw.write_bytes(zipped(files))
    line = [sys.executable, "-m", "app.data.inspect", str(raw), "zip", str(tmp_path / "out")]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(ended.stdout)
    assert answer["intake"]["used"] == 5
    assert prepared.read(tmp_path / "out").schema.input.rate == 16000


# --- requests, previews, schemas


def test_a_request_gives_the_row_of_the_data_set() -> None:
    stored = np.array([[0], [16384], [-32768], [32767]], np.int16)
    shown = audio.preview(stored, INPUT)
    assert shown == [0.0, 0.5, -1.0, 32767 / 32768]
    assert np.array_equal(encode.encode_rows([shown], INPUT), stored[None])
    faults = list[Fault]()
    encode_row = audio.encoder(INPUT)
    for row in ([0, 0, 0], [0, 0, 0, 1.5], "abcd", [0, 0, 0, None]):
        assert encode_row(row, "/0", faults) is None
    assert any("-1 to 1" in fault.message for fault in faults)


def test_sounds_that_differ_behind_the_cut_are_one_row_and_others_are_not() -> None:
    rows = np.zeros((3, 4, 1), np.int16)
    rows[2, 3] = 1
    same, _, other = audio.hashes(rows, INPUT)
    assert np.array_equal(audio.hashes(rows, INPUT)[0], audio.hashes(rows, INPUT)[1])
    assert not np.array_equal(same, other)


def test_older_schemas_are_read_as_pictures() -> None:
    old = {"version": "13.0.0", "mode": "L", "size": [4, 4], "fit": "pad"}
    for decode in (old, {"library": "pillow", **old}):
        schema = InputSchema.model_validate({"kind": "image", "shape": [4, 4, 1], "scale": 255.0, "decode": decode})
        assert isinstance(schema.decode, PictureDecoding)
        assert schema.rate is None
    again = InputSchema.model_validate_json(INPUT.model_dump_json())
    assert again == INPUT
    assert isinstance(again.decode, SoundDecoding)

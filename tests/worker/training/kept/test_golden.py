"""Golden rows: made and no user's, kept within the `.keras` file, and whatever answers or decodes otherwise is named and refused."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.data import decode, inputs
from app.data.inputs import audio
from app.settings import settings
from app.spec.data import InputSchema, PictureDecoding, SoundDecoding
from tests.worker.training import mixed, small
from tests.worker.training.kept.installed import INSTALLED
from worker import inference, warm_models
from worker.training.data import inputs as input_kinds
from worker.training.data.scaling import Scaling
from worker.training.kept import export, formats, golden
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.process.failures import Failure
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

PHOTOS = InputSchema(
    kind="image",
    shape=[24, 20, 3],
    scale=255.0,
    decode=PictureDecoding(version="x", mode="RGB", size=[24, 20], fit="crop"),
)
SOUNDS = audio.schema(SoundDecoding(version="x", resampler="y", rate=8000, samples=2400))
TEXTS = InputSchema(kind="text", shape=[48])


def answers(network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
    """By NumPy and the training network, not by the kept model."""
    logits = build.keras_layers(network).forward.predict_on_batch(network.scaling(rows))
    return {name: heads.answers(task, np.asarray(logits[name])) for name, task in network.tasks.items()}


def kept(network: Network, path: Path) -> golden.Golden:
    export.write(network, path, golden.make(network, answers))
    made = golden.read(path)
    assert made is not None
    return made


def asked(path: Path) -> golden.Ask:
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda rows: model(rows, training=False)


@pytest.fixture(scope="module")
def photos() -> Network:
    return small.network([small.DIGIT, small.SIZE], 0, {"arch": "cnn", "filters": [4], "dense": 6}, PHOTOS)


# --- what they are


@pytest.mark.parametrize("input", [PHOTOS, small.PICTURE, SOUNDS, TEXTS, small.TABLE, mixed.table().schema.input])
def test_made_rows_are_the_same_each_time_differ_from_each_other_and_are_such_as_are_stored(input: InputSchema) -> None:
    source = mixed.table().inputs[:][:, : input.shape[0]] if input == small.TABLE else mixed.table().inputs
    scaling = input_kinds.training(input.kind).fit(input, [(source, np.arange(2))])
    rows = input_kinds.golden(input, scaling, 5)
    assert rows.shape == (5, *input.shape)
    assert np.array_equal(rows, input_kinds.golden(input, scaling, 5), equal_nan=input.kind == "table")
    assert len({row.tobytes() for row in rows}) == 5
    if input.kind in ("image", "audio"):
        assert 0.3 * input.scale < np.abs(rows).max() <= input.scale
    encode, faults = inputs.of(input.kind).encoder(input), list[Any]()
    for row in rows if input.kind != "table" else ():
        assert np.allclose(encode(inputs.of(input.kind).preview(row, input), "", faults), row, atol=1e-3), faults


def test_a_table_s_rows_have_any_class_gaps_where_there_may_be_some_and_one_row_of_gaps() -> None:
    data = mixed.of_table(mixed.table())
    features = data.table.schema.input.features
    scaling = input_kinds.scaling([(data, data.subset(0).train)])
    rows = input_kinds.golden(data.table.schema.input, scaling, 5)
    may = np.array([feature.missing for feature in features])
    assert np.array_equal(np.isnan(rows[-1]), may)
    assert not np.isnan(rows[:, ~may]).any()
    many = input_kinds.golden(data.table.schema.input, scaling, 4000)
    for at, feature in enumerate(features):
        there = many[~np.isnan(many[:, at]), at]
        if feature.classes is not None:
            unknown = len(feature.classes) > 32
            assert set(there) == set(range(len(feature.classes) + unknown))
        else:
            stored = data.table.inputs[:][:, at]
            assert np.mean(there) == pytest.approx(
                float(np.nanmean(stored)), abs=0.5 * float(np.nanstd(stored)) + 1e-5 * 2026
            )
            assert np.std(there) <= 1.5 * (np.nanstd(stored) or 1)  # of a number that does not vary, 1
    own = {row.tobytes() for row in data.table.inputs[:]}
    assert not own & {row.tobytes() for row in rows}


@pytest.mark.parametrize(
    ("input", "most"),
    [
        (InputSchema(kind="image", shape=[224, 224, 3], scale=255.0), 60_000),
        (audio.schema(SoundDecoding(version="x", resampler="y", rate=16000, samples=160_000)), 60_000),
    ],
)
def test_rows_of_large_inputs_take_little_room(input: InputSchema, most: int) -> None:
    file = io.BytesIO()
    rows = input_kinds.golden(input, Scaling(), 5)
    np.savez_compressed(file, rows=rows)
    assert len(file.getvalue()) < most < rows.nbytes


def test_fewer_rows_are_kept_where_answers_are_long_and_none_without_a_finite_answer() -> None:
    whole = small.network([small.DIGIT], 0, "mlp")
    long = golden.make(whole, lambda _, rows: {"digit": np.zeros((len(rows), 300, 400))})
    assert len(long.rows) == len(long.answers["digit"]) == 2
    assert len(golden.few(golden.make(whole, lambda _, rows: {"digit": np.zeros((len(rows), 50_000))})).rows) == 5
    assert len(golden.few(replace(long, rows=np.zeros((2, 224, 224, 3), np.uint8))).rows) == 1
    steep = golden.make(whole, lambda _, rows: {"digit": np.array([[0.0], [np.nan], [np.inf], [1.0], [2.0]])})
    assert steep.answers["digit"].ravel().tolist() == [0, 1, 2]
    assert golden.differences(golden.make(whole, lambda _, rows: {"digit": np.full((5, 4), np.nan)}), dict) == []


# --- what is noticed


def test_the_file_loads_as_before_and_its_golden_rows_are_checked_as_the_manifest_says(
    photos: Network, tmp_path: Path
) -> None:
    path = tmp_path / "model.keras"
    made = kept(photos, path)
    assert made.rows.shape == (5, 24, 20, 3)
    assert golden.differences(made, asked(path)) == []
    about = export.manifest(photos, "model", "", file=str(path), rows_file=None, dataset={}, training={})
    lines = [line.removeprefix("# ") for line in about.loading.splitlines()[-2:]]
    model = keras.saving.load_model(path)
    scope: dict[str, Any] = {"np": np, "zipfile": zipfile, "model": model}
    exec(lines[0], scope)
    assert 0 <= eval(lines[1], scope) < 1e-5
    export.check(path, photos, made.rows, answers(photos, made.rows))
    assert export.read(path, about).shape_key() == photos.shape_key()


def test_a_model_of_before_golden_rows_has_none(photos: Network, tmp_path: Path) -> None:
    export.write(photos, tmp_path / "old.keras")
    assert golden.read(tmp_path / "old.keras") is None
    assert warm_models.loaded(tmp_path / "old.keras") is not None


def test_another_answer_is_named_with_its_task_and_how_far_off_it_is(photos: Network, tmp_path: Path) -> None:
    made, ask = kept(photos, tmp_path / "model.keras"), asked(tmp_path / "model.keras")
    (found,) = golden.differences(made, lambda rows: {**ask(rows), "size": np.asarray(ask(rows)["size"]) * 1.01})
    assert "for size differ by " in found
    assert "more than 2e-03" in found
    assert golden.differences(made, lambda rows: {"digit": ask(rows)["digit"]}) == [
        "its answers for size have another shape"
    ]
    assert (
        len(
            golden.differences(made, lambda rows: {name: np.asarray(told) * np.nan for name, told in ask(rows).items()})
        )
        == 2
    )


def nudged(photos: Network, tmp_path: Path) -> Path:
    """A file whose weights are others than those that gave its golden answers."""
    made = kept(photos, tmp_path / "first.keras")
    other = {name: [array + np.float32(0.05) for array in arrays] for name, arrays in photos.weights.items()}
    export.write(replace(photos, weights=other), tmp_path / "nudged.keras", made)
    return tmp_path / "nudged.keras"


def test_a_kept_model_whose_numbers_are_others_fails_its_check(photos: Network, tmp_path: Path) -> None:
    path = nudged(photos, tmp_path)
    rows = golden.read(path).rows  # type: ignore[union-attr]
    ask = asked(path)
    with pytest.raises(Failure, match="differs from the trained network: its answers for digit differ by"):
        export.check(path, photos, rows, {name: np.asarray(told) for name, told in ask(rows).items()})


@pytest.mark.slow
@pytest.mark.parametrize("format", INSTALLED)
def test_every_format_is_compared_with_the_trained_network_itself(photos: Network, format: Any, tmp_path: Path) -> None:
    made = golden.make(photos, answers)
    assert formats.write(photos, [format], made.rows, tmp_path, golden=made)
    wrong = replace(made, answers={**made.answers, "size": made.answers["size"] + 1})
    with pytest.raises(Failure, match=f"the {format} file differs from the trained network: its answers for size"):
        formats.write(photos, [format], made.rows, tmp_path, golden=wrong)


def test_a_picture_that_is_resized_otherwise_is_noticed(
    photos: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ask = kept(photos, tmp_path / "model.keras"), asked(tmp_path / "model.keras")
    assert made.file is not None
    assert np.array_equal(made.file.row, decode.picture(made.file.content, size=[24, 20], mode="RGB", fit="crop"))
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, _: resize(self, size, Image.Resampling.BICUBIC))
    (found,) = golden.differences(made, ask)
    assert found.startswith("a file becomes another row, by up to ")
    assert "(by Pillow " in found
    monkeypatch.setattr(decode, "FORMATS", ("JPEG",))
    (found,) = golden.differences(made, ask)
    assert found.startswith("a file that became a row is refused now (no picture of a known format")


def test_a_sound_that_is_resampled_otherwise_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soxr

    whole = small.network([small.DIGIT], 0, "audio-cnn-small", SOUNDS)
    whole.scaling = Scaling((0.0,), (32768.0,))
    whole.weights = initial(build.keras_layers(whole), 0)
    made, ask = kept(whole, tmp_path / "model.keras"), asked(tmp_path / "model.keras")
    assert golden.differences(made, ask) == []
    resample = soxr.resample
    monkeypatch.setattr(soxr, "resample", lambda x, there, rate, quality: resample(x, there, rate, quality="LQ"))
    (found,) = golden.differences(made, ask)
    assert "a file becomes another row" in found
    assert "soxr" in found


@pytest.mark.parametrize("fit", decode.FITS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_made_file_suits_whatever_rows_a_model_takes(fit: Any, mode: Any, photos: Network) -> None:
    how = PictureDecoding(version="x", mode=mode, size=[24, 20], fit=fit)
    file = golden._made_file(replace(photos, input=PHOTOS.model_copy(update={"decode": how})))
    assert file is not None
    assert file.row.shape[:2] == (24, 20)
    assert len(file.content) < 20_000


# --- the inference program


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings(), "data", tmp_path)
    (settings().store / "model").mkdir(parents=True)
    return settings().store / "model"


def predicted(path: Path, rows: np.ndarray) -> Any:
    content = io.BytesIO()
    np.save(content, rows.astype(np.float32))
    with TestClient(inference.create_app()) as client:
        return client.post("/predict", params={"model": str(path)}, content=content.getvalue())


def test_the_inference_program_refuses_a_model_that_answers_otherwise(
    photos: Network, tmp_path: Path, store: Path
) -> None:
    rows = np.ones((1, 24, 20, 3))
    (tmp_path / "good").mkdir()
    (store / "good.keras").write_bytes(kept_bytes(photos, tmp_path / "good" / "good.keras"))
    assert predicted(store / "good.keras", rows).status_code == 200
    (store / "nudged.keras").write_bytes(nudged(photos, tmp_path).read_bytes())
    answer = predicted(store / "nudged.keras", rows)
    assert answer.status_code == 409
    assert "its answers for digit differ by" in answer.json()["detail"]


def kept_bytes(network: Network, path: Path) -> bytes:
    kept(network, path)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "weights", "golden", "json"])
def test_a_damaged_file_is_refused_in_words(photos: Network, tmp_path: Path, store: Path, damage: str) -> None:
    content = bytearray(kept_bytes(photos, tmp_path / "model.keras"))
    path = store / f"{damage}.keras"
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "json":
        with zipfile.ZipFile(tmp_path / "other.keras", "w") as other, zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                other.writestr(name, b"PK" if name == golden.MEMBER else archive.read(name))
        content = bytearray((tmp_path / "other.keras").read_bytes())
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = archive.getinfo(golden.MEMBER if damage == "golden" else "model.weights.h5")
        content[entry.header_offset + entry.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    answer = predicted(path, np.ones((1, 24, 20, 3)))
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("its file cannot be loaded (")


def test_a_task_s_name_and_type_are_all_that_golden_rows_say_of_a_job(photos: Network, tmp_path: Path) -> None:
    kept(photos, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        stored = np.load(archive.open(golden.MEMBER))
        about = json.loads(stored["about"].tobytes())
    assert set(about) == {"types", "decode", "decoder"}
    assert set(stored.files) == {"about", "rows", "answers/digit", "answers/size", "made_file", "made_row"}

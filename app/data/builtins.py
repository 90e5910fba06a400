"""The data sets that are always there: small real ones from files beside this one, and generators of ours. Nothing is downloaded.

What they are is written down in `shipped/about.json`, so that only who needs rows makes them. `write_down` writes that file again, and
a test holds it to the rows.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256 as _sha256
from pathlib import Path

import numpy as np
from pydantic import BaseModel, TypeAdapter

from app.data import bookings, faces, messages, parcels, shapes, tones
from app.data import strokes as _strokes
from app.data.boxes import COLUMN
from app.data.inputs import audio, multimodal, text
from app.data.table import Table, describe, row_hashes
from app.data.tagged import token_rows
from app.data.tagged.schemes import Tagged
from app.data.upload_limits import UploadLimits
from app.spec.data import Feature, InputSchema, PictureDecoding, Schema, SoundDecoding
from app.spec.faults import nearest
from app.spec.lookup import Missing

SHIPPED = Path(__file__).with_name("shipped")
ABOUT = SHIPPED / "about.json"


@dataclass(frozen=True)
class Builtin:
    """A data set by name: what it is, where it is from, and how it is made (offline, the same bytes every time)."""

    description: str
    origin: str
    make: Callable[[], Table]


class About(BaseModel):
    """`bytes` of its inputs and columns, and the hash of schema, inputs and columns, which a job records about its data."""

    bytes: int
    sha256: str
    table_schema: Schema


def load(name: str) -> Table:
    """The rows of the built-in `name`. Its arrays are shared and read-only. Raises Missing with the nearest name."""
    _known(name)
    return _load(name)


def named(value: object) -> set[str]:
    """The built-in data sets whose names stand anywhere in a JSON value."""
    found, left = set[str](), [value]
    while left:
        match left.pop():
            case str() as name if name in BUILTINS:
                found.add(name)
            case dict() as members:
                left.extend(members.values())
            case list() as items if items:
                left.extend(items)
    return found


def make(value: object) -> None:
    """Makes the rows of all that `named` finds, so that `load` has them at hand."""
    for name in sorted(named(value)):
        load(name)


def about(name: str) -> About:
    """What the built-in `name` is. Raises Missing with the nearest name."""
    _known(name)
    return _abouts().get(name) or described(name)


def schema(name: str) -> Schema:
    """The schema of the built-in `name`. Raises Missing."""
    return about(name).table_schema


def sha256(name: str) -> str:
    """The hash of its content. Raises Missing."""
    return about(name).sha256


def described(name: str) -> About:
    """The same, from its rows."""
    table = load(name)
    digest = _sha256(json.dumps(table.schema.model_dump(mode="json"), sort_keys=True).encode())
    arrays = [np.asarray(table.inputs), *table.columns.values()]
    for array in arrays:
        digest.update(array.tobytes())
    return About(bytes=sum(array.nbytes for array in arrays), sha256=digest.hexdigest(), table_schema=table.schema)


def write_down() -> None:
    """What all of them are, into the file that `about` reads: python -c "from app.data import builtins; builtins.write_down()"."""
    ABOUT.write_text(json.dumps({name: described(name).model_dump(mode="json") for name in BUILTINS}, indent=1) + "\n")


def _known(name: str) -> None:
    if name not in BUILTINS:
        raise Missing(name, "there is no such built-in data set", nearest(name, BUILTINS, "data sets"))


@cache
def _abouts() -> dict[str, About]:
    return TypeAdapter(dict[str, About]).validate_json(ABOUT.read_bytes())


@cache
def _load(name: str) -> Table:
    table = BUILTINS[name].make()
    for array in (np.asarray(table.inputs), table.hashes, *table.columns.values()):
        array.setflags(write=False)
    return table


# ---- real data, from the files in `shipped/`, which are scikit-learn's; a test holds the tables equal to those of its loaders.


def _digits() -> Table:
    raw = _numbers("digits.csv.gz").astype(np.int64)
    return _images(_enlarged(raw[:, :-1].reshape(-1, 8, 8)), raw[:, -1])


def _enlarged(pictures: np.ndarray) -> np.ndarray:
    """(n, 8, 8) of 0..16 to (n, 28, 28, 1) uint8: linear between the old pixels, corner on corner; in whole numbers, so exact."""
    steps = np.arange(28) * 7  # in 27ths of an old pixel
    left = np.minimum(steps // 27, 6)
    part = steps - 27 * left
    wide = pictures[:, :, left] * (27 - part) + pictures[:, :, left + 1] * part
    tall = wide[:, left] * (27 - part)[:, None] + wide[:, left + 1] * part[:, None]
    return np.asarray(tall[..., None] * 255 // (16 * 27 * 27), np.uint8)


def _images(pictures: np.ndarray, digit: np.ndarray, *, parts: bool = True) -> Table:
    codes = digit.astype(np.int32)
    columns = {"digit": (codes, [str(number) for number in range(10)])}
    if parts:
        columns["odd"] = (codes % 2, ["even", "odd"])
        columns["at_least_5"] = ((codes >= 5).astype(np.int32), ["no", "yes"])
    shape = InputSchema(kind="image", shape=list(pictures.shape[1:]), scale=255.0)
    described = {name: describe(name, values, classes) for name, (values, classes) in columns.items()}
    whole = Schema(rows=len(pictures), input=shape, columns=described, target="digit")
    return Table(pictures, {name: values for name, (values, _) in columns.items()}, row_hashes(pictures), whole)


def _classes_csv(file: str, features: Sequence[str]) -> Callable[[], Table]:
    """A reader of scikit-learn's format: a first line `rows,features,class,class…`, then rows that end in the class's number."""

    def make() -> Table:
        classes = (SHIPPED / file).read_text().splitlines()[0].split(",")[2:]
        raw = _numbers(file, skip=1)
        return _table(features, raw[:, :-1], {"class": (raw[:, -1].astype(np.int32), classes)}, "class")

    return make


def _diabetes() -> Table:
    inputs = _numbers("diabetes_data_raw.csv.gz", separator=None)
    progression = _numbers("diabetes_target.csv.gz", separator=None).reshape(-1).astype(np.float32)
    return _table(
        ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"],
        inputs,
        {"progression": (progression, None)},
        "progression",
    )


def _table(
    names: Sequence[str], inputs: np.ndarray, columns: dict[str, tuple[np.ndarray, list[str] | None]], target: str
) -> Table:
    numbers = inputs.astype(np.float32)
    shape = InputSchema(kind="table", shape=[numbers.shape[1]], features=[Feature(column=name) for name in names])
    described = {name: describe(name, values, classes) for name, (values, classes) in columns.items()}
    whole = Schema(rows=len(numbers), input=shape, columns=described, target=target)
    return Table(numbers, {name: values for name, (values, _) in columns.items()}, row_hashes(numbers), whole)


def _numbers(file: str, *, skip: int = 0, separator: str | None = ",") -> np.ndarray:
    path = SHIPPED / file
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return np.loadtxt(text.splitlines()[skip:], delimiter=separator)


# ---- our own generators


def _messages() -> Table:
    texts, topic, mood = messages.make(3000)
    rows, shape = text.stored(texts, None, [])
    columns = {"topic": (topic, list(messages.TOPICS)), "mood": (mood, list(messages.MOODS))}
    described = {name: describe(name, values, classes) for name, (values, classes) in columns.items()}
    whole = Schema(rows=len(rows), input=shape, columns=described, target="topic")
    return Table(rows, {name: values for name, (values, _) in columns.items()}, text.hashes(rows, shape), whole)


def _bookings() -> Table:
    sentences, tags, intent = bookings.make(1500)
    tagged = [Tagged(tokens, own, ()) for tokens, own in zip(sentences, tags, strict=True)]
    rows, shape, codes, column = token_rows.of(tagged, tags, None, UploadLimits(), [])
    described = {column.name: column, "intent": describe("intent", intent, bookings.INTENTS)}
    whole = Schema(rows=len(rows), input=shape, columns=described, target=column.name)
    return Table(rows, {column.name: codes, "intent": intent}, text.hashes(rows, shape), whole)


def _tones() -> Table:
    sounds, pattern, high = tones.make(1200)
    # As files of just that rate and length are read: a file that is sent to predict is decoded so.
    shape = audio.schema(SoundDecoding(version="none", resampler="none", rate=tones.RATE, samples=tones.SAMPLES))
    columns = {"pattern": (pattern, list(tones.PATTERNS)), "high": (high, list(tones.HEIGHTS))}
    described = {name: describe(name, values, classes) for name, (values, classes) in columns.items()}
    whole = Schema(rows=len(sounds), input=shape, columns=described, target="pattern")
    return Table(sounds, {name: values for name, (values, _) in columns.items()}, audio.hashes(sounds, shape), whole)


def _faces() -> Table:
    pictures, codes, edges = faces.make()
    boxes = np.zeros((len(pictures), 1, 5), np.float32)  # the one class is 0
    boxes[:, 0, :4] = edges / np.float32(faces.SIDE)
    decoding = PictureDecoding(version="none", mode="RGB", size=[faces.SIDE, faces.SIDE], fit="pad")
    shape = InputSchema(kind="image", shape=list(pictures.shape[1:]), scale=255.0, decode=decoding)
    persons = [f"person {number + 1}" for number in range(faces.PERSONS)]
    classes = {
        "person": persons,
        "expression": list(faces.EXPRESSIONS),
        "glasses": list(faces.GLASSES),
        "face": ["face"],
    }
    columns = {**codes, "face": boxes}
    described = {name: describe(name, values, classes[name]) for name, values in columns.items()}
    whole = Schema(rows=len(pictures), input=shape, columns=described, target="expression")
    return Table(pictures, columns, row_hashes(pictures), whole)


def _shapes() -> Table:
    pictures, boxes, main = shapes.make(1000)
    shape = InputSchema(kind="image", shape=list(pictures.shape[1:]), scale=255.0)
    columns = {COLUMN: boxes, "main": main}
    described = {name: describe(name, values, list(shapes.CLASSES)) for name, values in columns.items()}
    whole = Schema(rows=len(pictures), input=shape, columns=described, target="boxes")
    return Table(pictures, columns, row_hashes(pictures), whole)


def _stroke_digits() -> Table:
    digit = np.arange(4000) % 10
    return _images(_strokes.draw(digit, seed=0), digit, parts=False)


def _related(rank: int) -> Callable[[], Table]:
    """Eight number targets mixed from `rank` hidden causes, each a crooked function of the 12 features; 15 % of the variance is noise.

    At rank 3 the targets share nearly everything, so one may be learnt from the labels of the others; at rank 24 they share
    little: a negative control.
    """

    def make() -> Table:
        rng = np.random.default_rng(3)
        inputs = 3.4641016 * (rng.random((3000, 12)) - 0.5)
        ways, bends, mix = (2 * rng.random(shape) - 1 for shape in ((12, rank), (rank,), (rank, 8)))
        causes = _normal(_product(inputs, ways))
        causes = _normal(np.abs(causes - bends) + 0.5 * causes)
        noise = 0.42 * 3.4641016 * (rng.random((3000, 8)) - 0.5)
        targets = (_normal(_product(causes, mix)) + noise).astype(np.float32)
        names = ["main", *(f"aux_{number}" for number in range(1, 8))]
        columns: dict[str, tuple[np.ndarray, list[str] | None]] = {
            name: (np.ascontiguousarray(targets[:, k]), None) for k, name in enumerate(names)
        }
        return _table([f"x{number}" for number in range(12)], inputs, columns, "main")

    return make


def _parcels() -> Table:
    pictures, weighed, notes, service, price = parcels.make(1200)
    mark = PictureDecoding(version="none", mode="L", size=[parcels.SIDE, parcels.SIDE], fit="pad")
    features = [Feature(column="weight", missing=True), Feature(column="country", classes=list(parcels.COUNTRIES))]
    words, noted = text.stored(notes, None, [])
    parts = {
        multimodal.FILE: InputSchema(kind="image", shape=list(pictures.shape[1:]), scale=255.0, decode=mark),
        multimodal.TABLE: InputSchema(kind="table", shape=[len(features)], features=features),
        "note": noted,
    }
    shape = multimodal.joined(parts)
    rows = multimodal.side_by_side({multimodal.FILE: pictures, multimodal.TABLE: weighed, "note": words})
    columns = {"service": describe("service", service, parcels.SERVICES), "price": describe("price", price)}
    whole = Schema(rows=len(rows), input=shape, columns=columns, target="service")
    return Table(rows, {"service": service, "price": price}, multimodal.hashes(rows, shape), whole)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left @ right, summed in one order: a BLAS sums in whatever order suits the processor, and the bytes would differ."""
    total = np.zeros((len(left), right.shape[1]))
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k]
    return total


def _normal(values: np.ndarray) -> np.ndarray:
    """Each column to mean 0 and variance 1; rounded, so that the order of a sum cannot show."""
    centred = values - values.mean(axis=0).round(6)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=0)).round(6))


_CELLS = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
]
_CANCER = (
    [f"mean {cell}" for cell in _CELLS] + [f"{cell} error" for cell in _CELLS] + [f"worst {cell}" for cell in _CELLS]
)
_WINE = [
    *(
        "alcohol",
        "malic_acid",
        "ash",
        "alcalinity_of_ash",
        "magnesium",
        "total_phenols",
        "flavanoids",
        "nonflavanoid_phenols",
    ),
    *("proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline"),
]
_IRIS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]

_UCI = "UCI Machine Learning Repository, CC BY 4.0, in the files of scikit-learn"
_EFRON = "Efron, Hastie, Johnstone and Tibshirani (2004), in the files of scikit-learn"
_OURS = "a generator of Bequest's own"

BUILTINS: dict[str, Builtin] = {
    "digits": Builtin(
        "1,797 real handwritten digits, enlarged from 8×8 to 28×28; also parity, and whether 5 or more",
        _UCI,
        _digits,
    ),
    "strokes": Builtin(
        "4,000 digits drawn as pen strokes, 28×28: a source domain for real handwriting", _OURS, _stroke_digits
    ),
    "breast_cancer": Builtin(
        "569 cell samples, 30 measurements: malignant or benign", _UCI, _classes_csv("breast_cancer.csv", _CANCER)
    ),
    "wine": Builtin("178 wines, 13 measurements: one of three growers", _UCI, _classes_csv("wine_data.csv", _WINE)),
    "iris": Builtin("150 flowers, 4 measurements: one of three species", _UCI, _classes_csv("iris.csv", _IRIS)),
    "bookings": Builtin(
        "1,500 synthetic requests, sentences of templates: a tag for each word (places, days, persons), and one of three intents",
        _OURS,
        _bookings,
    ),
    "diabetes": Builtin(
        "442 patients, 10 measurements: a number, the disease's progression after a year", _EFRON, _diabetes
    ),
    "faces": Builtin(
        "1,200 drawn faces of 150 persons, 48×48 in colour: who it is, the expression, glasses, and a box around the face",
        _OURS,
        _faces,
    ),
    "lowrank": Builtin(
        "3,000 rows, 12 features, eight number targets that share three hidden causes", _OURS, _related(3)
    ),
    "messages": Builtin(
        "3,000 synthetic messages to a shop, sentences of templates: one of four topics, and a mood", _OURS, _messages
    ),
    "parcels": Builtin(
        "1,200 synthetic parcels: a picture of the label, weight and country, and a note, which together say how each goes and its price",
        _OURS,
        _parcels,
    ),
    "shapes": Builtin(
        "1,000 synthetic pictures of circles, squares and triangles, 48×48 in colour: a box around each, and the largest one's class",
        _OURS,
        _shapes,
    ),
    "tones": Builtin(
        "1,200 synthetic sounds of 0.25 s at 8 kHz: a pitch that rises, falls, stays or is pulsed, and whether it is high",
        _OURS,
        _tones,
    ),
    "unrelated": Builtin("as lowrank, but 24 hidden causes: the targets share little", _OURS, _related(24)),
}

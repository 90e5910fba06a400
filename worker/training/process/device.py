"""What the trainer runs on, and how repeatable it is."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import platform
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

UNUSED = {"tensorflow": ("jax", "scipy", "sklearn"), "jax": ("sklearn",)}
"""By backend: what Keras and TensorFlow import only to see whether it is there. That takes a third of the import's processor time, and
80 MiB for good."""

COMPILED_BYTES = 2**26
"""At most so much of JAX's compiled functions is kept. JAX looks at all of them when it adds one."""


def import_keras() -> None:
    """Imports Keras and its backend, without what they can do without, and with the garbage collector off, unless they are there.

    The imports make a million objects and drop next to none; collecting garbage meanwhile takes two fifths of the time. The objects stay,
    so the collector leaves them out for good. Tracing a network makes objects by the hundred thousand, which stay as long as the network:
    collecting less often saves a tenth of it.
    """
    if "keras" in sys.modules:
        return
    gc.disable()
    try:
        with _hidden(UNUSED.get(os.environ.get("KERAS_BACKEND", "tensorflow"), ())):
            importlib.import_module("keras")
    finally:
        gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@contextlib.contextmanager
def _hidden(packages: Sequence[str]) -> Iterator[None]:
    """Whoever imports one of these packages meanwhile is told that it is not there, unless it was imported before."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None stands for a package that is not there
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def environment() -> dict[str, str | None]:
    """Versions, backend and device, for `Started` and the manifest. Imports Keras."""
    import keras

    return {
        "keras": keras.__version__,
        "tensorflow": _version("tensorflow"),
        "backend": keras.backend.backend(),
        "device": name(),
        "python": platform.python_version(),
    }


def name() -> str:
    """ "cpu", or the kind of accelerator that the backend uses."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            return "cpu"
        details = tf.config.experimental.get_device_details(gpus[0])
        return f"gpu: {details.get('device_name', 'unknown')}"
    if keras.backend.backend() == "jax":
        import jax

        first = jax.devices()[0]
        return "cpu" if first.platform == "cpu" else f"{first.platform}: {first.device_kind}"
    return "cpu"


def prepare(deterministic: Literal["auto"] | bool = "auto") -> None:
    """Before anything is computed: memory grows as needed, and on a CPU (or where asked for) every operation is repeatable."""
    import keras

    if keras.backend.backend() == "jax":
        _keep_compiled()  # JAX computes repeatably on a CPU as it is
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    logging.getLogger("tensorflow").setLevel(
        logging.ERROR
    )  # it warns of tracings that are meant: one for each shape of network
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # already initialised: it keeps what it has
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic is True or (deterministic == "auto" and not gpus):
        tf.config.experimental.enable_op_determinism()
        # Operations are repeatable then, graphs are not: in one of some sixty tracings this pass of TensorFlow 2.21's adds up the
        # terms of a loss in another order, and its last bit is another.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def _keep_compiled() -> None:
    """Has JAX keep what it compiles in Keras's home, for this trainer and all later ones, unless somebody has named another folder.

    Even the smallest functions: making layers compiles dozens. JAX knows an entry by program, versions, flags and the processor's
    features, locks the folder, and removes what was used longest ago.
    """
    import jax

    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or importlib.util.find_spec("filelock") is None:
        return  # without a lock JAX keeps no bounded number of functions
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "compiled"
    for entry in folder.glob("*-cache"):
        # The second file comes when the first is whole. A trainer was killed between: JAX would never take another entry.
        if not entry.with_name(f"{entry.name.removesuffix('-cache')}-atime").exists():
            entry.unlink(missing_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Everything within is made and run on the CPU, also where there is an accelerator."""
    import keras

    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            stack.enter_context(tf.device("/CPU:0"))
        elif keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.default_device(jax.devices("cpu")[0]))
        yield


def peak_memory_bytes() -> int:
    """The most main memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kibibytes


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

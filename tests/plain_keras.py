"""Programs with Keras and nothing of ours: each in a process of its own, forked from one a backend that has only imported Keras, which is
most of what such a program takes."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
"""For programs that import ours after all."""

JAX_PYTHON = os.environ.get("BEQUEST_JAX_PYTHON") or (sys.executable if importlib.util.find_spec("jax") else None)
"""JAX is an extra. Where this Python has none, BEQUEST_JAX_PYTHON may name one that has (with keras, pydantic-settings, pyarrow, h5py)."""

needs_jax = pytest.mark.skipif(JAX_PYTHON is None, reason="no Python with JAX; BEQUEST_JAX_PYTHON names one")

_SERVER = """
import json, os, sys, traceback
import keras
for line in sys.stdin:
    program, arguments, folder, out = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            sys.path.insert(0, "")
            os.dup2(os.open(out + ".out", os.O_WRONLY | os.O_CREAT), 1)
            os.dup2(os.open(out + ".err", os.O_WRONLY | os.O_CREAT), 2)
            sys.argv = ["-c", *arguments]
            exec(program, {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run(program: str, folder: Path, *arguments: object, backend: str = "tensorflow", seconds: float = 120) -> str:
    """What a program printed that was run in `folder` with `arguments`.

    Raises:
        AssertionError: it failed, or took too long.
    """
    server = _server(backend)
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as kept:
        out = Path(kept) / "said"
        request = [program, [str(one) for one in arguments], str(folder), str(out)]
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], seconds)[0]:
            _server.cache_clear()
            server.kill()
            raise AssertionError(f"{backend}: not done after {seconds} s")
        code = server.stdout.readline().strip()
        assert code == "0", f"{backend}: {code}: {out.with_suffix('.err').read_text()[-2000:]}"
        return out.with_suffix(".out").read_text()


@functools.cache
def _server(backend: str) -> subprocess.Popen[str]:
    python = JAX_PYTHON if backend == "jax" else sys.executable
    assert python is not None
    process = subprocess.Popen(
        [python, "-P", "-c", _SERVER],  # no module from where it stands: a temporary folder, in which anything may lie
        cwd=tempfile.gettempdir(),
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.communicate)  # which closes its stdin: it ends
    return process

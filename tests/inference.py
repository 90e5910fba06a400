"""The inference program as a process of its own, for tests whose API has no Keras and needs networks traced."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def inference_program(folder: Path, **environment: str) -> Iterator[str]:
    """Its address. It answers at once; what needs Keras waits for the import."""
    folder.mkdir(parents=True, exist_ok=True)
    address, log = folder / "inference.sock", folder / "inference.log"
    given = os.environ | environment
    own = {name: value for name, value in given.items() if name not in ("DATABASE_URL", "BROKER_URL")}
    with log.open("ab") as file:
        command = [sys.executable, "-m", "worker.inference", "--bind", f"unix://{address}"]
        process = subprocess.Popen(command, env=own, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 60
        while not _listens(address):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.05)
        yield f"unix://{address}"
    finally:
        process.terminate()
        process.wait(20)


def _listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(address)) == 0

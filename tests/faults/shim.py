"""Libraries that lie to a program about its machine, made of the C files beside this one and preloaded."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from tests.faults.rig import Rig, Skipped


def preloaded(rig: Rig, name: str, control: Path) -> dict[str, str]:
    """The environment of a program to whom `NAME_shim.c` lies, as the bytes of `control` say.

    Raises:
        Skipped: this machine has no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("to lie to a process about its machine takes a C compiler (cc), and there is none")
    library, source = rig.folder.home / f"{name}_shim.so", Path(__file__).with_name(f"{name}_shim.c")
    if not library.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), f"BEQUEST_{name.upper()}_FILE": str(control)}


def tell(control: Path, number: int) -> None:
    """Changes the first eight bytes in place: the programs have them mapped."""
    with control.open("r+b") as file:
        file.write(struct.pack("q", number))

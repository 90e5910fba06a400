"""Archives of model folders that were made to do harm, or are damaged: by name, each made when it is asked for."""

from __future__ import annotations

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable

from tests.app.pretrained import folders
from tests.app.pretrained.folders import Parts


def _torch(pickle: bytes) -> Parts:
    parts = folders.parts("bert")
    del parts["model.safetensors"]
    return parts | {"pytorch_model.bin": folders.zipped({"a/data.pkl": pickle, "a/version": b"3"})}


def _links() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("config.json", "model.safetensors"):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(about)
    return file.getvalue()


def _twice() -> bytes:
    file = io.BytesIO(folders.zipped(folders.parts("bert")))
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("config.json", b"{}")
    return file.getvalue()


ALL: dict[str, Callable[[], bytes]] = {
    "a tar of something else": lambda: folders.tarred({"a.txt": b"x"}),
    "a tar that ends": lambda: folders.tarred(folders.parts("vit"))[:20_000],
    "a gzip of noise": lambda: b"\x1f\x8b\x08\0" + bytes(200),
    "links": _links,
    "a bomb": lambda: folders.zipped({**folders.parts("bert"), "config.json": b" " * 2**25}),
    "a deep config": lambda: folders.zipped({**folders.parts("bert"), "config.json": b"[" * 100_000}),
    "a thousand folders": lambda: folders.zipped(
        {f"{n}/config.json": b"{}" for n in range(20_000)} | {"a/model.safetensors": b""}
    ),
    "a pickle that names code": lambda: folders.zipped(_torch(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.")),
    "two of one name": _twice,
}

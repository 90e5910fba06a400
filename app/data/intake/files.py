"""An archive of files becomes a data set of the kind that most of its files are."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Protocol, cast

import numpy as np
from PIL import Image

from app.data import decode
from app.data.intake import archive, beside, boxes, folders, metadata, pictures, sounds, texts
from app.data.intake.folders import Layout
from app.data.prepared import Writer
from app.data.upload import Upload, refuse_unused
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import Intake


class FileKind(Protocol):
    """The face of a module for one kind of file."""

    KIND: str
    ENDINGS: tuple[str, ...]
    OPTIONS: tuple[str, ...]

    def read(self, layout: Layout, upload: Upload, out: Writer) -> tuple[Schema, Intake]: ...


KINDS = {kind.KIND: cast("FileKind", kind) for kind in (pictures, sounds, texts)}


def read(upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    """Raises Invalid: the archive, its files, or what is asked of them."""
    with archive.members(upload.file, upload.format, upload.scratch, upload.limits) as members:
        endings = {name: kind.ENDINGS for name, kind in KINDS.items()}
        inner, ignored = folders.by_name(members)
        annotated = boxes.find(inner, ignored, pictures.KIND, endings, upload.limits)
        kind, layout = (pictures.KIND, annotated) if annotated else folders.layout(inner, ignored, endings)
        if kind is None:
            raise Invalid([_nothing(layout)])
        options, what = ("targets", "skip_broken", *KINDS[kind].OPTIONS), f"{kind}s"
        if layout.metadata is None:
            refuse_unused(upload.options, options, what)
        else:
            refuse_unused(upload.options, (*options, "inputs", "length"), what)
            layout = metadata.described(layout, upload.limits)
            layout.beside = beside.found(layout, upload.options, upload.limits)
        return KINDS[kind].read(layout, upload, out)


def _nothing(layout: Layout) -> Fault:
    found = "; ".join(
        f"{counted.count}: {counted.reason} ({', '.join(counted.examples[:3])})" for counted in layout.ignored.counted()
    )
    known = ", ".join(ending for kind in KINDS.values() for ending in kind.ENDINGS)
    return Fault(
        "/file",
        "no file in the archive is one to learn from" + (f"; {found}" if found else ": it is empty"),
        f"send class folders of files that end in {known}",
        "no_files",
    )


def sample(format: str) -> bytes:
    """A tiny archive with a picture of every format, so that all that reads them is loaded; what reads sounds is loaded here."""
    sounds.warm_up()
    pixels = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8))
    content = {"a/deep.png": _saved(deep, "PNG"), "b/clear.png": _saved(pixels.convert("RGBA"), "PNG")}
    content |= {f"a/{name.lower()}.png": _saved(pixels, name) for name in decode.FORMATS}
    turned = Image.Exif()
    turned[0x0112] = 6
    content["b/turned.jpg"] = _saved(pixels.resize((40, 30)), "JPEG", exif=turned)
    content["b/palette.gif"] = _saved(pixels.quantize(4), "GIF")
    _fail_once()
    made = io.BytesIO()
    if format == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
            for name, data in content.items():
                target.writestr(name, data)
    else:
        with tarfile.open(fileobj=made, mode="w:gz") as target_tar:
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                target_tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _fail_once() -> None:
    """Pillow loads all its other formats when none of ours fits; later than now it could not."""
    for content in (b"no picture", b"\xff\xd8\xff"):
        try:
            decode.picture(content, size=(1, 1), mode="L", fit="pad")
        except decode.Undecodable:
            continue


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, format, **options)
    return made.getvalue()

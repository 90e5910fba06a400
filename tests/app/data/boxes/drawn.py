"""Archives of annotated pictures, made by code: coloured rectangles on noise, whose edges are known to the pixel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tests.app.data.pictures import saved

Box = tuple[str, int, int, int, int]
"""A class, left, top, right and bottom in pixels."""

COLOURS = {"red": (250, 20, 20), "blue": (20, 20, 250)}


def picture(size: tuple[int, int], boxes: Sequence[Box], seed: int = 0) -> np.ndarray:
    """(height, width, 3): dark noise, and a full rectangle of its class's colour for each box."""
    pixels = np.random.default_rng(seed).integers(0, 60, (*size, 3), dtype=np.uint8)
    for name, left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = COLOURS[name]
    return pixels


PICTURES: dict[str, tuple[tuple[int, int], list[Box]]] = {
    "a": ((40, 60), [("red", 5, 4, 25, 20), ("blue", 30, 10, 50, 34)]),
    "b": ((40, 60), [("blue", 10, 8, 22, 30)]),
    "c": ((40, 60), []),
    "d": ((40, 60), [("red", 1, 2, 13, 12)]),
}


def files(folder: str = "images") -> dict[str, bytes]:
    return {f"{folder}/{name}.png": saved(picture(size, boxes)) for name, (size, boxes) in PICTURES.items()}


def coco(pictures: Mapping[str, tuple[tuple[int, int], list[Box]]] = PICTURES, ending: str = ".png") -> dict[str, Any]:
    """A COCO document. The ids have holes, and their order is not that of the names."""
    ids = {"red": 7, "blue": 3}
    annotations = [
        {
            "id": 100 + number,
            "image_id": 11 * image + 5,
            "category_id": ids[name],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        for image, (_, boxes) in enumerate(pictures.values())
        for number, (name, x0, y0, x1, y1) in enumerate(boxes)
    ]
    return {
        "images": [
            {"id": 11 * number + 5, "file_name": f"{name}{ending}", "height": size[0], "width": size[1]}
            for number, (name, (size, _)) in enumerate(pictures.items())
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def of_coco(document: Any = None, **more: bytes) -> dict[str, bytes]:
    return {**files(), "annotations.json": json.dumps(coco() if document is None else document).encode(), **more}


def yolo_lines(size: tuple[int, int], boxes: Sequence[Box], names: Sequence[str] = ("red", "blue")) -> str:
    height, width = size
    return "".join(
        f"{names.index(name)} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} {(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
        for name, x0, y0, x1, y1 in boxes
    )


def of_yolo(**changed: bytes | None) -> dict[str, bytes]:
    """`labels/a.txt` beside `images/a.png`; a picture without boxes has no label file."""
    made: dict[str, bytes | None] = {**files(), "data.yaml": b"train: images\nnc: 2\nnames: ['red', 'blue']\n"}
    made |= {f"labels/{name}.txt": yolo_lines(*about).encode() for name, about in PICTURES.items() if about[1]}
    return {name: content for name, content in {**made, **changed}.items() if content is not None}


def voc_xml(size: tuple[int, int], boxes: Sequence[Box], filename: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in boxes
    )
    return (
        f"<annotation><filename>{filename}</filename><size><width>{size[1]}</width><height>{size[0]}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )


def of_voc(**changed: bytes | None) -> dict[str, bytes]:
    made: dict[str, bytes | None] = {**files("JPEGImages")}
    made |= {f"Annotations/{name}.xml": voc_xml(*about, f"{name}.png").encode() for name, about in PICTURES.items()}
    return {name: content for name, content in {**made, **changed}.items() if content is not None}


def oriented(pixels: np.ndarray, orientation: int) -> bytes:
    """A PNG that is stored so that its EXIF orientation turns it to `pixels`."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image.transpose(back[orientation]) if orientation > 1 else image, exif=exif)

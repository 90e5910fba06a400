"""Files of pictures become pixels: orientation, depth, transparency, size; against NumPy by hand."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.data import decode
from tests.app.data.pictures import noise, saved, smooth

LEVELS = 4
"""By how much a JPEG of a smooth picture may differ from it."""

# The pixels as they are stored, from the upright picture (EXIF 2.32, tag 0x0112).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_all_eight_orientations_come_out_upright(orientation: int, format: str) -> None:
    upright = smooth(24, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}[format]
    content = saved(np.ascontiguousarray(STORED[orientation](upright)), format, exif=exif, **options)
    assert decode.header(content) == decode.Header((24, 40), False, orientation)
    pixels = decode.picture(content, size=(24, 40), mode="RGB", fit="exact")
    assert np.abs(pixels.astype(int) - upright).max() <= (LEVELS if format == "JPEG" else 0)


def test_sixteen_bits_become_eight_by_division() -> None:
    deep = (np.arange(1200, dtype=np.uint16) * 54).reshape(30, 40)
    pixels = decode.picture(saved(deep), size=(30, 40), mode="L", fit="exact")
    assert np.abs(pixels[..., 0] - deep / 257).max() <= 0.5
    assert len(np.unique(pixels)) == 253  # Pillow's own conversion leaves 5 levels
    tiff = decode.picture(saved(deep, "TIFF"), size=(30, 40), mode="RGB", fit="exact")
    assert np.array_equal(tiff, np.repeat(pixels, 3, axis=-1))


def test_what_is_transparent_stands_on_white() -> None:
    colours = np.array([[[10, 20, 30, 0], [10, 20, 30, 255]], [[200, 0, 0, 128], [0, 0, 0, 255]]], np.uint8)
    alpha = colours[..., 3:] / 255
    expected = colours[..., :3] * alpha + 255 * (1 - alpha)
    pixels = decode.picture(saved(colours), size=(2, 2), mode="RGB", fit="exact")
    assert np.abs(pixels - expected).max() <= 1
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 50, 100, 150])
    pixels = decode.picture(saved(palette, "PNG", transparency=0), size=(2, 2), mode="RGB", fit="exact")
    assert pixels.tolist() == [[[255] * 3, [50, 100, 150]], [[50, 100, 150], [255] * 3]]


def test_other_modes_become_colours_and_grey_stays_grey() -> None:
    colours = smooth(16, 16)
    cmyk = decode.picture(
        saved(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=100), size=(16, 16), mode="RGB", fit="exact"
    )
    assert np.abs(cmyk.astype(int) - colours).mean() < 4
    grey = colours[..., 0]
    assert decode.header(saved(grey)) == decode.Header((16, 16), True)
    assert np.array_equal(decode.picture(saved(grey), size=(16, 16), mode="L", fit="exact")[..., 0], grey)
    bits = decode.picture(saved(Image.fromarray(grey > 99)), size=(16, 16), mode="L", fit="exact")
    assert np.array_equal(bits[..., 0], np.where(grey > 99, 255, 0))
    luma = decode.picture(saved(colours), size=(16, 16), mode="L", fit="exact")[..., 0]
    assert np.abs(luma - colours @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_taken(format: str) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (250, 10, 120)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert np.abs(decode.picture(content, size=(8, 8), mode="RGB", fit="exact") - 250.0).max() <= 1


def triangles(there: int, wanted: int) -> np.ndarray:
    """The weights of bilinear reading with antialiasing, (wanted, there): a triangle as wide as a new pixel, at least as an old one."""
    scale = max(1.0, there / wanted)
    centre = (np.arange(wanted) + 0.5) * there / wanted
    distance = np.abs(np.arange(there)[None] + 0.5 - centre[:, None]) / scale
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(10, 10), (7, 33), (96, 64), (25, 37)])
def test_resizing_is_antialiased(size: tuple[int, int]) -> None:
    whole = noise(1, 50, 37, 3)
    down, across = triangles(50, size[0]), triangles(37, size[1])
    expected = np.einsum("ij,jkc,lk->ilc", down, whole, across)
    pixels = decode.picture(saved(whole), size=size, mode="RGB", fit="stretch")
    assert np.abs(pixels - expected).max() <= 1.5


def test_a_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    whole = smooth(480, 640)
    expected = np.einsum("ij,jkc,lk->ilc", triangles(480, 24), whole, triangles(640, 32))
    pixels = decode.picture(saved(whole, "JPEG", quality=95), size=(24, 32), mode="RGB", fit="stretch")
    assert np.abs(pixels - expected).mean() < 2


def test_fits_keep_proportions_or_do_not() -> None:
    wide = np.full((20, 40, 3), 200, np.uint8)
    wide[:, :10], wide[:, -10:] = 50, 50
    content = saved(wide)
    padded = decode.picture(content, size=(40, 40), mode="RGB", fit="pad")
    assert not padded[:10].any()
    assert not padded[30:].any()
    assert np.array_equal(padded[10:30], wide)
    cropped = decode.picture(content, size=(20, 20), mode="RGB", fit="crop")
    assert np.array_equal(cropped, wide[:, 10:30])
    assert decode.picture(content, size=(20, 20), mode="RGB", fit="stretch")[:, 0].max() == 50
    with pytest.raises(decode.Undecodable, match="20 × 40"):
        decode.picture(content, size=(20, 20), mode="RGB", fit="exact")


JPEG = saved(smooth(64, 64), "JPEG")
PNG = saved(noise(3, 32, 32, 3))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"  <?xml version='1.0'?><svg/>", "XML"),
        (b"\0\0\0\x20ftypheic", "HEIC"),
        (b"\0\0\0\x20ftypmp42", "video"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "sound"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4", "zip"),
        (JPEG[: len(JPEG) // 2], "early"),
        (PNG[: len(PNG) // 2], "early"),
        (PNG[:1000] + b"\0" * 40 + PNG[1040:], "damaged"),
        (b"GIF89a", "no picture"),
        (b"BM" + b"\0" * 60, "no picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "no picture"),
        (b"II*\0\x08\0\0\0\0\0", "no picture"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "no picture"),
        (JPEG[:20], "no picture"),
        (bytes(range(256)) * 8, "no picture"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
        (b"P6 4 4 255\n" + bytes(48), "no picture"),
        (saved(Image.new("1", (8000, 6251))), "pixels"),
    ],
    ids=range(21),
)
def test_what_is_no_picture_is_refused_with_what_it_is(content: bytes, says: str) -> None:
    with pytest.raises(decode.Undecodable, match=says):
        decode.picture(content, size=(8, 8), mode="RGB", fit="pad")


def test_it_stands_alone(tmp_path: Path) -> None:
    """A user's program has the file beside the model, NumPy and Pillow, and nothing of the service."""
    source = Path(decode.__file__)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"numpy", "PIL"}
    shutil.copy(source, tmp_path / "preprocess.py")
    (tmp_path / "bird.jpg").write_bytes(JPEG)
    program = (
        "import json, preprocess; row = preprocess.picture(open('bird.jpg', 'rb').read(), size=(5, 4), mode='L', fit='crop');"
        " print(json.dumps(row.tolist()))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert np.array_equal(json.loads(answer.stdout), decode.picture(JPEG, size=(5, 4), mode="L", fit="crop"))

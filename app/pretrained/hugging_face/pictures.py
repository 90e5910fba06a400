"""How a folder's network sees pictures: what `preprocessor_config.json` says of their pixels and their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.pretrained.hugging_face.folder import Folder
from app.spec.faults import Fault, Invalid
from app.spec.imports import Scale
from app.spec.intake import Fit

FILE = "preprocessor_config.json"
HALF, MEAN, STD = [0.5] * 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BICUBIC, USUAL_SHARE = 3, 224 / 256
AGAIN = "send it without that file, and say -F scale=…"


@dataclass(frozen=True)
class Pictures:
    """`scale`: None where the folder does not say it."""

    size: tuple[int, int] | None = None
    scale: Scale | None = None
    fit: Fit | None = None
    notes: list[str] = field(default_factory=list)


def read(folder: Folder) -> Pictures:
    """Raises Invalid: pixels are prepared in a way that has no name here."""
    if FILE not in folder.names:
        return Pictures()
    told = folder.json(FILE)
    size, crops, notes = _size(told), _crops(told), list[str]()
    if crops and size is not None and (first := _before(told, size)) != min(size):
        notes.append(
            f"its makers bring a picture's shorter side to {first} pixels and cut {min(size)} out of the middle: "
            f"here that side becomes {min(size)}, so that more of the picture is seen"
        )
    if told.get("resample") == BICUBIC:
        notes.append("its makers resize pictures bicubically, here it is done bilinearly")
    return Pictures(size, _scale(told), "crop" if crops else None, notes)


def _scale(told: Mapping[str, Any]) -> Scale:
    factor = told.get("rescale_factor", 1 / 255)
    if told.get("do_rescale", True) is False:
        if told.get("do_normalize") is False:
            return "0..255"
    elif isinstance(factor, int | float) and abs(factor - 1 / 255) < 1e-6:
        if told.get("do_normalize", True) is False:
            return "0..1"
        for name, mean, std in _NAMED:
            if _near(told.get("image_mean"), mean) and _near(told.get("image_std"), std):
                return name
    raise Invalid(
        [Fault(f"/{FILE}", "its pixels are neither 0..255, 0..1, -1..1 nor ImageNet's", AGAIN, "not_available")]
    )


_NAMED: list[tuple[Scale, list[float], list[float]]] = [("-1..1", HALF, HALF), ("imagenet", MEAN, STD)]


def _near(told: Any, wanted: list[float]) -> bool:
    return (
        isinstance(told, list)
        and len(told) == len(wanted)
        and all(
            isinstance(number, int | float) and abs(number - own) < 1e-3
            for number, own in zip(told, wanted, strict=True)
        )
    )


def _size(told: Mapping[str, Any]) -> tuple[int, int] | None:
    """The sides that a network is given; None where it does not say them in a way that is known."""
    size = told.get("crop_size") if told.get("do_center_crop") else told.get("size")
    if isinstance(size, dict):
        shortest = size.get("shortest_edge")
        sides = size.get("height", shortest), size.get("width", shortest)
    else:
        sides = size, size
    height, width = (side if type(side) is int and 1 <= side <= 1024 else None for side in sides)
    return None if height is None or width is None else (height, width)


def _before(told: Mapping[str, Any], size: tuple[int, int]) -> int:
    """What the shorter side is before the middle is cut out."""
    if not told.get("do_center_crop"):
        share = told.get("crop_pct") or USUAL_SHARE
        return int(min(size) / share) if isinstance(share, int | float) and share > 0 else min(size)
    whole = told.get("size")
    sides = [side for side in (whole.values() if isinstance(whole, dict) else [whole]) if type(side) is int]
    return min(sides, default=min(size))


def _crops(told: Mapping[str, Any]) -> bool:
    """Whether a picture keeps its shape and loses its borders. ConvNeXT's way, which ResNet's folders name, does so below 384 pixels."""
    size, name = told.get("size"), str(told.get("image_processor_type", told.get("feature_extractor_type")))
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size
    if name.startswith("ConvNext"):
        return type(shortest) is int and shortest < 384
    return bool(told.get("do_center_crop")) or (isinstance(size, dict) and "shortest_edge" in size)

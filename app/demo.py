"""`bequest demo`: a service of its own in a temporary folder, three jobs over HTTP, and what came of them.

Every call is shown as a line of curl that could be typed instead. Nothing here is known to the service: it is a client.
"""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from app import showing


def jobs(quick: bool) -> list[dict[str, Any]]:
    """The three experiments; `quick` has one pair each, from which nothing can be concluded."""
    control = {"seeds": 1 if quick else 5}
    return [
        {
            "kind": "transfer",
            "name": "strokes to handwriting",
            "dataset": "digits",
            "limit_train_examples": {"per_class": 5},
            "source": {"train": {"dataset": "strokes", "training": {"steps": 300}}},
            "training": {"steps": 150},
            "control": control,
        },
        {
            "kind": "multitask",
            "name": "digit, parity and size",
            "dataset": "digits",
            "tasks": {
                "digit": {"column": "digit", "limit_train_labels": 50},
                "odd": {"column": "odd", "limit_train_labels": 1000},
                "at_least_5": {"column": "at_least_5", "limit_train_labels": 1000},
            },
            "training": {"steps": 300},
            "control": {**control, "primary": "digit"},
        },
        {
            "kind": "distillation",
            "name": "93,322 parameters to 2,258",
            "dataset": "digits",
            "limit_train_examples": 100,
            "teacher": {
                "train": {
                    "dataset": "digits",
                    "architecture": "cnn",
                    "limit_train_examples": 1000,
                    "training": {"steps": 150},
                }
            },
            "student": "cnn-small",
            "unlabelled": "digits",
            "training": {"steps": 300},
            "control": control,
        },
    ]


def demo(*, quick: bool, keep: bool, picture: Path | None = None) -> int:
    """0 when all three jobs succeeded and the service answered a prediction. `picture`: an SVG of the last page is written there."""
    return showing.run("demo", keep, lambda client, console: _show(client, quick, console, picture))


def _show(client: httpx.Client, quick: bool, console: Console, picture: Path | None) -> bool:
    ids = [showing.submit(client, body, console) for body in jobs(quick)]
    good = showing.ended_well(client, ids, console)
    if good:
        showing.results(client, good, console)
    if len(good) == len(ids):
        _predict(client, good[0]["id"], console)
        if picture is not None:
            page = Console(
                record=True,
                file=io.StringIO(),
                width=112,
                color_system="truecolor",
                force_terminal=True,
                highlight=False,
            )
            showing.results(client, good, page)
            _predict(client, good[0]["id"], page)
            picture.write_text(_without_download(page.export_svg(title="./dev demo")), encoding="utf-8")
    return len(good) == len(ids)


def _predict(client: httpx.Client, job_id: str, console: Console) -> None:
    """One real picture, drawn, and the model's answer."""
    showing.type_line(console, "\n$ curl $S/v1/datasets/digits/preview?rows=1")
    row = client.get("/v1/datasets/digits/preview", params={"rows": 1}).json()["rows"][0]
    console.print(_drawn(row["input"], colours=console.color_system in ("256", "truecolor")))
    showing.type_line(console, f"$ curl --json '{{\"inputs\": [that picture]}}' $S/v1/models/job:{job_id}/predict")
    until = time.monotonic() + 60
    while True:  # the first prediction may have to wait for Keras
        answer = client.post(f"/v1/models/job:{job_id}/predict", json={"inputs": [row["input"]]})
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > until:
            break
        time.sleep(0.5)
    if answer.status_code != httpx.codes.OK:
        raise showing.Broken(f"predict answered {answer.status_code}: {answer.text}")
    prediction = answer.json()["predictions"][0]["digit"]
    console.print(
        f"  the model says {prediction['label']} ({prediction['probability']:.1%}); it was written as a {row['digit']}"
    )


def _drawn(picture: Any, colours: bool) -> Text:
    """A grey picture, two rows of pixels to a line of text: in half blocks, or in shades where there are no colours."""
    rows = [[int(pixel[0] if isinstance(pixel, list) else pixel) for pixel in line] for line in picture]
    drawn = Text()
    for upper, lower in zip(rows[::2], rows[1::2], strict=False):
        drawn.append("  ")
        for top, bottom in zip(upper, lower, strict=True):
            if colours:
                drawn.append("▀", f"rgb({top},{top},{top}) on rgb({bottom},{bottom},{bottom})")
            else:
                drawn.append(" ░▒▓█"[min(4, 5 * (top + bottom) // 512)] * 2)
        drawn.append("\n")
    drawn.rstrip()
    return drawn


def _without_download(svg: str) -> str:
    """rich's picture names a web font; ours needs no network."""
    return re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)

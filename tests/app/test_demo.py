"""The demo's parts that need no service; `./dev demo` is the whole."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from app import demo, jobs, showing
from app.db import transaction


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("quick", [True, False])
def test_its_jobs_have_no_fault_and_one_is_of_each_kind(quick: bool) -> None:
    bodies = demo.jobs(quick)
    with transaction() as session:
        resolved = [jobs.validate(session, body) for body in bodies]
    assert [one["kind"] for one in resolved] == ["transfer", "multitask", "distillation"]
    assert {one["control"]["seeds"] for one in resolved} == {1 if quick else 5}


def test_the_page_of_results_names_no_web_font() -> None:
    page = Console(record=True, file=io.StringIO(), width=40)
    page.print("@font-face { of the page itself }")
    svg = page.export_svg(title="demo")
    assert "@font-face {" in svg
    plain = demo._without_download(svg)
    assert "@font-face {" not in plain
    assert "url(https" not in plain
    assert "itself" in plain
    ElementTree.fromstring(plain)


def test_a_picture_is_drawn_in_as_many_lines_as_pairs_of_rows() -> None:
    picture = [[[0], [255]], [[0], [255]], [[128], [0]], [[128], [0]]]
    assert demo._drawn(picture, colours=False).plain == "    ██\n  ▒▒"
    drawn = demo._drawn(picture, colours=True)
    assert drawn.plain == "  ▀▀\n  ▀▀"
    assert [str(span.style) for span in drawn.spans][1] == "rgb(255,255,255) on rgb(255,255,255)"


@pytest.mark.parametrize(
    ("job", "line"),
    [
        ({"state": "queued", "stage": None, "progress": None, "latest": None}, "queued"),
        ({"state": "running", "stage": None, "progress": None, "latest": None}, "starts"),
        (
            {
                "state": "running",
                "stage": "control/0",
                "progress": {"epoch": 2, "epochs": 10, "eta_seconds": 61.4},
                "latest": {"loss": 0.5, "control/0/loss": 0.25, "control/0/val_accuracy": 0.875},
            },
            "control/0 · epoch 2/10 · val_accuracy 0.875 · 61 s left",
        ),
        (
            {
                "state": "running",
                "stage": "target",
                "progress": {"epoch": None},
                "latest": {"loss": 0.5, "source/val_accuracy": 0.9},
            },
            "target · loss 0.500",
        ),
    ],
)
def test_a_bar_says_stage_epoch_metric_and_time_left(job: dict[str, Any], line: str) -> None:
    assert showing.about(job) == line

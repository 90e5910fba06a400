"""Average precision against pycocotools, which is written by others; and what a verdict resamples against the exact
value."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from worker.training.scores import detection
from worker.training.scores.measures import Measure, resample


def scene(seed: int, rows: int = 60, classes: int = 3, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """(detections, boxes): most boxes found nearly, some twice, some as another class, and false ones; ties of scores
    too."""
    rng = np.random.default_rng(seed)
    target, predicted = np.full((rows, 8, 5), -1.0), np.zeros((rows, 30, 6))
    for drawn, found in zip(target, predicted, strict=True):
        count, at = int(rng.integers(0, 8)), 0
        for number in range(count):
            corner, sides, code = rng.uniform(0, 0.7, 2), rng.uniform(0.05, 0.3, 2), int(rng.integers(classes))
            drawn[number] = [*corner, *(corner + sides), code]
            for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
                box = drawn[number, :4] + rng.normal(0, noise, 4).clip(-0.024, 0.024)
                wrong = rng.random() < 0.1
                found[at] = [*box, round(rng.uniform(0.2, 1), 2), rng.integers(classes) if wrong else code]
                at += 1
        for _ in range(int(rng.integers(0, 6))):
            corner = rng.uniform(0, 0.7, 2)
            found[at] = [
                *corner,
                *(corner + rng.uniform(0.05, 0.3, 2)),
                round(rng.uniform(0.01, 0.7), 2),
                rng.integers(classes),
            ]
            at += 1
    return predicted, target


def by_pycocotools(predicted: np.ndarray, target: np.ndarray, classes: int) -> tuple[float, float, np.ndarray]:
    """(mAP50-95, mAP50, precision (10, 101, classes)) on pictures of 1,000 pixels."""
    truth, found = [], []
    for image, (boxes, detections) in enumerate(zip(target, predicted, strict=True)):
        for box in boxes[boxes[:, 4] >= 0]:
            x0, y0, x1, y1 = (box[:4] * 1000).tolist()
            bbox = [x0, y0, x1 - x0, y1 - y0]
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": int(box[4]),
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": 0,
                }
            )
        for box in detections[detections[:, 4] > 0]:
            x0, y0, x1, y1 = (box[:4] * 1000).tolist()
            found.append(
                {
                    "image_id": image,
                    "category_id": int(box[5]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(box[4]),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO()
        oracle.dataset = {
            "images": [{"id": image} for image in range(len(target))],
            "annotations": truth,
            "categories": [{"id": code, "name": str(code)} for code in range(classes)],
        }
        oracle.createIndex()
        answer = COCOeval(oracle, oracle.loadRes(found), "bbox")
        answer.evaluate()
        answer.accumulate()
        answer.summarize()
    return answer.stats[0], answer.stats[1], answer.eval["precision"][:, :, :, 0, 2]


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    predicted, target = scene(seed, classes=3 + seed % 3)
    figures = detection.figures(predicted, target, [str(code) for code in range(3 + seed % 3)])
    whole, first, precision = by_pycocotools(predicted, target, 3 + seed % 3)
    assert 0.2 < first < 0.95
    assert figures["map50"] == pytest.approx(first, abs=1e-9)
    assert figures["map50_95"] == pytest.approx(whole, abs=1e-9)
    for code, told in enumerate(figures["per_class"]):
        assert told["ap50"] == pytest.approx(precision[0, :, code].mean(), abs=1e-9)
        assert told["ap50_95"] == pytest.approx(precision[:, :, code].mean(), abs=1e-9)


def measure(predicted: np.ndarray, target: np.ndarray) -> Measure:
    told = detection.matched(predicted, target)
    return Measure("map50", detection.parts(told), np.arange(len(target)))


def exact(predicted: np.ndarray, target: np.ndarray) -> float:
    return float(np.nanmean(detection.precisions(detection.matched(predicted, target))[0]))


@pytest.mark.parametrize(("rows", "classes"), [(60, 3), (400, 2), (300, 40)])
def test_the_measure_is_exact_and_its_resamples_nearly(rows: int, classes: int) -> None:
    """Each resample against the exact value of the pictures that it drew."""
    predicted, target = scene(rows, rows, classes)
    predicted[..., 4] *= 1 + np.random.default_rng(0).uniform(
        -1e-3, 1e-3, predicted.shape[:2]
    )  # ties have an order only by chance
    parts = detection.parts(detection.matched(predicted, target))
    assert float(detection.MAP50.of(parts.sum(axis=0))) == pytest.approx(exact(predicted, target), abs=1e-12)
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, rows, rows) for _ in range(40)]
    grid = detection.MAP50.of(np.array([parts[which].sum(axis=0) for which in drawn]))
    truth = np.array([exact(predicted[which], target[which]) for which in drawn])
    assert np.abs(grid - truth).max() <= 1e-3
    assert grid.std() == pytest.approx(truth.std(), rel=0.02)


def test_a_perfect_detector_and_an_empty_one() -> None:
    _, target = scene(3)
    perfect = np.concatenate(
        [target[..., :4], np.where(target[..., 4:] >= 0, 0.9, 0.0), np.maximum(target[..., 4:], 0)], axis=-1
    )
    assert exact(perfect, target) == 1.0
    assert exact(np.zeros((60, 5, 6)), target) == 0.0
    figures = detection.figures(perfect, target, ["a", "b", "c"])
    assert (figures["precision"], figures["recall"]) == (1.0, 1.0)


def test_only_the_first_of_two_detections_of_one_box_is_a_hit() -> None:
    target = np.array([[[0.1, 0.1, 0.5, 0.5, 0]]])
    found = np.array([[[0.1, 0.1, 0.5, 0.52, 0.8, 0], [0.1, 0.1, 0.5, 0.5, 0.9, 0], [0.1, 0.1, 0.5, 0.5, 0.7, 1]]])
    told = detection.matched(found, target)
    assert told.hit[0].tolist() == [True, False, False]
    assert exact(found, target) == 1.0  # the second one comes after full recall


def test_resamples_of_many_columns_are_those_of_few() -> None:
    """The draws do not depend on how many are made at once."""
    predicted, target = scene(5)
    one = measure(predicted, target)
    wide = Measure("map50", one.statistics, one.units)
    alone, both = resample([one], 3, 50), resample([one, wide], 3, 50)
    assert np.array_equal(alone[0], both[0])
    assert np.array_equal(both[0], both[1])

"""That `tests/every_name.py` finds what there is: a search that finds too little would let untrained names pass."""

from __future__ import annotations

import pytest

from app import methods
from app.api.catalog import Catalog
from tests import every_name

NAMES = every_name.names()


def test_every_section_of_the_catalog_has_names() -> None:
    assert {section for section, _ in NAMES} == {*Catalog.model_fields, "words"}
    assert len(NAMES) == len(set(NAMES))


def test_the_words_of_the_schemas_are_found_once_each_and_no_defaults() -> None:
    words = [name for section, name in NAMES if section == "words"]
    endings = [name.partition(".")[2] for name in words]
    for word in (
        "training.optimizer.name=rmsprop", "training.precision=mixed_bfloat16", "training.schedule=cosine", "split.by=group",
        "export=onnx", "student_init=from_teacher", "tasks.site.type=multilabel", "lora.target_modules=all",
        "training.early_stopping.restore_best=false", "training.augmentation.type=noise", "batch_norm=trainable",
    ):  # fmt: skip
        assert endings.count(word) == 1, word
    assert not {"training.optimizer.name=adam", "training.precision=float32", "split.by=stratified"} & set(endings)


@pytest.mark.parametrize(("section", "name"), NAMES)
def test_each_has_a_job_whose_words_are_right(section: str, name: str) -> None:
    methods.parse(every_name.job_with(section, name))


def test_a_section_without_a_recipe_fails() -> None:
    with pytest.raises(AssertionError, match="no recipe for the gadgets"):
        every_name.job_with("gadgets", "lever")

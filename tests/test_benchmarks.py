"""What the measurements of quality take from an earlier run was made by the code that is there now."""

from __future__ import annotations

from pathlib import Path

from benchmarks.experiments import jobs

HERE = Path(jobs.__file__).parent


def test_editing_a_rival_or_an_experiment_measures_it_again_and_editing_the_page_does_not() -> None:
    found = set(jobs.sources())
    assert {
        HERE / f"{name}.py" for name in ("rivals", "distillation", "multitask", "transfer", "null", "jobs")
    } <= found
    assert HERE.parent / "rivals" / "torch_side.py" in found
    assert not {HERE / "page.py", HERE / "picture.py"} & found

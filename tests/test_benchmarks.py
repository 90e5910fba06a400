"""What the measurements of quality take from an earlier run was made by the code that is there now; and how speeds are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.experiments import jobs
from benchmarks.performance import programs, results

HERE = Path(jobs.__file__).parent


def test_editing_a_rival_or_an_experiment_measures_it_again_and_editing_the_page_does_not() -> None:
    found = set(jobs.sources())
    assert {
        HERE / f"{name}.py" for name in ("rivals", "distillation", "multitask", "transfer", "null", "jobs")
    } <= found
    assert HERE.parent / "rivals" / "torch_side.py" in found
    assert not {HERE / "page.py", HERE / "picture.py"} & found


def test_quartiles_are_told_with_the_median_and_left_out_where_all_rounds_agree() -> None:
    assert results.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == "**3.00×** (1.50 to 4.50)"
    assert results.quartiles([2.0], unit="") == "**2**"
    assert results.quartiles([3.0, 3.0, 3.0], unit=" s") == "**3 s**"


def test_a_ratio_is_of_measurements_of_one_round() -> None:
    assert results.over([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="zip"):
        results.over([1.0], [1.0, 2.0])


def test_arms_take_turns_and_another_one_begins_each_round() -> None:
    order: list[str] = []

    def arm(name: str, value: float) -> Callable[[], float]:
        def measure() -> float:
            order.append(name)
            return value

        return measure

    found = results.in_turns({"a": arm("a", 1.0), "b": arm("b", 2.0), "c": arm("c", 3.0)}, 3)
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [3.0] * 3}
    assert "".join(order) == "abcbcacab"


@pytest.mark.parametrize(
    ("goal", "values", "told"),
    [
        (results.Goal("least", 1.3), [1.2, 1.4, 1.5], "≥ 1.3×, reached"),
        (results.Goal("least", 1.3), [1.2, 1.2, 1.5], "≥ 1.3×, not reached"),
        (results.Goal("most", 0.15), [0.1, 0.1, 0.9], "≤ 0.15×, reached"),
        (results.Goal("most", 2), [2.0], "≤ 2×, reached"),
        (None, [1.0, 2.0], ""),
    ],
)
def test_a_goal_is_judged_by_the_median(goal: results.Goal | None, values: list[float], told: str) -> None:
    assert results.Result("work", "rival", values, goal).line().split(" | ")[3].strip(" |") == told


def test_the_page_holds_a_row_for_each_result_and_the_command_that_made_it() -> None:
    found = [results.Result("a", "b", [1.0]), results.NotRun("c", "d", "no card here", "≥ 8×")]
    page = results.page(["How it\nwas done."], results.command(["programs"], 7), 7, found)
    assert "`python -m benchmarks.performance --only programs --rounds 7 --write docs/performance.md`: " in page
    assert "\nHow it was done.\n" in page
    assert page.endswith("| a | b | **1×** |  |  |\n| c | d | not run: no card here | ≥ 8× | |\n")
    assert "--only" not in results.command([], 7)


def test_the_former_code_is_checked_out_for_a_while_and_a_revision_that_is_not_here_is_told(tmp_path: Path) -> None:
    with pytest.raises(programs.Missing, match="0000000"), programs.checkout("0000000", tmp_path / "none"):
        pass
    if not (programs.ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    with programs.checkout("HEAD", tmp_path / "code") as code:
        assert (code / "worker" / "training").is_dir()
    assert not (tmp_path / "code").exists()


def test_a_side_answers_each_line_with_a_number_and_is_told_of_when_it_fails(tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text("from answering import answer\nanswer(lambda most: lambda steps: steps, lambda: None)\n")
    with programs.answering([sys.executable, str(script)], programs.RIVALS) as ask:
        assert 0 < ask("steps 0.01") < 0.01
        assert 0 < ask("fresh 5") < 1
        with pytest.raises(RuntimeError, match="ValueError"):
            ask("nonsense")

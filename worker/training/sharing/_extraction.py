"""Levels of shared experts and of each task's own, mixed by gates, as cgc and ple have them."""

from __future__ import annotations

from collections.abc import Sequence

from app.spec.faults import Fault, Invalid
from app.spec.trace import TracedLayer
from worker.training.sharing import INPUT, Plan


def extract(
    plan: Plan, tasks: Sequence[str], levels: Sequence[Sequence[TracedLayer]], shared: int, own: int
) -> dict[str, str]:
    """The name of each task's gate output after the last level.

    Each level has `shared` experts and `own` ones for each task: copies of its layers. A task's gate sees its own experts and the
    shared ones; between levels the shared experts have a gate as well, which sees all. A gate is computed from the output of the gate
    below it. Without own experts the first shared one begins as the plain trunk does.

    Raises:
        Invalid: there are no experts.
    """
    if not shared + own:
        raise Invalid([Fault("/experts", "there are no experts, neither shared nor of a task", "give at least one")])
    at, shared_at = dict.fromkeys(tasks, INPUT), INPUT
    for number, layers in enumerate(levels, 1):
        level = f"level{number}-" if number > 1 else ""
        common = [
            plan.copy(layers, f"expert{index}", shared_at, as_trunk=index == 1 and not own)
            for index in range(1, shared + 1)
        ]
        theirs = {
            task: [plan.copy(layers, f"{task}-expert{index}", at[task]) for index in range(1, own + 1)]
            for task in tasks
        }
        for task in tasks:
            at[task] = plan.mix(
                f"{level}{task}", at[task], [*theirs[task], *common], None if own else f"{level}all-experts"
            )
        if shared and number < len(levels):
            every = [*(expert for task in tasks for expert in theirs[task]), *common]
            shared_at = plan.mix(f"{level}shared-by-all", shared_at, every)
    return at

from __future__ import annotations

import pytest

from worker.training.methods._annealing import Factors, label_share
from worker.training.objectives import dkd, logits

WORDS = [logits.Spec(temperature=4.0), dkd.Spec(warmup_epochs=2)]


def test_labels_are_absent_from_the_first_epoch_and_alone_in_the_last() -> None:
    assert [label_share(epoch, 5) for epoch in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert label_share(0, 1) == 1.0
    assert [label_share(epoch, 2) for epoch in range(2)] == [0.0, 1.0]


def test_annealing_moves_once_an_epoch_and_shares_out_1() -> None:
    factors = Factors("digit", WORDS[:1], "linear_anneal", steps=14, epoch_steps=3)  # four whole epochs and a part
    found = [factors(step) for step in range(14)]
    labels = [float(one["digit/label_factor"]) for one in found]
    assert labels == [0.0] * 3 + [0.25] * 3 + [0.5] * 3 + [0.75] * 3 + [1.0] * 2
    assert [float(one["digit/factor/0"]) for one in found] == [1 - share for share in labels]


def test_a_warm_up_and_annealing_multiply() -> None:
    factors = Factors("digit", WORDS, "linear_anneal", steps=5, epoch_steps=1)
    found = [[float(one[f"digit/factor/{number}"]) for number in (0, 1)] for one in map(factors, range(5))]
    assert found == [[1.0, 0.5], [0.75, 0.75], [0.5, 0.5], [0.25, 0.25], [0.0, 0.0]]


def test_constant_weights_stay_and_only_a_warm_up_rises() -> None:
    factors = Factors("digit", WORDS, "constant", steps=6, epoch_steps=2)
    found = [factors(step) for step in range(6)]
    assert (
        {float(one["digit/label_factor"]) for one in found} == {float(one["digit/factor/0"]) for one in found} == {1.0}
    )
    assert [float(one["digit/factor/1"]) for one in found] == pytest.approx([0.5, 0.5, 1, 1, 1, 1])

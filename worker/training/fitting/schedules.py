"""The learning rate of each step: a number that the step is given, so that no compiled program hangs on a rate or a budget.

With a highest rate η, T steps of a phase and W of them to warm up; t counts from 0:

- warm-up: η·(t + 1)/W (Goyal et al. 2017, section 2.2, by steps); then one of
- constant: η,
- cosine: η·(1 + cos(π·(t − W)/(T − W)))/2 (Loshchilov and Hutter 2017, equation 5, without restarts),
- step: η, η/10 from T/2 and η/100 from 3T/4 on (He et al. 2016, section 4.2: at 32,000 and 48,000 of 64,000 steps),
- one_cycle: from η/25 up to η in the first 0.3 of T, then down to η/250,000, both by a cosine (Smith and Topin 2018, with the numbers of
  fastai and PyTorch; the momentum stays as it is).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from app.spec.training import Schedule

DROP, DROPS = 0.1, (0.5, 0.75)
RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 250_000


def rates(
    schedule: Schedule, highest: float, steps: int, warm_up: int, numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The rates of steps `numbers` (from 0) of a phase of `steps`, the first `warm_up` of which are its warm-up: (n,)."""
    warm_up = min(warm_up, steps)
    share, found = numbers / steps, np.full(len(numbers), highest)
    match schedule:
        case "cosine":
            after = np.clip((numbers - warm_up) / max(1, steps - warm_up), 0.0, 1.0)
            found = highest * _fallen(after)
        case "step":
            found = highest * DROP ** np.searchsorted(DROPS, share, side="right")
        case "one_cycle" if steps > 1:
            top = RISE * steps - 1
            rising = FIRST + (1 - FIRST) * (1 - _fallen(np.clip(numbers / max(top, 1e-9), 0.0, 1.0)))
            falling = LAST + (1 - LAST) * _fallen(np.clip((numbers - top) / (steps - 1 - top), 0.0, 1.0))
            found = highest * np.where(numbers <= top, rising, falling)
    return np.where(numbers < warm_up, highest * (numbers + 1) / max(1, warm_up), found)


def _fallen(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 at 0, 0 at 1, by a cosine."""
    return np.asarray(0.5 * (1 + np.cos(np.pi * share)))

"""TorchJD's steps, timed in turns with the service's: `python torchjd_side.py ROWS.npz METHOD`.

Runs in the rivals' own virtual environment. One trunk, a head a task, the same labels in another order for each, Adam. Of the two ways in
which TorchJD goes through the tasks' gradients, one after another or all at once, the faster one here is taken; one thread, since these
networks are too small for two.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from answering import answer
from torch import nn
from torchjd import aggregation
from torchjd.autojac import jac_to_grad, mtl_backward


def main() -> None:
    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as file:
        inputs, labels, about = file["inputs"], file["labels"], json.loads(str(file["about"]))
    ways = {chunk: begun(inputs, labels, about, sys.argv[2], chunk) for chunk in (None, 1)}
    for go in ways.values():
        go(50)
    fastest = min(ways, key=lambda chunk: seconds(ways[chunk]))
    answer(lambda _: begun(inputs, labels, about, sys.argv[2], fastest), forget)


def seconds(go: Callable[[int], int]) -> float:
    begun = time.perf_counter()
    go(200)
    return time.perf_counter() - begun


def forget() -> None:
    gc.collect()


def aggregator(method: str) -> Any:
    return aggregation.CAGrad(c=0.5) if method == "CAGrad" else getattr(aggregation, method)()


def begun(
    inputs: np.ndarray, labels: np.ndarray, about: dict[str, Any], method: str, chunk: int | None
) -> Callable[[int], int]:
    torch.manual_seed(0)
    widths = [inputs.shape[1], *about["units"]]
    layers = [(nn.Linear(ins, outs), nn.ReLU()) for ins, outs in itertools.pairwise(widths)]
    trunk = nn.Sequential(*(layer for pair in layers for layer in pair))
    heads = nn.ModuleList(nn.Linear(widths[-1], about["classes"]) for _ in range(about["tasks"]))
    rows = torch.from_numpy(inputs.astype(np.float32))
    orders = [labels, *(np.random.default_rng(task).permutation(labels) for task in range(1, about["tasks"]))]
    given = [torch.from_numpy(order.astype(np.int64)) for order in orders]
    shared = list(trunk.parameters())
    # Keras's Adam has eps 1e-7, PyTorch's 1e-8.
    optimizer = torch.optim.Adam([*shared, *heads.parameters()], lr=1e-3, eps=1e-7)
    combine, batch, at = aggregator(method), about["batch"], 0
    order = torch.randperm(len(rows))

    def go(steps: int) -> int:
        nonlocal at, order
        for _ in range(steps):
            if at + batch > len(rows):
                order, at = torch.randperm(len(rows)), 0
            some = order[at : at + batch]
            at += batch
            optimizer.zero_grad()
            features = trunk(rows[some])
            losses = [
                nn.functional.cross_entropy(head(features), label[some])
                for head, label in zip(heads, given, strict=True)
            ]
            mtl_backward(losses, features=features, parallel_chunk_size=chunk)
            jac_to_grad(shared, combine)
            optimizer.step()
        return steps

    return go


if __name__ == "__main__":
    main()

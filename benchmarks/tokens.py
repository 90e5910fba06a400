"""Texts in tokens against texts in bytes. `python -m benchmarks.tokens`.

Measured are what a tokenizer costs (fitted on the texts of a built-in data set's maker, ids of batch after batch), and what networks of one
size learn of the built-in messages from bytes and from tokens, in the same number of steps.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from app.data import messages
from app.data.inputs import text
from app.spec.data import Tokens
from worker.training.data import tokens
from worker.training.dummy import try_out
from worker.training.methods import multitask

BATCH = 64
BPE = {"type": "bpe", "vocabulary": 500, "length": 40}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    cost(asked.rows)
    for tasks, arch in (({"topic": {}}, "text-cnn-small"), ({"next_token": {}}, "causal-transformer-small")):
        for seen in (None, BPE):
            learnt(tasks, {"arch": arch, **({"tokens": seen} if seen else {})}, asked.steps)


def cost(count: int) -> None:
    rows = text.rows(list(messages.make(count)[0]), 128)
    size = int((rows > 0).sum())
    tokens.fit([(rows[:9], np.arange(9))], Tokens())  # what importing takes is not counted
    began, cpu, held = time.monotonic(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = tokens.fit([(rows, np.arange(count))], Tokens(vocabulary=2000, length=64))
    taken, cpu = time.monotonic() - began, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024
    print(f"the largest memory grew by {grown:.0f} MiB")
    print(f"fitted on {count:,} rows, {size / 2**20:.1f} MiB: {made.learnt} tokens, {taken:.2f} s, {cpu:.2f} CPU-s")
    began, cpu, ids = time.monotonic(), time.process_time(), 0
    for start in range(0, count, BATCH):
        ids += int((made(rows[start : start + BATCH]) > 0).sum())
    taken, cpu = time.monotonic() - began, time.process_time() - cpu
    batches = -(-count // BATCH)
    print(
        f"ids by {BATCH} rows: {ids / taken:,.0f} tokens a second, {1000 * taken / batches:.2f} ms a batch, {cpu:.2f} CPU-s"
    )
    print(f"{size / ids:.2f} bytes a token; tokenizer.json {len(made.content.encode()) / 1024:.0f} KiB")


def learnt(tasks: dict[str, Any], trunk: dict[str, Any], steps: int) -> None:
    (name,) = tasks
    body = {
        "kind": "multitask",
        "dataset": "messages",
        "tasks": tasks,
        "trunk": trunk,
        "training": {"steps": steps, "batch_size": BATCH},
        "control": {"seeds": 0},
    }
    began = time.monotonic()
    report = try_out(multitask, body)
    metric = report["tasks"][name]["metric"]
    seen = "tokens" if "tokens" in trunk else "bytes"
    print(
        f"{name}, {trunk['arch']}, {seen}: {metric['name']} {metric['value']:.3f} after {steps} steps, {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()

"""torchdistill and TorchJD on arrays that `benchmarks/quality.py` wrote: `python torch_side.py PLAN.json`.

Runs in the rivals' own virtual environment, so it imports nothing of Bequest. The plan is a list of fits
{"lesson": NPZ, "method": NAME, "init": "own" | "ours", "seed": n, "answers": NPZ}; a lesson holds the rows, the order of the
batches, labels with their masks, the teacher's logits and the initial numbers, so that what differs is what these libraries do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchdistill.losses.mid_level import KDLoss
from torchjd.aggregation import CAGrad, PCGrad, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward
from torchjd.scalarization import UW, Sum

TEMPERATURE, LABEL_WEIGHT, TEACHER_WEIGHT, CALPHA = 4.0, 0.1, 0.9, 0.5


class Network(nn.Module):
    """The same network: convolutions of 3×3 with ReLU, two poolings between, a dense layer, a head for each task."""

    def __init__(self, filters: list[int], dense: int, units: dict[str, int]):
        super().__init__()
        widths = [1, *filters]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in zip(widths, filters, strict=False))
        self.dense = nn.Linear(3 * 3 * filters[-1], dense)
        self.heads = nn.ModuleDict({name: nn.Linear(dense, width) for name, width in units.items()})

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        for number, convolution in enumerate(self.convolutions):
            x = torch.relu(convolution(x))
            if number < len(self.convolutions) - 1:
                x = torch.max_pool2d(x, 2)
        # Keras flattens (height, width, channel): the same order lets the same numbers be loaded.
        return torch.relu(self.dense(x.permute(0, 2, 3, 1).flatten(1)))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.trunk(x)
        return {name: head(features) for name, head in self.heads.items()}

    def load(self, weights: dict[str, list[np.ndarray]]) -> None:
        """Takes numbers as Keras lays them out: kernels (height, width, in, out) and (in, out)."""
        layers = {f"conv{number}": layer for number, layer in enumerate(self.convolutions, 1)}
        layers |= {"dense1": self.dense, **{f"{name}_logits": head for name, head in self.heads.items()}}
        assert set(layers) == set(weights), (sorted(layers), sorted(weights))
        with torch.no_grad():
            for name, layer in layers.items():
                kernel, bias = (torch.from_numpy(array) for array in weights[name])
                layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.dim() == 4 else kernel.T)
                layer.bias.copy_(bias)


class Lesson:
    """One seed's arrays."""

    def __init__(self, path: str):
        file = np.load(path)
        about = json.loads(str(file["about"]))
        self.tasks: dict[str, str] = about["tasks"]
        self.units: dict[str, int] = about["units"]
        self.filters, self.dense, self.rate = about["filters"], about["dense"], about["rate"]
        self.inputs = torch.from_numpy(file["inputs"].astype(np.float32) / 255.0).permute(0, 3, 1, 2).contiguous()
        self.test = torch.from_numpy(file["test"].astype(np.float32) / 255.0).permute(0, 3, 1, 2).contiguous()
        self.order = torch.from_numpy(file["order"].astype(np.int64))
        self.labels = {name: torch.from_numpy(file[f"label {name}"]) for name in self.tasks}
        self.known = {name: torch.from_numpy(file[f"known {name}"].reshape(-1) > 0) for name in self.tasks}
        self.teacher = torch.from_numpy(file["teacher"]) if "teacher" in file else None
        self.weights: dict[str, list[np.ndarray]] = {}
        for key in sorted(key for key in file.files if key.startswith("weight ")):
            self.weights.setdefault(key.split()[1], []).append(file[key])


def main() -> None:
    torch.set_num_threads(1)
    for fit in json.loads(Path(sys.argv[1]).read_text()):
        lesson = Lesson(fit["lesson"])
        torch.manual_seed(fit["seed"])
        network = Network(lesson.filters, lesson.dense, lesson.units)
        if fit["init"] == "ours":
            network.load(lesson.weights)
        train(network, lesson, fit["method"])
        with torch.no_grad():
            answers = {name: logits.numpy() for name, logits in network(lesson.test).items()}
        answers["parameters"] = np.array(sum(parameter.numel() for parameter in network.parameters()))
        beside = Path(fit["answers"] + ".part.npz")
        np.savez(beside, **answers)
        beside.rename(fit["answers"])


def train(network: Network, lesson: Lesson, method: str) -> None:
    uncertainty = UW(len(lesson.tasks)) if method.startswith("uw") else None
    if method == "uw_log":  # where ours begins: the variances at which the first losses are stationary
        with torch.no_grad():
            rows = lesson.order[0]
            first = torch.stack(task_losses(network(lesson.inputs[rows]), lesson, rows))
            uncertainty.log_var.copy_(first.log())
    aggregator = {"pcgrad": PCGrad, "upgrad": UPGrad, "cagrad": lambda: CAGrad(c=CALPHA)}.get(method, lambda: None)()
    trained = [*network.parameters(), *(uncertainty.parameters() if uncertainty is not None else ())]
    # Keras's Adam has eps 1e-7, PyTorch's 1e-8.
    optimizer = torch.optim.Adam(trained, lr=lesson.rate, eps=1e-7)
    for rows in lesson.order:
        optimizer.zero_grad()
        x = lesson.inputs[rows]
        if method == "kd":
            distilled(network(x)["digit"], lesson, rows).backward()
        elif aggregator is not None:
            features = network.trunk(x)
            losses = task_losses({name: head(features) for name, head in network.heads.items()}, lesson, rows)
            # One at a time: its parallel way, by vmap, is nine times slower for convolutions on a CPU.
            mtl_backward(losses, features=features, parallel_chunk_size=1)
            jac_to_grad([*network.convolutions.parameters(), *network.dense.parameters()], aggregator)
        else:
            values = torch.stack(task_losses(network(x), lesson, rows))
            (uncertainty(values) if uncertainty is not None else Sum()(values)).backward()
        optimizer.step()


def distilled(logits: torch.Tensor, lesson: Lesson, rows: torch.Tensor) -> torch.Tensor:
    """0.1 · cross-entropy + 0.9 · T² · KL as torchdistill's own class computes it.

    Unlabelled rows share the KL term in proportion; without targets the class leaves T² out, so it is given here.
    """
    known, teacher = lesson.known["digit"][rows], lesson.teacher[rows]
    share = known.float().mean().item()
    loss = kd(TEACHER_WEIGHT * share)(*said(logits[known], teacher[known]), lesson.labels["digit"][rows][known].long())
    if share < 1:
        soft = kd(1.0, alpha=None)(*said(logits[~known], teacher[~known]))
        loss = loss + TEACHER_WEIGHT * (1 - share) * TEMPERATURE**2 * soft
    return loss


def kd(beta: float, alpha: float | None = LABEL_WEIGHT) -> KDLoss:
    return KDLoss("logits", "output", "logits", "output", TEMPERATURE, alpha=alpha, beta=beta)


def said(student: torch.Tensor, teacher: torch.Tensor) -> tuple[dict, dict]:
    return {"logits": {"output": student}}, {"logits": {"output": teacher}}


def task_losses(logits: dict[str, torch.Tensor], lesson: Lesson, rows: torch.Tensor) -> list[torch.Tensor]:
    """Each task's mean loss over its labelled rows of the batch."""
    losses = []
    for name, kind in lesson.tasks.items():
        known = lesson.known[name][rows]
        label, given = lesson.labels[name][rows][known], logits[name][known]
        if kind == "multiclass":
            losses.append(nn.functional.cross_entropy(given, label.long()))
        else:
            losses.append(nn.functional.binary_cross_entropy_with_logits(given, label.float().reshape(given.shape)))
    return losses


if __name__ == "__main__":
    main()

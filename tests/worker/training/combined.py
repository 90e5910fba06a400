"""Jobs that use several things of the catalog at once: what one of them does to another."""

from __future__ import annotations

from typing import Any

from tests.worker.training.resumed import CNN, PICTURES, TABLE

LASTING = {"epochs": 7, "batch_size": 32, "schedule": "cosine", "early_stopping": {"patience": 2}}

CASES: dict[str, dict[str, Any]] = {
    "phases, each ended by patience, cached features, rates by layer, two pairs": {
        "kind": "transfer",
        "dataset": "wine",
        "source": {"train": TABLE},
        "strategy": "gradual_unfreezing",
        "cache_features": True,
        "learning_rates": {"decay": 2.6},
        "training": LASTING,
        "control": {"seeds": 2, "budget": "total"},
    },
    "a head first, held by its source": {
        "kind": "transfer",
        "dataset": "wine",
        "source": {"train": TABLE},
        "strategy": "lp_ft",
        "regularizer": {"name": "l2_sp"},
        "batch_norm": "trainable",
        "training": {**LASTING, "optimizer": {"name": "adamw", "weight_decay": 0.01, "global_clipnorm": 1.0}},
        "control": {"seeds": 1},
    },
    "data sets of two lengths, experts, gradients, half precision": {
        "kind": "multitask",
        "tasks": {
            "digit": {"dataset": "digits", "limit_train_labels": 20},
            "odd": {"dataset": "digits"},
            "stroke": {"dataset": "strokes", "column": "digit"},
        },
        "limit_train_examples": 90,
        "trunk": {"arch": "cnn", "filters": [4], "dense": 8, "dropout": 0.25, "batch_norm": True},
        "sharing": {"name": "mmoe", "experts": 2},
        "weighting": "gradnorm",
        "training": {"epochs": 3, "batch_size": 32, "precision": "mixed_float16"},
        "control": {"seeds": 1, "primary": "digit"},
    },
    "teachers of some tasks, annealed, weighed by epochs": {
        "kind": "multitask",
        "dataset": "digits",
        "limit_train_examples": 90,
        "tasks": {"digit": {"teacher": {"train": PICTURES}}, "odd": {}},
        "trunk": CNN,
        "weighting": "dwa",
        "weight_schedule": "linear_anneal",
        "training": {"epochs": 5, "batch_size": 32},
        "control": {"seeds": 1},
    },
    "generations with projectors and a warm-up, two teachers, unlabelled rows, two pairs": {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 60,
        "teachers": [
            {"train": PICTURES},
            {"model": {"train": {**PICTURES, "training": {"steps": 5, "seed": 1}}}, "weight": 2.0},
        ],
        "student": CNN,
        "objectives": [
            {"type": "dkd", "warmup_epochs": 3},
            {"type": "hint", "weight": 1.0, "projector": "auto", "layers": [["conv2", "conv1"]]},
        ],
        "unlabelled": "digits",
        "generations": 2,
        "training": {"steps": 12},
        "control": {"seeds": 2},
    },
    "a teacher asked with each changed batch": {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 90,
        "teacher": {"train": PICTURES},
        "student": CNN,
        "teacher_outputs": "online",
        "training": {**LASTING, "augmentation": [{"type": "rotation"}, {"type": "noise"}], "precision": "mixed_bfloat16"},
        "control": {"seeds": 1},
    },
}  # fmt: skip

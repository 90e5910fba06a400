"""What transformers makes of tiny models, for tests of the converter: `python transformers_side.py tests/app/pretrained/hugging_face.json`.

Runs in a virtual environment of its own (`pip install torch transformers safetensors numpy`) and from any folder, so it imports nothing
of Bequest, but reads `tests/app/pretrained/hf_numbers.py` by its path. Nothing is downloaded.

Each model is saved as transformers saves it; then the numbers in its file are replaced by those that `hf_numbers.array` has for their
names, and it is loaded again. So names and shapes are those of a published folder, whatever the layers are called in memory, and what is
tied stays tied. Taken down are the folder's config, the names and shapes, and what the model answers in float32.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

NUMBERS = Path(__file__).parents[2] / "tests" / "app" / "pretrained" / "hf_numbers.py"
DIGITS = 8
BERT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "vocab_size": 40,
    "max_position_embeddings": 24,
}
DISTILBERT: dict[str, Any] = {
    "dim": 16,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 32,
    "vocab_size": 40,
    "max_position_embeddings": 24,
}
VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
BOTTLENECK: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 32],
    "depths": [2, 1],
    "layer_type": "bottleneck",
}
BASIC: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}
NORMALISED = {
    "vit": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "resnet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


def models() -> dict[str, PreTrainedModel]:
    """Each once as it is made; what they were drawn with does not matter. Some have names for their labels, some have none."""
    marks = {0: "bad", 1: "fair", 2: "good"}
    moods = {0: "NEGATIVE", 1: "POSITIVE"}
    multi, number = "multi_label_classification", "regression"
    return {
        "bert": BertModel(BertConfig(**BERT)),
        "bert-classes": BertForSequenceClassification(BertConfig(**BERT, **_labels(marks))),
        "bert-labels": BertForSequenceClassification(BertConfig(**BERT, num_labels=3, problem_type=multi)),
        "bert-number": BertForSequenceClassification(BertConfig(**BERT, num_labels=1, problem_type=number)),
        "bert-masked": BertForMaskedLM(BertConfig(**BERT)),
        "distilbert": DistilBertModel(DistilBertConfig(**DISTILBERT)),
        "distilbert-classes": DistilBertForSequenceClassification(DistilBertConfig(**DISTILBERT, **_labels(moods))),
        "vit": ViTModel(ViTConfig(**VIT)),
        "vit-classes": ViTForImageClassification(ViTConfig(**VIT, num_labels=3)),
        "resnet": ResNetModel(ResNetConfig(**BOTTLENECK)),
        "resnet-classes": ResNetForImageClassification(ResNetConfig(**BASIC, num_labels=2)),
        "resnet-early": ResNetModel(ResNetConfig(**BOTTLENECK, downsample_in_bottleneck=True)),
    }


def _labels(names: dict[int, str]) -> dict[str, Any]:
    return {"id2label": names, "label2id": {name: label for label, name in names.items()}}


def numbers_by_rule() -> ModuleType:
    """The rules, read as a file: the tests' packages need what this environment lacks."""
    spec = importlib.util.spec_from_file_location("hf_numbers", NUMBERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reloaded(
    model: PreTrainedModel, numbers: ModuleType
) -> tuple[PreTrainedModel, dict[str, Any], dict[str, list[int]]]:
    """The model with numbers by rule, its folder's config, and the names and shapes that stand in its file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads(Path(folder, "config.json").read_text())
        file = Path(folder, "model.safetensors")
        with safe_open(file, "numpy") as opened:
            shapes = {name: list(opened.get_slice(name).get_shape()) for name in sorted(opened.keys())}
        given = {name: numbers.array(name, shape) for name, shape in shapes.items()}
        save_file(given, file, metadata={"format": "pt"})
        loaded, seen = type(model).from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            **({"attn_implementation": "eager"} if config["model_type"] != "resnet" else {}),
        )
    assert not any(seen.values()), seen
    inside = loaded.state_dict()
    for name in given.keys() & inside.keys():
        assert np.array_equal(inside[name].numpy(), given[name]), name
    return loaded.eval(), config, shapes


def of_text(model: PreTrainedModel, numbers: ModuleType) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    ids = torch.from_numpy(numbers.ids()).long()
    mask = (ids != 0).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type == "bert":
        inputs["token_type_ids"] = torch.zeros_like(ids)
    found = model.base_model(**inputs)
    hidden, weights = found.last_hidden_state, mask.unsqueeze(-1).float()
    expected = {"cls": hidden[:, 0], "mean": (hidden * weights).sum(1) / weights.sum(1)}
    if getattr(found, "pooler_output", None) is not None:
        expected["pooled"] = found.pooler_output
    if "ForSequenceClassification" in type(model).__name__:
        expected["logits"] = model(**inputs).logits
    return {name: values.tolist() for name, values in inputs.items()}, expected


def of_pictures(model: PreTrainedModel, numbers: ModuleType) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    kind = model.config.model_type
    shift, scale = (np.asarray(NORMALISED[kind][name], np.float32) for name in ("mean", "std"))
    plain = (numbers.pictures().astype(np.float32) / 255 - shift) / scale
    pixels = torch.from_numpy(np.ascontiguousarray(plain.transpose(0, 3, 1, 2)))
    found = model.base_model(pixel_values=pixels)
    expected = {"features": found.last_hidden_state[:, 0] if kind == "vit" else found.pooler_output.flatten(1)}
    if "ForImageClassification" in type(model).__name__:
        expected["logits"] = model(pixel_values=pixels).logits
    return {"rule": "hf_numbers.pictures(): (x / 255 - mean) / std", **NORMALISED[kind]}, expected


def rounded(values: torch.Tensor) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in values.tolist()]


@torch.no_grad()
def main(taken: str) -> None:
    torch.set_num_threads(1)  # in one order, so that the same comes out each time
    numbers = numbers_by_rule()
    lines = []
    for key, made in models().items():
        model, config, shapes = reloaded(made, numbers)
        inputs, expected = (of_text if "bert" in key else of_pictures)(model, numbers)
        answers = {name: rounded(values) for name, values in expected.items()}
        entry = {"config": config, "arrays": shapes, "inputs": inputs, "expected": answers}
        lines.append(f"{json.dumps(key)}:{json.dumps(entry, separators=(',', ':'))}")
    versions = f'"transformers":{json.dumps(transformers.__version__)},"torch":{json.dumps(torch.__version__)}'
    Path(taken).write_text(f'{{{versions},"models":{{\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

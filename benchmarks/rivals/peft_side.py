"""LoRA by PEFT on BERT of transformers, on arrays that `benchmarks/adapters.py` wrote: `python peft_side.py GIVEN.npz TAKEN.npz`.

Runs in the rivals' own virtual environment (`pip install torch transformers peft`), so it imports nothing of Bequest. Given are BERT's
numbers by their own names, ids, labels, a head, and for each adapter A and B as PEFT lays them out; taken down are the features, and A and
B after one step of plain descent.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel

TARGETS = ["query", "key", "value", "attention.output.dense"]


def main(given: str, taken: str) -> None:
    torch.set_num_threads(2)
    with np.load(given) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    bert = {name.removeprefix("bert/"): array for name, array in arrays.items() if name.startswith("bert/")}
    words, wide = bert["embeddings.word_embeddings.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in bert if name.startswith("encoder.layer."))
    config = BertConfig(
        vocab_size=words,
        hidden_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=int(arrays["heads"]),
        intermediate_size=bert["encoder.layer.0.intermediate.dense.weight"].shape[0],
    )
    plain = BertModel(config, add_pooling_layer=False).eval()
    missing = plain.load_state_dict(bert, strict=False).missing_keys
    assert not [name for name in missing if "position_ids" not in name], missing
    rank, alpha = int(arrays["rank"]), float(arrays["alpha"])
    model = get_peft_model(plain, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=TARGETS))
    model.eval()  # nothing is drawn; adapters learn all the same
    adapters = {
        name.removeprefix("base_model.model.").replace(".default.weight", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    with torch.no_grad():
        for name, parameter in adapters.items():
            parameter.copy_(arrays[f"adapter/{name}"])
    ids, labels = arrays["ids"].long(), arrays["labels"].long()
    mask = (ids > 0).long()

    def features() -> torch.Tensor:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        mean = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)

    before = features()
    torch.nn.functional.cross_entropy(before @ arrays["head"], labels).backward()
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.sub_(float(arrays["rate"]) * parameter.grad)
        after = features()
    stepped = {f"adapter/{name}": parameter.detach().numpy() for name, parameter in adapters.items()}
    np.savez(taken, before=before.detach().numpy(), after=after.numpy(), **stepped)


if __name__ == "__main__":
    main(*sys.argv[1:])

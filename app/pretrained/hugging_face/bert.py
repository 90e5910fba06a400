"""BERT and what is of its form, as MiniLM is.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"; Wang et al. 2020, "MiniLM: Deep
Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.pretrained.hugging_face.layers import Activation, Config, Drawn, Layers, count
from app.pretrained.hugging_face.texts import Names, Seen, Tokens, block
from app.pretrained.source import Source


class Bert(Config):
    """Its `config.json`. Widths and depth are read off the arrays."""

    num_attention_heads: int = Field(12, ge=1, le=1024)
    num_hidden_layers: int | None = None
    hidden_act: Activation = "gelu"
    layer_norm_eps: float = Field(1e-12, gt=0, le=1)
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    pad_token_id: Literal[0] = 0


BLOCK = Names(
    attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    attention_norm="attention.output.LayerNorm",
    wide="intermediate.dense",
    back="output.dense",
    norm="output.LayerNorm",
)


def build(source: Source, config: Mapping[str, Any], *, answers: bool, texts: Seen) -> Drawn:
    """On ids of tokens. A head stands on the pooler: [CLS], a dense layer and tanh."""
    said = Bert.of(config)
    inside = source.within("bert.") if "bert.embeddings.word_embeddings.weight" in source.names else source
    tokens = Tokens(texts)
    layers = Layers(tokens.drawing, said.layer_norm_eps)
    # A text is one sentence here, so the numbers of a first sentence are added to those of each place.
    places = inside.take("embeddings.position_embeddings.weight")[: texts.length]
    places = places + inside.take("embeddings.token_type_embeddings.weight")[:1]
    x = tokens.embedded(layers, inside.take("embeddings.word_embeddings.weight"), places)
    x = layers.norm(inside, "embedding_norm", "embeddings.LayerNorm", x)
    for number in range(count(inside, "encoder.layer.", said.num_hidden_layers)):
        inner = inside.within(f"encoder.layer.{number}.")
        named = f"block{number}"
        x = block(
            layers, inner, BLOCK, named, x, heads=said.num_attention_heads, activation=said.hidden_act, seen=tokens.seen
        )
    inside.leave("embeddings.position_ids")
    if answers:
        pooled = layers.dense(inside, "pooler", "pooler.dense", layers.first("first", x), activation="tanh")
        logits = layers.dense(source, "logits", "classifier", pooled)
        return Drawn(tokens.drawing, "text", pooled, logits, [])
    inside.leave("pooler.dense.weight", "pooler.dense.bias")
    return Drawn(tokens.drawing, "text", tokens.pooled(layers, x), None, [texts.pooling.about])

"""DistilBERT (Sanh et al. 2019, "DistilBERT, a distilled version of BERT"): half the depth, no numbers of sentences, no pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.pretrained.hugging_face.layers import Activation, Config, Drawn, Layers, count
from app.pretrained.hugging_face.texts import Names, Seen, Tokens, block
from app.pretrained.source import Source

EPSILON = 1e-12


class DistilBert(Config):
    n_heads: int = Field(12, ge=1, le=1024)
    n_layers: int | None = None
    activation: Activation = "gelu"
    pad_token_id: Literal[0] = 0


BLOCK = Names(
    attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    attention_norm="sa_layer_norm",
    wide="ffn.lin1",
    back="ffn.lin2",
    norm="output_layer_norm",
)


def build(source: Source, config: Mapping[str, Any], *, answers: bool, texts: Seen) -> Drawn:
    """On ids of tokens. A head stands on [CLS], a dense layer and ReLU."""
    usual = {"n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}  # their other names
    said = DistilBert.of({own: config[other] for own, other in usual.items() if other in config} | dict(config))
    prefixed = "distilbert.embeddings.word_embeddings.weight" in source.names
    inside = source.within("distilbert.") if prefixed else source
    tokens = Tokens(texts)
    layers = Layers(tokens.drawing, EPSILON)
    places = inside.take("embeddings.position_embeddings.weight")[: texts.length]
    x = tokens.embedded(layers, inside.take("embeddings.word_embeddings.weight"), places)
    x = layers.norm(inside, "embedding_norm", "embeddings.LayerNorm", x)
    for number in range(count(inside, "transformer.layer.", said.n_layers)):
        inner = inside.within(f"transformer.layer.{number}.")
        named = f"block{number}"
        x = block(layers, inner, BLOCK, named, x, heads=said.n_heads, activation=said.activation, seen=tokens.seen)
    inside.leave("embeddings.position_ids")
    if answers:
        hidden = layers.dense(source, "hidden", "pre_classifier", layers.first("first", x), activation="relu")
        logits = layers.dense(source, "logits", "classifier", hidden)
        return Drawn(tokens.drawing, "text", hidden, logits, [])
    return Drawn(tokens.drawing, "text", tokens.pooled(layers, x), None, [texts.pooling.about])

"""Vision transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"): a picture's patches and a token for its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.pretrained.drawing import Drawing, Tensor
from app.pretrained.hugging_face.layers import Activation, Config, Drawn, Layers, Size, count
from app.pretrained.source import Source
from app.spec.faults import Fault, Invalid


class Vit(Config):
    num_attention_heads: int = Field(12, ge=1, le=1024)
    num_hidden_layers: int | None = None
    hidden_act: Activation = "gelu"
    layer_norm_eps: float = Field(1e-12, gt=0, le=1)
    qkv_bias: Literal[True] = True
    image_size: int = Field(224, ge=1, le=1024)
    patch_size: int = Field(16, ge=1, le=1024)


def build(source: Source, config: Mapping[str, Any], *, answers: bool, size: Size, **_: Size) -> Drawn:
    """On pixels as `preprocessor_config.json` makes them. Features are the class token's; a head stands on them."""
    said = Vit.of(config)
    if size not in (None, (said.image_size, said.image_size)):
        message = f"it has places for pictures of {said.image_size}x{said.image_size} alone"
        raise Invalid([Fault("/size", message, "leave the size out")])
    inside = source.within("vit.") if "vit.embeddings.cls_token" in source.names else source
    channels = inside.shape("embeddings.patch_embeddings.projection.weight")[1]
    drawing = Drawing("image", (said.image_size, said.image_size, channels))
    layers = Layers(drawing, said.layer_norm_eps)
    x = _embedded(layers, inside, said)
    for number in range(count(inside, "encoder.layer.", said.num_hidden_layers)):
        x = _block(layers, inside, number, x, said)
    x = layers.first("first", layers.norm(inside, "last_norm", "layernorm", x))
    inside.leave("pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token")
    logits = layers.dense(source, "logits", "classifier", x) if answers else None
    return Drawn(drawing, "image", x, logits, [])


def _embedded(layers: Layers, source: Source, said: Vit) -> Tensor:
    """Patches, the class token before them, and each one's place. Rows of an Embedding, for that is a layer whose numbers train."""
    drawing, theirs = layers.drawing, "embeddings.patch_embeddings.projection"
    x = layers.conv(source, "patches", theirs, drawing.input, stride=said.patch_size, padded=False, biased=True)
    side = said.image_size // said.patch_size
    x = drawing.add("row_of_patches", "Reshape", x, target_shape=[side * side, source.shape(f"{theirs}.weight")[0]])
    number = drawing.add("one_number", "ops.Take", x, 0, axis=2)
    ones = drawing.add("ones", "ops.Cast", drawing.add("one_each", "ops.OnesLike", number), dtype="int32")
    place = drawing.add("place", "ops.Cumsum", ones, axis=1)
    none = drawing.add("place_of_class", "ops.Subtract", drawing.add("one", "ops.Min", ones, axis=1, keepdims=True), 1)
    token = layers.table("class_token", none, source.take("embeddings.cls_token")[0])
    x = drawing.add("with_class", "Concatenate", [token, x], axis=1)
    places = source.take("embeddings.position_embeddings")[0]
    if len(places) != side * side + 1:
        message = f"{len(places)} places for {side * side} patches and a class token"
        raise Invalid([Fault("", message, "take config.json and the arrays of one model")])
    numbers = drawing.add("places", "Concatenate", [none, place], axis=1)
    return drawing.add("embedding", "Add", [x, layers.table("place_embedding", numbers, places)])


def _block(layers: Layers, source: Source, number: int, x: Tensor, said: Vit) -> Tensor:
    """Normed before self-attention and before the two dense layers, and each added to what stood before the norm."""
    ours, theirs = f"block{number}", f"encoder.layer.{number}"
    normed = layers.norm(source, f"{ours}_attention_norm", f"{theirs}.layernorm_before", x)
    parts = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
    parts.append(f"{theirs}.attention.output.dense")
    attended = layers.attention(source, f"{ours}_attention", parts, normed, heads=said.num_attention_heads)
    x = layers.drawing.add(f"{ours}_attention_add", "Add", [x, attended])
    normed = layers.norm(source, f"{ours}_norm", f"{theirs}.layernorm_after", x)
    wide = layers.activated(source, f"{ours}_wide", f"{theirs}.intermediate.dense", normed, said.hidden_act)
    back = layers.dense(source, f"{ours}_back", f"{theirs}.output.dense", wide)
    return layers.drawing.add(f"{ours}_add", "Add", [x, back])

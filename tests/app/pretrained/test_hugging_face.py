"""A model's folder comes in any wrapping and in the words of any year, and what is not known of it is refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.pretrained.hugging_face import conversion, folder, reading
from app.spec.faults import Fault, Invalid
from tests.app.pretrained import folders, hostile, published
from tests.app.pretrained.folders import Parts


def written(content: bytes) -> bytes:
    """What becomes of an archive, in this process."""
    out = io.BytesIO()
    with tempfile.TemporaryFile() as scratch, folder.of_archive(io.BytesIO(content), scratch) as opened:
        reading.read(opened).write(out)
    return out.getvalue()


def inside(made: bytes) -> tuple[dict[str, Any], str]:
    """The graph and what is said beside it, and the hash of the arrays."""
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        return json.loads(archive.read("graph.json")), hashlib.sha256(archive.read("arrays.npz")).hexdigest()


def refused(parts: Parts) -> list[Fault]:
    with pytest.raises(Invalid) as caught:
        written(folders.zipped(parts))
    return caught.value.faults


WORD = "embeddings.word_embeddings.weight"
WRAPPINGS: dict[str, Callable[[Parts], bytes]] = {
    "zip of a folder": lambda parts: folders.zipped(parts, "bert/"),
    "tar": folders.tarred,
    "tar c .": lambda parts: folders.tarred(parts, "./"),
    "tar of a folder": lambda parts: folders.tarred(parts, "models/bert/"),
    "tar.gz": lambda parts: folders.tarred(parts, mode="w:gz"),
    "beside other files": lambda parts: folders.zipped({"onnx/config.json": b"{}", "tf_model.h5": b"x", **parts}),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_same_folder_is_the_same_network_in_any_wrapping(wrapping: str) -> None:
    parts = folders.parts("bert-classes")
    assert written(WRAPPINGS[wrapping](parts)) == written(folders.zipped(parts))


def test_a_folder_of_this_machine_is_the_same(tmp_path: Path) -> None:
    parts = folders.parts("distilbert")
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    out = io.BytesIO()
    reading.read(folder.of_path(tmp_path)).write(out)
    assert out.getvalue() == written(folders.zipped(parts))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(Invalid, match=r"has no config\.json beside a model\.safetensors"):
        folder.of_path(tmp_path)


def test_arrays_of_pytorch_are_as_good() -> None:
    parts = folders.parts("resnet-classes")
    del parts["model.safetensors"]
    for form in (published.torch_zip, published.torch_old):
        torch = {"pytorch_model.bin": form(published.state(folders.arrays("resnet-classes")))}
        assert written(folders.zipped(parts | torch)) == written(folders.zipped(folders.parts("resnet-classes")))


def test_norms_in_the_words_of_the_first_years() -> None:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    arrays = folders.arrays("bert-masked")
    for new, name in old.items():
        arrays = {key.replace(new, name): array for key, array in arrays.items()}
    parts = folders.parts("bert-masked") | {"model.safetensors": published.safetensors(arrays)}
    said, made = inside(written(folders.zipped(parts)))
    assert made == inside(written(folders.zipped(folders.parts("bert-masked"))))[1]
    assert any("head of BertForMaskedLM" in note for note in said["notes"])


def test_a_vocabulary_and_settings_are_as_good_as_a_tokenizer() -> None:
    parts = folders.parts("bert")
    del parts["tokenizer.json"]
    text = "".join(f"{token}\n" for token in folders.VOCABULARY)
    parts |= {"vocab.txt": text.encode(), "sentence_bert_config.json": b'{"max_seq_length": 12}'}
    assert written(folders.zipped(parts)) == written(folders.zipped(folders.parts("bert")))
    cased = parts | {"tokenizer_config.json": b'{"do_lower_case": false}'}
    assert inside(written(folders.zipped(cased)))[0]["tokens"] == {
        "type": "wordpiece",
        "length": 12,
        "lowercase": False,
    }


def test_what_a_folder_leaves_open_is_said() -> None:
    parts = folders.parts("bert")
    told = json.loads(parts["tokenizer.json"]) | {"truncation": None}
    said, _ = inside(written(folders.zipped(parts | {"tokenizer.json": json.dumps(told).encode()})))
    assert said["tokens"]["length"] == 24  # places that the network has
    assert "of a text the first 24 tokens are seen, of at most 24" in said["notes"]
    newer = {"modules.json": b"[]", "tokenizer_config.json": b'{"model_max_length": 9}'}
    said, _ = inside(written(folders.zipped(parts | {"tokenizer.json": json.dumps(told).encode()} | newer)))
    assert said["tokens"]["length"] == 9


def test_the_card_says_the_licence() -> None:
    card = b"---\ntags:\n- x\nlicense: apache-2.0\n---\nlicense: none\n"
    parts = folders.parts("vit") | {"README.md": card}
    said, _ = inside(written(folders.zipped(parts)))
    assert (said["licence"], said["scale"]) == ("apache-2.0", "-1..1")
    for none in (b"license: mit\n", b"---\nlicense: \xff\n---\n"):
        said, _ = inside(written(folders.zipped(parts | {"README.md": none})))
        assert "licence" not in said


def test_a_longer_table_of_words_is_cut_to_the_vocabulary() -> None:
    arrays = folders.arrays("bert")
    arrays[WORD] = np.concatenate([arrays[WORD], np.ones((24, 16), np.float32)])
    parts = folders.parts("bert")
    longer = written(folders.zipped(parts | {"model.safetensors": published.safetensors(arrays)}))
    assert longer == written(folders.zipped(parts))


def test_sentences_say_more_than_the_tokenizer_how_long_a_text_may_be() -> None:
    parts = folders.parts("bert") | {"sentence_bert_config.json": b'{"max_seq_length": 20}'}
    said, _ = inside(written(folders.zipped(parts)))
    assert said["tokens"]["length"] == 20


def test_a_head_of_more_classes_than_a_model_may_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_CLASSES", 2)
    said, _ = inside(written(folders.zipped(folders.parts("vit-classes"))))
    assert said["classes"] == "none"
    assert "its head has 3 classes, more than 2: the trunk alone is kept" in said["notes"]


def test_the_other_names_of_a_config_count_too() -> None:
    config = {
        key: value
        for key, value in folders.told()["distilbert"]["config"].items()
        if key not in ("n_heads", "n_layers")
    }
    parts = folders.parts("distilbert")
    other = {"config.json": json.dumps({**config, "num_attention_heads": 4, "num_hidden_layers": 2}).encode()}
    assert inside(written(folders.zipped(parts | other)))[1] == inside(written(folders.zipped(parts)))[1]


def test_a_part_of_a_folder_of_sentences_is_not_taken_for_the_whole() -> None:
    inner = {f"0_Transformer/{name}": content for name, content in folders.parts("bert").items()}
    assert "0_Transformer/ is a part of a folder" in refused(inner | {"modules.json": b"[]"})[0].message


def test_links_are_named() -> None:
    with pytest.raises(Invalid, match="its files are links"):
        written(hostile.ALL["links"]())


def test_two_classes_of_one_name_stay_two() -> None:
    config = folders.told()["vit-classes"]["config"] | {"id2label": {"0": "crane (2)", "1": "crane", "2": "crane"}}
    said, _ = inside(
        written(folders.zipped(folders.parts("vit-classes") | {"config.json": json.dumps(config).encode()}))
    )
    assert said["classes"] == ["crane (2)", "crane", "crane (2)'"]
    assert any("1 classes have the name of another" in note for note in said["notes"])


PICTURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "of ImageNet, cut": ({"crop_pct": 0.875, "resample": 3}, {"scale": "imagenet", "fit": "crop"}),
    "not cut from 384 on": ({"size": {"shortest_edge": 384}}, {"scale": "imagenet"}),
    "an older file": ({"size": 32, "feature_extractor_type": "ConvNextFeatureExtractor"}, {"scale": "imagenet", "fit": "crop"}),
    "plain": ({"do_normalize": False, "image_processor_type": "ViTImageProcessor", "size": 32}, {"scale": "0..1"}),
    "bytes": ({"do_rescale": False, "do_normalize": False, "image_processor_type": "X", "size": 32}, {"scale": "0..255"}),
    "cut from the middle": (
        {"image_processor_type": "X", "do_center_crop": True, "crop_size": {"height": 32, "width": 48}, "size": 64},
        {"scale": "imagenet", "fit": "crop", "shape": [32, 48, 3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
def test_pictures_are_seen_as_their_makers_say(case: str) -> None:
    changed, expected = PICTURES[case]
    told = {**folders.PIXELS["resnet"], **changed}
    said, _ = inside(
        written(folders.zipped(folders.parts("resnet") | {"preprocessor_config.json": json.dumps(told).encode()}))
    )
    shape = said["graph"]["given"][0]["shape"]
    assert said["scale"] == expected["scale"]
    assert said.get("fit") == expected.get("fit")
    before = {"of ImageNet, cut": "to 36 pixels and cut 32", "cut from the middle": "to 64 pixels and cut 32"}
    assert before.get(case, "") in " ".join(said.get("notes", []))
    assert ("bicubically" in " ".join(said.get("notes", []))) == ("resample" in told)
    assert shape == expected.get("shape", [384, 384, 3] if "384" in case else [32, 32, 3])


def changed(file: str, **fields: Any) -> Callable[[Parts], Parts]:
    """Another value of fields in a JSON file of the folder."""
    return lambda parts: parts | {file: json.dumps({**json.loads(parts.get(file, b"{}")), **fields}).encode()}


def without(name: str) -> Callable[[Parts], Parts]:
    return lambda parts: {key: content for key, content in parts.items() if key != name}


def with_arrays(**arrays: np.ndarray | None) -> Callable[[Parts], Parts]:
    """The network `bert` with other arrays; None takes one away."""
    whole = {key: array for key, array in (folders.arrays("bert") | arrays).items() if array is not None}
    return lambda parts: parts | {"model.safetensors": published.safetensors(whole)}


QUERY = "encoder.layer.0.attention.self.query"
BROKEN: dict[str, tuple[str, Callable[[Parts], Parts], str]] = {
    "another family": ("bert", changed("config.json", model_type="roberta"), "/config.json/model_type"),
    "no family": ("bert", changed("config.json", model_type=None), "/config.json/model_type"),
    "a family that is no text": ("bert", changed("config.json", model_type=["bert"]), "/config.json/model_type"),
    "another activation": ("bert", changed("config.json", hidden_act="mish"), "/config.json/hidden_act"),
    "relative places": (
        "bert",
        changed("config.json", position_embedding_type="relative_key"),
        "/config.json/position_embedding_type",
    ),
    "a decoder": ("bert", changed("config.json", is_decoder=True), "/config.json/is_decoder"),
    "another padding": ("bert", changed("config.json", pad_token_id=1), "/config.json/pad_token_id"),
    "heads that do not divide": ("bert", changed("config.json", num_attention_heads=5), ""),
    "an epsilon that is none": ("bert", changed("config.json", layer_norm_eps=-1), "/config.json/layer_norm_eps"),
    "a config that is a list": ("bert", lambda parts: parts | {"config.json": b"[]"}, "/config.json"),
    "a config that is damaged": ("bert", lambda parts: parts | {"config.json": b"{"}, "/config.json"),
    "a config that is no text": ("bert", lambda parts: parts | {"config.json": b"\xff\xfe"}, "/config.json"),
    "an array too few": ("bert", with_arrays(**{f"{QUERY}.bias": None}), ""),
    "no words": ("bert", with_arrays(**{WORD: None}), ""),
    "an array too many": ("bert", with_arrays(**{"encoder.layer.0.extra": np.zeros(3, "<f4")}), ""),
    "a vector for a matrix": ("bert", with_arrays(**{f"{QUERY}.weight": np.zeros(16, "<f4")}), ""),
    "damaged arrays": ("bert", lambda parts: parts | {"model.safetensors": b"x" * 64}, "/model.safetensors"),
    "no tokenizer": ("bert", without("tokenizer.json"), ""),
    "a tokenizer of pairs of bytes": (
        "bert",
        changed("tokenizer.json", model={"type": "BPE", "vocab": {}}),
        "/tokenizer.json/model",
    ),
    "more tokens": (
        "bert",
        changed("tokenizer.json", added_tokens=[{"content": "<x>"}]),
        "/tokenizer.json/added_tokens",
    ),
    "texts cleaned otherwise": (
        "bert",
        changed("tokenizer.json", normalizer={"type": "NFC"}),
        "/tokenizer.json/normalizer",
    ),
    "accents kept": (
        "bert",
        changed("tokenizer.json", normalizer={"type": "BertNormalizer", "lowercase": True, "strip_accents": False}),
        "/tokenizer.json/normalizer",
    ),
    "words found otherwise": (
        "bert",
        changed("tokenizer.json", pre_tokenizer={"type": "Whitespace"}),
        "/tokenizer.json/pre_tokenizer",
    ),
    "texts without ends": ("bert", changed("tokenizer.json", post_processor=None), "/tokenizer.json/post_processor"),
    "parts that are no objects": ("bert", changed("tokenizer.json", model=[]), "/tokenizer.json/model"),
    "a layer behind the pooling": (
        "bert",
        lambda parts: parts | {"modules.json": b'[{"type": "models.Dense"}]'},
        "/modules.json",
    ),
    "pooled by the largest": (
        "bert",
        lambda parts: parts | {"1_Pooling/config.json": b'{"pooling_mode_max_tokens": true}'},
        "/1_Pooling/config.json",
    ),
    "pooled twice": (
        "bert",
        lambda parts: parts | {"1_Pooling/config.json": b'{"pooling_mode": ["cls", "mean"]}'},
        "/1_Pooling/config.json",
    ),
    "words of another kind": (
        "bert",
        changed("tokenizer_config.json", word_tokenizer_type="mecab"),
        "/tokenizer_config.json/word_tokenizer_type",
    ),
    "another class of tokenizer": (
        "bert",
        changed("tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer"),
        "/tokenizer_config.json/tokenizer_class",
    ),
    "case said twice otherwise": (
        "bert",
        changed("tokenizer_config.json", do_lower_case=False),
        "/tokenizer_config.json/do_lower_case",
    ),
    "accents left": (
        "bert",
        changed("tokenizer_config.json", strip_accents=False),
        "/tokenizer_config.json/strip_accents",
    ),
    "another mark": ("bert", changed("tokenizer_config.json", unk_token="<unk>"), "/tokenizer_config.json/unk_token"),
    "tokens of one's own": (
        "bert",
        changed("special_tokens_map.json", additional_special_tokens=["[E]"]),
        "/special_tokens_map.json/additional_special_tokens",
    ),
    "tokens of one's own, described": (
        "bert",
        changed("tokenizer_config.json", added_tokens_decoder={"40": {"content": "<e>"}}),
        "/tokenizer_config.json/added_tokens_decoder",
    ),
    "tokens of one's own, beside": ("bert", changed("added_tokens.json", **{"<e>": 40}), "/added_tokens.json"),
    "tokens that are none": ("bert", changed("tokenizer.json", added_tokens=5), "/tokenizer.json/added_tokens"),
    "texts cut in front": (
        "bert",
        changed("tokenizer.json", truncation={"max_length": 9, "direction": "Left"}),
        "/tokenizer.json/truncation",
    ),
    "no cleaning": ("bert", changed("tokenizer.json", normalizer=None), "/tokenizer.json/normalizer"),
    "ends that are none": (
        "bert",
        changed("tokenizer.json", post_processor={"type": "BertProcessing", "cls": 5}),
        "/tokenizer.json/post_processor",
    ),
    "pooling that lies elsewhere": (
        "bert",
        lambda parts: parts | {"modules.json": b'[{"type": "x.Pooling", "path": "pooling"}]'},
        "/modules.json",
    ),
    "fewer blocks than are there": ("bert", changed("config.json", num_hidden_layers=1), ""),
    "other stages": ("resnet", changed("config.json", depths=[2, 3]), ""),
    "modules that are none": (
        "bert",
        lambda parts: parts | {"modules.json": b"5", "1_Pooling/config.json": b'{"pooling_mode": 5}'},
        "/1_Pooling/config.json",
    ),
    "a name that is too long": (
        "vit-classes",
        changed("config.json", id2label={"0": "a", "1": "b", "2": "c" * 300}),
        "/config.json/id2label",
    ),
    "several files of arrays": (
        "vit",
        lambda parts: {"model.safetensors.index.json": b"{}", **without("model.safetensors")(parts)},
        "/model.safetensors.index.json",
    ),
    "another number of patches": ("vit", changed("config.json", image_size=40), ""),
    "keys without a bias": ("vit", changed("config.json", qkv_bias=False), "/config.json/qkv_bias"),
    "pixels of another scale": (
        "vit",
        changed("preprocessor_config.json", image_mean=[0.1, 0.2, 0.3]),
        "/preprocessor_config.json",
    ),
    "another kind of block": ("resnet", changed("config.json", layer_type="wide"), "/config.json/layer_type"),
    "blocks of the other kind": ("resnet", changed("config.json", layer_type="basic"), ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_known_is_refused_by_name(case: str) -> None:
    name, change, pointer = BROKEN[case]
    faults = refused(change(folders.parts(name)))
    assert [fault.pointer for fault in faults][:1] == [pointer], faults
    assert all(fault.message and fault.hint for fault in faults)


@pytest.mark.parametrize("case", hostile.ALL)
def test_hostile_archives_are_refused_and_nothing_is_left(case: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(hostile.ALL[case]())
    with pytest.raises(Invalid) as caught:
        conversion.convert(raw, tmp_path / "out")
    assert all(fault.pointer.startswith("/file") for fault in caught.value.faults)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_the_process_says_what_this_one_says(tmp_path: Path) -> None:
    content = folders.zipped(folders.parts("distilbert-classes"))
    (tmp_path / "raw").write_bytes(content)
    conversion.convert(tmp_path / "raw", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == written(content)


def test_only_known_files_are_opened(tmp_path: Path) -> None:
    parts = folders.parts("bert")
    more = {
        **parts,
        "tf_model.h5": b"x",
        "onnx/model.onnx": b"x",
        "pytorch_model.bin": b"x",
        "modeling.py": b"raise SystemExit",
    }
    with tempfile.TemporaryFile() as scratch, folder.of_archive(io.BytesIO(folders.zipped(more)), scratch) as opened:
        assert opened.names == {*parts, "pytorch_model.bin"}
    assert set(folder.wanted(list(more))) == set(parts)
    assert written(folders.zipped(more)) == written(folders.zipped(parts))

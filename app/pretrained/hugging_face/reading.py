"""From a folder's parts to one network in the form of `app.model_files.exchange`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from app.model_files import exchange, safetensors
from app.model_files._arrays import Budget
from app.model_files.archive import CONFIG
from app.pretrained import torch_file
from app.pretrained.drawing import Array
from app.pretrained.hugging_face import bert, distilbert, pictures, resnet, tokenizer, vit
from app.pretrained.hugging_face.folder import ARRAYS, MODULES, SHARDED, TORCH, Folder
from app.pretrained.hugging_face.layers import Drawn
from app.pretrained.hugging_face.texts import Pooling, Seen
from app.pretrained.source import Source
from app.spec.base import is_visible
from app.spec.faults import Fault, Invalid, validate
from app.spec.imports import MOST_CLASSES, Scale
from app.spec.intake import Fit

LONGEST, MOST_LINES = 200, 1000
AGAIN = "take config.json and the arrays of one model"


@dataclass(frozen=True)
class Asked:
    """What whoever wants the network says of its rows. `size`: of pictures; `length`: tokens of a text."""

    size: tuple[int, int] | None = None
    length: int | None = None


@dataclass(frozen=True)
class Prepared:
    """How rows come to a network. `how`: what its family's `build` is told of it."""

    how: dict[str, Any]
    notes: list[str]
    scale: Scale | None = None
    fit: Fit | None = None
    texts: exchange.Texts | None = None


def _of_texts(folder: Folder, source: Source, asked: Asked) -> Prepared:
    if asked.size is not None:
        raise Invalid([Fault("/size", "it sees no pictures", "leave the size out")])
    texts, notes = tokenizer.read(folder, _places(source), asked.length)
    seen = Seen(texts.said.length, len(texts.vocabulary), _pooling(folder))
    return Prepared({"texts": seen}, notes, texts=texts)


def _of_pictures(folder: Folder, _: Source, asked: Asked) -> Prepared:
    seen = pictures.read(folder)
    return Prepared({"size": asked.size, "usual": seen.size}, [*seen.notes], scale=seen.scale, fit=seen.fit)


@dataclass(frozen=True)
class Family:
    """`answers`: the class of a network whose head is taken too."""

    build: Callable[..., Drawn]
    answers: str
    prepared: Callable[[Folder, Source, Asked], Prepared]


PLACES = "embeddings.position_embeddings.weight"
FAMILIES: Mapping[str, Family] = MappingProxyType({
    "bert": Family(bert.build, "BertForSequenceClassification", _of_texts),
    "distilbert": Family(distilbert.build, "DistilBertForSequenceClassification", _of_texts),
    "resnet": Family(resnet.build, "ResNetForImageClassification", _of_pictures),
    "vit": Family(vit.build, "ViTForImageClassification", _of_pictures),
})  # fmt: skip
"""By `model_type` of config.json."""

OF_CLASSES = (None, "single_label_classification", "multi_label_classification")
"""What `problem_type` says where a head's outputs are of classes."""


@dataclass(frozen=True)
class Read:
    """A network: what `exchange.write` takes."""

    graph: dict[str, Any]
    output: str
    arrays: dict[str, list[Array]]
    said: exchange.Said
    texts: exchange.Texts | None

    def write(self, target: Path | IO[bytes]) -> None:
        exchange.write(target, self.graph, [("output", self.output)], self.arrays, self.said, self.texts)


def read(folder: Folder, asked: Asked | None = None) -> Read:
    """The network of a folder, with its rows as the folder says them where nothing is asked.

    Raises:
        Invalid: no family that is known, or another network than its config says, with pointers to the folder's files.
    """
    try:
        return _read(folder, asked or Asked())
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        message = f"its parts do not fit one another ({type(error).__name__}: {error})"[:LONGEST]
        raise Invalid([Fault("", message, AGAIN, "unreadable")]) from None


def _read(folder: Folder, asked: Asked) -> Read:
    config = folder.json(CONFIG)
    family = _family(config)
    source = Source(_renamed(_arrays(folder)))
    known = config.get("architectures") or []
    architecture = str(known[0])[:LONGEST] if isinstance(known, list) and known else ""
    prepared = family.prepared(folder, source, asked)
    notes = prepared.notes
    answers = architecture == family.answers and _few_enough(source, notes)
    drawn = family.build(source, config, answers=answers, **prepared.how)
    notes += [*drawn.notes, *_left(source, config["model_type"], architecture)]
    if any("dropout" in name and rate for name, rate in config.items()):
        notes.append("dropout, which its training had, is left out")
    answer = drawn.logits or drawn.features
    classes = _classes(config, drawn, notes)
    if isinstance(classes, list) and config.get("problem_type") == "multi_label_classification":
        answer = drawn.drawing.add("labels", "Activation", answer, activation="sigmoid")
    said = {"scale": prepared.scale, "fit": prepared.fit, "licence": _licence(folder), "notes": notes}
    try:
        judged = validate(exchange.Said, {"classes": classes, **said})
    except Invalid as invalid:
        place = {"/classes": f"/{CONFIG}/id2label"}
        raise Invalid(
            replace(fault, pointer=place.get(fault.pointer[:8], fault.pointer), hint=fault.hint or AGAIN)
            for fault in invalid.faults
        ) from None
    return Read(
        drawn.drawing.graph(drawn.kind, answer), str(answer["tensor"]), drawn.drawing.arrays, judged, prepared.texts
    )


def _few_enough(source: Source, notes: list[str]) -> bool:
    """Whether a head has no more classes than a model may have; else it is left out, and said."""
    count = max((source.shape(name)[0] for name in source.names if name.endswith(_HEADS)), default=0)
    if count > MOST_CLASSES:
        notes.append(f"its head has {count} classes, more than {MOST_CLASSES}: the trunk alone is kept")
    return count <= MOST_CLASSES


_HEADS = ("classifier.bias", "classifier.1.bias")


def _family(config: Mapping[str, Any]) -> Family:
    named = config.get("model_type")
    if not isinstance(named, str) or named not in FAMILIES:
        hint = (
            f"known are {', '.join(FAMILIES)}; any network can be sent as graph.json and arrays.npz, see docs/models.md"
        )
        shown = named[:LONGEST] if isinstance(named, str) else "nothing"
        raise Invalid(
            [Fault(f"/{CONFIG}/model_type", f"it is {shown}, which is not known here", hint, "not_available")]
        )
    return FAMILIES[named]


def _arrays(folder: Folder) -> dict[str, Array]:
    """The arrays by name, floats as float32. Raises Invalid."""
    if SHARDED in folder.names and ARRAYS not in folder.names:
        hint = "save_pretrained(FOLDER, max_shard_size='10GB') writes one file"
        raise Invalid([Fault(f"/{SHARDED}", "its arrays are in several files", hint, "not_available")])
    name = ARRAYS if ARRAYS in folder.names else TORCH
    arrays: dict[str, Array] = {}
    try:
        with folder.open(name) as file:
            if name == TORCH:
                return torch_file.read(file)
            safetensors.read(file, arrays.__setitem__, Budget())
    except Invalid as invalid:
        raise Invalid(fault.under(f"/{name}") for fault in invalid.faults) from None
    return arrays


def _renamed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Norms of the first years say gamma and beta."""
    old = re.compile(r"(?<=LayerNorm\.)(gamma|beta)$")
    return {old.sub(lambda found: _NORM[found[0]], name): array for name, array in arrays.items()}


_NORM = {"gamma": "weight", "beta": "bias"}


def _places(source: Source) -> int:
    """Of a network on texts, how many tokens of one it can tell apart. Raises Invalid: there is no array of them."""
    known = [name for name in source.names if name.endswith(PLACES)]
    return (*source.shape(known[0] if known else PLACES), 0)[0]


def _pooling(folder: Folder) -> Pooling:
    """As sentence-transformers says it, in its older words or its newer ones, if it wrote the folder; else the mean. Raises Invalid."""
    if MODULES not in folder.names and POOLING not in folder.names:
        return Pooling()
    told = folder.parsed(MODULES) if MODULES in folder.names else []
    each = [module for module in told if isinstance(module, dict)] if isinstance(told, list) else []
    modules = {str(module.get("type")).rpartition(".")[2]: module.get("path") for module in each}
    if strange := sorted(set(modules) - {"Transformer", "Pooling", "Normalize"}):
        message = f"behind its network stands {', '.join(strange)}"[:LONGEST]
        raise Invalid([Fault(f"/{MODULES}", message, "Pooling and Normalize are known", "not_available")])
    elsewhere = modules.get("Transformer") or (modules.get("Pooling") or WHERE) != WHERE
    if elsewhere or ("Pooling" in modules and POOLING not in folder.names):
        message = f"its network does not lie beside it, or its pooling is not in {POOLING}"
        raise Invalid([Fault(f"/{MODULES}", message, "save it again with sentence-transformers", "not_available")])
    said = folder.json(POOLING)
    modes = said.get("pooling_mode", [name for name, on in said.items() if name.startswith("pooling_mode_") and on])
    modes = (modes if isinstance(modes, list) else [modes]) or ["mean"]
    how = {_POOLINGS.get(str(mode), str(mode)) for mode in modes}
    if how not in ({"mean"}, {"cls"}):
        message = f"texts are pooled by {', '.join(sorted(how))}"[:LONGEST]
        raise Invalid([Fault(f"/{POOLING}", message, "mean and cls are known, one of them", "not_available")])
    return Pooling(first=how == {"cls"}, unit="Normalize" in modules)


WHERE = "1_Pooling"
POOLING = f"{WHERE}/config.json"
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def _left(source: Source, model_type: str, architecture: str) -> list[str]:
    """A note of the heads that are left behind. Raises Invalid: what is left belongs to the trunk itself."""
    trunk = f"{model_type}."
    named = any(name.startswith(trunk) for name in source.names)
    heads = [name for name in source.left if named and not name.startswith(trunk)]
    source.leave(*heads)
    source.check_all_taken()
    if not heads:
        return []
    more = f" and {len(heads) - 3} more" if len(heads) > 3 else ""
    whose = f" of {architecture}" if architecture else ""
    return [f"left out, for it is a head{whose}: {', '.join(heads[:3])}{more}"]


def _classes(config: Mapping[str, Any], drawn: Drawn, notes: list[str]) -> Any:
    """The names of the classes in the order of the outputs; None of a head that answers numbers."""
    if drawn.logits is None:
        return "none"
    outputs = drawn.drawing.arrays["logits"][1].shape[0]
    if outputs == 1 or config.get("problem_type") not in OF_CLASSES:
        notes.append("it answers numbers, without any activation")
        return None
    told = config.get("id2label")
    names = [told.get(str(number)) for number in range(outputs)] if isinstance(told, dict) else []
    known = [name for name in names if isinstance(name, str) and name and all(map(is_visible, name))]
    if len(known) < outputs:
        notes.append("config.json has no names of its classes: they are called LABEL_0, LABEL_1 and so on")
        return [f"LABEL_{number}" for number in range(outputs)]
    again = [number for number, name in enumerate(known) if name in known[:number]]
    for number in again:
        name = f"{known[number]} ({number})"
        while name in known:
            name += "'"
        known[number] = name
    if again:
        notes.append(f"{len(again)} classes have the name of another: {known[again[0]]} is one of them")
    return known


def _licence(folder: Folder) -> str | None:
    """As the head of the model's card says it."""
    try:
        lines = folder.text("README.md").splitlines() if "README.md" in folder.names else []
    except Invalid:
        return None
    if lines[:1] != ["---"]:
        return None
    for line in lines[1:MOST_LINES]:
        key, _, value = line.partition(":")
        if key == "license":
            return value.strip(" \"'")[:LONGEST] or None
        if key == "---":
            break
    return None

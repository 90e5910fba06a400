"""How a folder's network sees texts: WordPiece of BERT, from `tokenizer.json`, or from `vocab.txt` and `tokenizer_config.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.data import wordpiece
from app.model_files.exchange import Texts, WordPieceSaid
from app.pretrained.hugging_face.folder import Folder
from app.spec.faults import Fault, Invalid

USUAL_LENGTH = 128
"""Tokens of a text where the folder says none: what networks of this kind were trained on for the most part."""

FILE, SETTINGS, VOCABULARY, SENTENCES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "sentence_bert_config.json",
)
MODULES = "modules.json"
AGAIN = "this service sees texts in tokens of BERT's WordPiece alone"
_SPECIAL = {*wordpiece.NEEDED, wordpiece.MASK}


def read(folder: Folder, places: int) -> tuple[Texts, list[str]]:
    """How texts become ids, and what was decided about it.

    Args:
        places: of the network: more tokens it cannot see.

    Raises:
        Invalid: they become ids in another way than `app.data.wordpiece` makes them, or the folder does not say how.
    """
    if FILE in folder.names:
        told = folder.json(FILE)
        faults = [fault.under(f"/{FILE}") for fault in _faults(told)]
        if faults:
            raise Invalid(faults)
        ids = told["model"]["vocab"]
        vocabulary, lowercase = sorted(ids, key=ids.__getitem__), bool(told["normalizer"]["lowercase"])
        cut = told.get("truncation") or {}
        length = cut.get("max_length") if isinstance(cut, dict) else None
    elif VOCABULARY in folder.names:
        settings, length = folder.json(SETTINGS), None
        lowercase = settings.get("do_lower_case", True) is not False
        faults = [fault.under(f"/{SETTINGS}") for fault in _odd(settings, lowercase)]
        if faults:
            raise Invalid(faults)
        vocabulary = wordpiece.words(folder.text(VOCABULARY).replace("\r\n", "\n"))
    else:
        raise Invalid([Fault("", f"there is neither {FILE} nor {VOCABULARY}", "send one of them beside it", "missing")])
    length, notes = _length(length or _of_sentences(folder), places)
    notes.append(
        f"texts are {'made lower-case' if lowercase else 'left as they are written'} before they are cut into tokens"
    )
    return Texts(WordPieceSaid(type="wordpiece", length=length, lowercase=lowercase), vocabulary), notes


def _of_sentences(folder: Folder) -> Any:
    """What sentence-transformers says, in its older words or its newer ones; None where it did not write the folder."""
    said = folder.json(SENTENCES).get("max_seq_length")
    return said or (folder.json(SETTINGS).get("model_max_length") if MODULES in folder.names else None)


def _length(said: Any, places: int) -> tuple[int, list[str]]:
    known = type(said) is int and said >= 3
    length = min(said if known else USUAL_LENGTH, places)
    why = "as the folder says" if known and said == length else f"of at most {places}"
    return length, [f"of a text the first {length} tokens are seen, {why}"]


def _faults(told: Mapping[str, Any]) -> Iterator[Fault]:
    """What a `tokenizer.json` does otherwise than ours: it would give other ids to the same text."""
    model, normalizer, words, ends = (
        told.get(part) or {} for part in ("model", "normalizer", "pre_tokenizer", "post_processor")
    )
    if not all(isinstance(part, dict) for part in (model, normalizer, words, ends)):
        yield Fault("", "its parts are no objects", AGAIN, "unreadable")
        return
    ids = model.get("vocab")
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(ids, dict) or not ids:
        yield Fault("/model", f"a tokenizer of type {str(model.get('type'))[:40]}", AGAIN, "unsupported_format")
        return
    if not all(type(number) is int for number in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
        yield Fault("/model/vocab", "its ids are not 0, 1, 2 … without a gap", AGAIN, "vocabulary")
    if (model.get("unk_token"), model.get("continuing_subword_prefix", "##")) != (wordpiece.UNKNOWN, wordpiece.REST):
        yield Fault("/model", f"tokens are marked otherwise than {wordpiece.UNKNOWN} and {wordpiece.REST}", AGAIN)
    if model.get("max_input_chars_per_word", wordpiece.LONGEST_WORD) != wordpiece.LONGEST_WORD:
        yield Fault("/model/max_input_chars_per_word", f"expected {wordpiece.LONGEST_WORD}", AGAIN)
    lowercase = normalizer.get("lowercase", True)
    usual = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": bool(lowercase)}
    if {**usual, **normalizer, "strip_accents": None} != {**usual, "strip_accents": None} or (
        normalizer.get("strip_accents") not in (None, lowercase)
    ):
        yield Fault("/normalizer", "texts are cleaned otherwise than BERT's", AGAIN)
    if words.get("type") != "BertPreTokenizer":
        yield Fault("/pre_tokenizer", "words are found otherwise than BERT's", AGAIN)
    if not _ends_as_ours(ends):
        yield Fault(
            "/post_processor", f"a text does not begin with {wordpiece.FIRST} and end with {wordpiece.LAST}", AGAIN
        )
    added = told.get("added_tokens") or []
    names = {entry.get("content") if isinstance(entry, dict) else None for entry in added}
    if not names <= _SPECIAL:
        yield Fault("/added_tokens", "there are more tokens than BERT's own special ones", AGAIN)


def _ends_as_ours(told: Mapping[str, Any]) -> bool:
    if told.get("type") == "BertProcessing":
        return [told.get("cls", [None])[0], told.get("sep", [None])[0]] == [wordpiece.FIRST, wordpiece.LAST]
    single = told.get("single")
    if told.get("type") != "TemplateProcessing" or not isinstance(single, list):
        return False
    parts = [
        part[kind].get("id")
        for part in single
        if isinstance(part, dict)
        for kind in part
        if isinstance(part[kind], dict)
    ]
    return parts == [wordpiece.FIRST, "A", wordpiece.LAST]


def _odd(settings: Mapping[str, Any], lowercase: bool) -> Iterator[Fault]:
    """What `tokenizer_config.json` says that ours does not do."""
    if settings.get("tokenize_chinese_chars", True) is not True:
        yield Fault("/tokenize_chinese_chars", "expected true", AGAIN)
    if settings.get("strip_accents") not in (None, lowercase):
        yield Fault("/strip_accents", "expected null, or what do_lower_case is", AGAIN)
    if settings.get("do_basic_tokenize", True) is not True:
        yield Fault("/do_basic_tokenize", "expected true", AGAIN)

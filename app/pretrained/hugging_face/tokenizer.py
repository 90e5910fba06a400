"""How a folder's network sees texts: WordPiece of BERT, from `tokenizer.json`, or from `vocab.txt` and `tokenizer_config.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.data import wordpiece
from app.model_files.exchange import Texts, WordPieceSaid
from app.pretrained.hugging_face.folder import MODULES, Folder
from app.spec.faults import Fault, Invalid

USUAL_LENGTH = 128
"""Tokens of a text where the folder says none: what networks of this kind were trained on for the most part."""

FILE, SETTINGS, VOCABULARY = "tokenizer.json", "tokenizer_config.json", "vocab.txt"
ADDED, SPECIAL = "added_tokens.json", "special_tokens_map.json"
SENTENCES, PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
FEWEST, MOST = 3, 4096
LONGEST = 200
AGAIN = "this service sees texts in tokens of BERT's WordPiece alone"
_SPECIAL = {*wordpiece.NEEDED, wordpiece.MASK}


def read(folder: Folder, places: int, length: int | None = None) -> tuple[Texts, list[str]]:
    """How texts become ids, and what was decided about it.

    Args:
        places: of the network: more tokens it cannot see.
        length: tokens of a text; as the folder says when left out.

    Raises:
        Invalid: they become ids in another way than `app.data.wordpiece` makes them, or the folder does not say how.
    """
    settings, sentences, notes = folder.json(SETTINGS), folder.json(SENTENCES), list[str]()
    faults = [fault.under(f"/{SETTINGS}") for fault in _odd(settings)]
    faults += [fault.under(f"/{SPECIAL}") for fault in _odd(folder.json(SPECIAL))]
    if strange := sorted(set(folder.json(ADDED)) - _SPECIAL):
        faults.append(Fault(f"/{ADDED}", f"there are more tokens: {', '.join(strange[:3])}"[:LONGEST], AGAIN))
    vocabulary, lowercase, cut = _vocabulary(folder, settings, faults)
    if sentences.get("do_lower_case") and not lowercase:
        faults.append(Fault(f"/{SENTENCES}/do_lower_case", "it says another thing than the tokenizer", AGAIN))
    if settings.get("strip_accents") not in (None, lowercase):
        message = "accents are left where case is not, or the other way"
        faults.append(Fault(f"/{SETTINGS}/strip_accents", message, AGAIN))
    if places < FEWEST:
        faults.append(Fault("", f"the network has {places} places, a text needs {FEWEST}", AGAIN))
    if faults:
        raise Invalid(faults)
    # What sentence-transformers says, in its older words or its newer ones, counts more than how the tokenizer was saved.
    told = sentences.get("max_seq_length") or (settings.get("model_max_length") if MODULES in folder.names else None)
    length = _length(length or told or cut, places, notes)
    if folder.json(PROMPTS).get("default_prompt_name"):
        notes.append("its makers put a prompt before each text, which is not done here")
    notes.append(
        f"texts are {'made lower-case' if lowercase else 'left as they are written'} before they are cut into tokens"
    )
    return Texts(WordPieceSaid(type="wordpiece", length=length, lowercase=lowercase), vocabulary), notes


def _vocabulary(folder: Folder, settings: Mapping[str, Any], faults: list[Fault]) -> tuple[list[str], bool, Any]:
    """The tokens in the order of their ids, whether texts are made lower-case, and where a text is cut, if that is said."""
    lowercase = settings.get("do_lower_case", True) is not False
    if FILE in folder.names:
        told = folder.json(FILE)
        if odd := [fault.under(f"/{FILE}") for fault in _faults(told)]:
            faults += odd
            return [], lowercase, None
        ids, said = told["model"]["vocab"], bool(told["normalizer"]["lowercase"])
        if "do_lower_case" in settings and said != lowercase:
            message, hint = f"it says another thing than {FILE}", "let both say what the network was trained with"
            faults.append(Fault(f"/{SETTINGS}/do_lower_case", message, hint))
        return sorted(ids, key=ids.__getitem__), said, (told.get("truncation") or {}).get("max_length")
    if VOCABULARY in folder.names:
        return wordpiece.words(folder.text(VOCABULARY).replace("\r\n", "\n")), lowercase, None
    faults.append(Fault("", f"there is neither {FILE} nor {VOCABULARY}", "send one of them beside it", "missing"))
    return [], lowercase, None


def _length(said: Any, places: int, notes: list[str]) -> int:
    known = type(said) is int and said >= FEWEST
    length = min(said if known else USUAL_LENGTH, places, MOST)
    why = "as the folder says" if known and said == length else f"of at most {min(places, MOST)}"
    notes.append(f"of a text the first {length} tokens are seen, {why}")
    return length


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
    lowercase = normalizer.get("lowercase")
    usual = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": lowercase}
    plain = {**normalizer, "strip_accents": None} == {**usual, "strip_accents": None}
    if not plain or type(lowercase) is not bool or normalizer.get("strip_accents") not in (None, lowercase):
        yield Fault("/normalizer", "texts are cleaned otherwise than BERT's", AGAIN)
    if words.get("type") != "BertPreTokenizer":
        yield Fault("/pre_tokenizer", "words are found otherwise than BERT's", AGAIN)
    if not _ends_as_ours(ends):
        yield Fault(
            "/post_processor", f"a text does not begin with {wordpiece.FIRST} and end with {wordpiece.LAST}", AGAIN
        )
    if not _names(told.get("added_tokens")) <= _SPECIAL:
        yield Fault("/added_tokens", "there are more tokens than BERT's own special ones", AGAIN)
    cut = told.get("truncation")
    if cut is not None and (not isinstance(cut, dict) or cut.get("direction", "Right") != "Right"):
        yield Fault("/truncation", "a long text loses its beginning, not its end", AGAIN)


def _names(tokens: Any) -> set[str]:
    """The tokens in a list of them, plain or described; what is no token among them is a name that is not known."""
    if not isinstance(tokens, list | dict):
        return set() if tokens is None else {""}
    each = tokens.values() if isinstance(tokens, dict) else tokens
    found = (token.get("content") if isinstance(token, dict) else token for token in each)
    return {token if isinstance(token, str) else "" for token in found}


def _ends_as_ours(told: Mapping[str, Any]) -> bool:
    if told.get("type") == "BertProcessing":
        ends = [told.get(name) for name in ("cls", "sep")]
        return [end[0] if isinstance(end, list) and end else None for end in ends] == [wordpiece.FIRST, wordpiece.LAST]
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


def _odd(settings: Mapping[str, Any]) -> Iterator[Fault]:
    """What `tokenizer_config.json` or `special_tokens_map.json` says that ours does not do."""
    if settings.get("tokenizer_class") not in _CLASSES:
        yield Fault("/tokenizer_class", f"it is {settings['tokenizer_class']}"[:LONGEST], AGAIN, "not_available")
    for name, usual in _USUAL.items():
        if settings.get(name) not in usual:
            yield Fault(f"/{name}", f"expected {usual[-1]}", AGAIN)
    for name, token in _MARKS.items():
        if name in settings and _names([settings[name]]) != {token}:
            yield Fault(f"/{name}", f"expected {token}", AGAIN)
    for name in ("additional_special_tokens", "added_tokens_decoder"):
        if not _names(settings.get(name)) <= _SPECIAL:
            yield Fault(f"/{name}", "there are more tokens than BERT's own special ones", AGAIN)


_CLASSES = (
    None,
    *(f"{name}Tokenizer{fast}" for name in ("Bert", "DistilBert") for fast in ("", "Fast")),
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
)
_USUAL: dict[str, tuple[Any, ...]] = {
    "tokenize_chinese_chars": (None, True),
    "do_basic_tokenize": (None, True),
    "word_tokenizer_type": (None, "basic"),
    "subword_tokenizer_type": (None, "wordpiece"),
    "truncation_side": (None, "right"),
}
_MARKS = {
    "unk_token": wordpiece.UNKNOWN,
    "cls_token": wordpiece.FIRST,
    "sep_token": wordpiece.LAST,
    "pad_token": wordpiece.PADDING,
}

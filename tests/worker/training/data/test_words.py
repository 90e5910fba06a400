"""Weighed words, against scikit-learn's with words in the same columns."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from app.data import load
from app.data.inputs import text
from worker.training.data import words


def test_tf_idf_is_scikit_learns_in_hashed_columns() -> None:
    rows = load("messages").inputs[np.arange(300)]
    texts = [text.preview(row, load("messages").schema.input) for row in rows]
    theirs = TfidfVectorizer(analyzer=lambda said: [words.bucket(word) for word in words.WORD.findall(said.lower())])
    expected = theirs.fit(texts[:200]).transform(texts).toarray()
    fitted = words.fit(rows, np.arange(200))
    ours = fitted(rows)
    order = np.argsort(theirs.get_feature_names_out())
    assert fitted.buckets.tolist() == theirs.get_feature_names_out()[order].tolist()
    assert ours == pytest.approx(expected[:, order], abs=1e-6)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.ones(300), abs=1e-5)


def test_words_are_of_any_script_and_an_empty_text_has_none() -> None:
    rows = text.rows(["Grüße, GRÜSSE! a 12", "", "Привет, мир"], 64)
    assert [words.words(row) for row in rows] == [["grüße", "grüsse", "12"], [], ["привет", "мир"]]
    fitted = words.fit(rows, np.arange(3))
    assert (fitted(rows)[1] == 0).all()
    assert (fitted(text.rows(["unseen words"], 64)) == 0).all()

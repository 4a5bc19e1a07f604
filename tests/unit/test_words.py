"""A column of words that a caller encoded says what its texts say."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from clinloom.clean import clean
from clinloom.deploy.bundle import acquired
from clinloom.errors import DataError

NOW = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)


def encoded(texts: list[str | None], words: list[str | None]) -> pa.Array:
    """The texts as positions among words, each of those that are the same in its turn."""
    places = {word: [at for at, one in enumerate(words) if one == word] for word in texts}
    taken = [places[text].pop(0) if len(places[text]) > 1 else places[text][0] for text in texts]
    return pa.DictionaryArray.from_arrays(pa.array(taken, pa.int32()), pa.array(words, pa.string()))


def events(code: pa.Array, text: pa.Array) -> pa.Table:
    columns = {"code": code, "numeric_value": pa.array([5.0, 5.0, 5.0]), "text_value": text}
    return pa.table({"subject_id": [1, 1, 1], "time": [NOW] * 3, **columns})


@pytest.mark.parametrize(
    "words", [["LAB", None, "a"], ["LAB", "LAB", "a", None], [None, "LAB", "a", "a", None]]
)
def test_a_word_that_stands_twice_or_is_null_is_read_as_its_text(words: list[str | None]):
    code, text = ["LAB", "LAB", "LAB"], [None, "a", "a"]
    plain = events(pa.array(code), pa.array(text))
    given = events(encoded(code, words), encoded(text, words))
    told, read = (clean(acquired(table), {}) for table in (plain, given))
    assert {name: t.to_pylist() for name, t in read.items()} == {
        name: t.to_pylist() for name, t in told.items()
    }


def test_a_code_that_is_a_null_among_words_is_none():
    code = encoded(["LAB", None, "LAB"], ["LAB", None])
    with pytest.raises(DataError, match="'code' holds nulls"):
        acquired(events(code, pa.array([None, "a", "a"])))

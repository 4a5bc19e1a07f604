"""Texts by their hash: the same text the same, other texts others, in whatever array they stand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom import hashing

TEXTS = st.lists(st.one_of(st.none(), st.text(alphabet="ab\x00é/", max_size=40)), max_size=30)


def hashed(array):
    return hashing.parts(array).whole


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(0, 30), st.integers(0, 30))
def test_what_a_text_is_told_by_depends_on_nothing_else(given_, start, length):
    whole = pa.array(given_, pa.string())
    found = hashed(whole)
    assert found.tolist() == [int(hashed(pa.array([t]).cast("string"))[0]) for t in given_]
    assert len(set(found.tolist())) == len({text or "" for text in given_})  # null is as ""
    part = whole.slice(start, length)
    for same in (part, part.dictionary_encode(), part.cast(pa.large_string())):
        np.testing.assert_array_equal(hashed(same), found[start : start + length])
    coded = whole.dictionary_encode().slice(start, length)
    np.testing.assert_array_equal(hashed(coded), found[start : start + length])


@pytest.mark.parametrize("length", [*range(34), 63, 64, 65])
def test_every_byte_of_a_text_counts_and_so_does_its_length(length):
    """Around the borders of words of eight bytes."""
    plain = "x" * length
    others = [plain[:at] + "y" + plain[at + 1 :] for at in range(length)]
    others += [plain + "x", plain + "\x00", "\x00" + plain, plain[:-1] + "\x00", "\x00" * length]
    texts = list(dict.fromkeys([plain, *others]))
    assert len(np.unique(hashed(pa.array(texts)))) == len(texts)


def test_a_null_is_as_the_empty_text_though_it_has_bytes():
    ends = pa.py_buffer(np.array([0, 2, 4], np.int32))
    made = pa.StringArray.from_buffers(2, ends, pa.py_buffer(b"abcd"), pa.py_buffer(b"\x02"))
    assert made.to_pylist() == [None, "cd"]
    np.testing.assert_array_equal(hashed(made), hashed(pa.array(["", "cd"])))
    assert hashed(pa.nulls(0, pa.string())).shape == (0,)
    np.testing.assert_array_equal(hashed(pa.nulls(2, pa.string())), hashed(pa.array(["", ""])))


@pytest.mark.parametrize(
    "form", ["Observation/{}", "lab.csv@{}", "{}", "{:07}", "{:016x}", "b{0:05x}-{0:04}-4000-a{0}"]
)
def test_names_that_count_share_no_more_than_chance(form):
    """Of either half of the hash, as if both were drawn: 0.05 pairs of 20,000 are expected."""
    names = [form.format(3 * n) for n in range(20_000)]
    found = hashed(pa.array(names))
    for half in (found >> np.uint64(32), found & np.uint64(0xFFFFFFFF)):
        assert len(names) - len(np.unique(half)) <= 1


def test_texts_beyond_one_block_are_read_as_in_one(monkeypatch):
    names = pa.array([f"Observation/{n}" if n % 7 else None for n in range(300)])
    whole = hashed(names)
    monkeypatch.setattr(hashing, "CACHED", 7)
    np.testing.assert_array_equal(hashed(names), whole)

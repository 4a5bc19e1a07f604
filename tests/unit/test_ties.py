"""Runs of rows that tie are put in order by comparisons of two."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom.clean._ties import after, arranged


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=40), max_size=8))
def test_each_run_is_sorted_and_what_is_the_same_stays_as_it_stands(runs):
    key = np.array([n for run in runs for n in run], np.int64)
    run = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    rows = np.arange(len(key)) * 3
    near = np.flatnonzero(run[1:] == run[:-1])

    def later(one, other):
        return (key[one] > key[other]) | ((key[one] == key[other]) & (one > other))

    found = arranged(rows, near, later)
    np.testing.assert_array_equal(found, rows[np.lexsort((key, run))])
    assert (found is rows) == bool((found == rows).all())


def test_texts_are_compared_as_they_are_written_nulls_first():
    texts = [None, "", "a", "a1", "b", "é"]
    one, other = zip(*[(a, b) for a in texts for b in texts], strict=True)
    same = np.array([texts.index(a) == texts.index(b) for a, b in zip(one, other, strict=True)])
    expected = [texts.index(a) > texts.index(b) for a, b in zip(one, other, strict=True)]
    told = [pa.array(part, pa.string()) for part in (one, other)]
    assert after(*told, np.zeros(len(one), bool)).tolist() == expected
    assert after(*told, same).tolist() == (np.array(expected) | same).tolist()

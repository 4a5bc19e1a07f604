"""Records' names in order by their last bytes, as by their texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom import hashing
from clinloom.clean._simultaneous import _named_later

NAME = st.one_of(
    st.text("019/-:a\x00é", max_size=20),
    st.integers(0, 300).map("lab.csv@{}".format),
    st.integers(0, 10**9).map("{:012}".format),
)


def spelled(name):
    stem = name.rstrip("0123456789")
    return stem.encode(), len(name.encode()), name.encode()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(NAME, NAME), min_size=1, max_size=12), st.integers(0, 3))
def test_ends_tell_which_name_is_later_as_the_texts_do(pairs, same):
    pairs += [(one, one[:at] + "7" + one[at + 1 :]) for one, _ in pairs for at in range(len(one))]
    pairs += [(one, one[: len(one) - same] + other[:same]) for one, other in pairs]
    names = pa.array([name for pair in pairs for name in pair])
    first = np.arange(0, len(names), 2)
    later, open_ = _named_later(hashing.parts(names), first, first + 1)
    for (one, other), found, unknown in zip(pairs, later, open_, strict=True):
        told = [(len(name.encode()), name.encode()[:-8]) for name in (one, other)]
        assert unknown == (one == other or told[0] != told[1])
        assert unknown or found == (spelled(one) > spelled(other))

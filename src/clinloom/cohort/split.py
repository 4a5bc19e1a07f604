"""Which patients train and which test: by hash or by calendar time, a patient never in both.

By a hash the same patient falls on the same side whatever the order, the chunks and the other
patients are.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom import hashing
from clinloom.events import Floats, Ints
from clinloom.study import Split
from clinloom.tables import INDEX

FOLDS = 0x632BE59BD9B4E019  # keeps folds independent of the split


def uniform(subject: Ints, *, seed: int) -> Floats:
    """A number in [0, 1) for each subject (n,), the same for the same subject and seed."""
    drawn: Floats = (hashing.words(subject, seed=seed) >> np.uint64(11)) * np.float64(2.0**-53)
    return drawn


def assign(index: pa.Table, split: Split, *, seed: int) -> pa.Table:
    """``index`` (INDEX, whole patients) with its ``split``: train, test, or null for neither.

    By random: patients, in the proportion train : test (weights; they need not sum to 1). By
    time: moments from the cutoff on are test; a patient with such a moment leaves its earlier
    ones unused, so that nobody is in both.
    """
    subject = ev.subjects(index)
    if split.by == "random":
        train = uniform(subject, seed=seed) < split.train / (split.train + split.test)
        test = ~train
    else:
        test = ev.times(ev.column(index, "prediction_time")) >= _microseconds(split.cutoff)
        train = ~np.isin(subject, subject[test])
    place = np.where(test, 1, 0).astype(np.int32)
    names = pa.DictionaryArray.from_arrays(
        pa.array(place, mask=~(train | test)), pa.array(["train", "test"])
    )
    at = INDEX.arrow.get_field_index("split")
    return index.set_column(at, INDEX.arrow.field("split"), names.cast(pa.string()))


def fold(subject: Ints, folds: int, seed: int) -> Ints:
    """A fold, 0 to folds - 1, for each subject (n,); independent of the random split."""
    return (uniform(subject, seed=seed ^ FOLDS) * folds).astype(np.int64)


def _microseconds(cutoff: dt.datetime | None) -> int:
    assert cutoff is not None, "the study checks that a split by time has its cutoff"  # noqa: S101
    aware = cutoff if cutoff.tzinfo else cutoff.replace(tzinfo=dt.UTC)
    return (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)

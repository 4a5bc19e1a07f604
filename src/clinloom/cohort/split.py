"""Which patients train and which test: by hash or by calendar time, a patient never in both.

By a hash the same patient falls on the same side whatever the order, the chunks and the other
patients are.
"""

from __future__ import annotations

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


def assign(index: pa.Table, split: Split, *, seed: int, within: int = 0) -> pa.Table:
    """``index`` (INDEX, whole patients) with its ``split``: train, test, or null for neither.

    By random: patients, in the proportion train : test (weights; they need not sum to 1). By
    time: moments from the cutoff on are test, and those train whose time at risk (it ends
    ``within`` microseconds after the index time) is over by then: a model made at the cutoff would
    know no other outcome. A patient with a moment from the cutoff on leaves its earlier ones
    unused, so that nobody is in both.
    """
    subject = ev.subjects(index)
    if split.by == "random":
        train = uniform(subject, seed=seed) < split.train / (split.train + split.test)
        test = ~train
    else:
        assert split.cutoff is not None, "the study checks that it is there"  # noqa: S101
        cutoff = ev.microseconds(split.cutoff)
        time = ev.times(ev.column(index, "prediction_time"))
        test = time >= cutoff
        train = ~np.isin(subject, subject[test]) & (time + within <= cutoff)
    place = np.where(test, 1, 0).astype(np.int32)
    names = pa.DictionaryArray.from_arrays(
        pa.array(place, mask=~(train | test)), pa.array(["train", "test"])
    )
    at = INDEX.arrow.get_field_index("split")
    return index.set_column(at, INDEX.arrow.field("split"), names.cast(pa.string()))


def fold(subject: Ints, folds: int, seed: int) -> Ints:
    """A fold, 0 to folds - 1, for each subject (n,); independent of the random split."""
    return (uniform(subject, seed=seed ^ FOLDS) * folds).astype(np.int64)

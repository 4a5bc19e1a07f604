"""Which patients train and which test: a patient never in both.

By a hash, by calendar time, or as the data say; or each part is judged in turn by a model that was
learned from the others (:mod:`clinloom.cohort.division`).

By a hash the same patient falls on the same side whatever the order, the chunks and the other
patients are. A salt says by which of a few hashes: the first that gives each side its share of the
patients with the outcome and of those without. The salt is all that the whole input decides; while
it stays, everybody's side does, also of who has an outcome later.
(Restricted randomisation: Morgan and Rubin, Ann Stat 2012, 40(2):1263-1282)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events as ev
from clinloom import hashing
from clinloom.events import Flags, Floats, Ints
from clinloom.study import Split
from clinloom.study.split import SOURCE
from clinloom.tables import INDEX, STRATA

FOLDS = 0x632BE59BD9B4E019  # keeps folds independent of the split
STEP = 0x9E3779B97F4A7C15  # between the seeds of two salts
SALTS = 64  # that are tried
NEAR = 0.05  # of its share, or one patient: so far off a part may be
SPLIT, FOLD = "split", "fold"
TRAIN, TEST, CROSSED = "train", "test", "crossed"
NEITHER = ""  # no patient's site is called so


class Salts(NamedTuple):
    """By which hash patients are split, and by which, each repeat, they come into folds."""

    split: int = 0
    folds: tuple[int, ...] = (0,)


def uniform(subject: Ints, *, seed: int, salt: int = 0) -> Floats:
    """A number in [0, 1) for each subject (n,), the same for the same subject, seed and salt."""
    seed ^= salt * STEP
    drawn: Floats = (hashing.words(subject, seed=seed) >> np.uint64(11)) * np.float64(2.0**-53)
    return drawn


def assign(
    index: pa.Table,
    split: Split,
    *,
    seed: int,
    within: int = 0,
    salt: int = 0,
    events: pa.Table | None = None,
) -> pa.Table:
    """``index`` (INDEX, whole patients) with its ``split``: train, test, or null for neither.

    By random: patients, in the proportion train : test (weights; they need not sum to 1). By
    time: moments from the cutoff on are test, and those train whose time at risk (it ends
    ``within`` microseconds after the index time) is over by then: a model made at the cutoff would
    know no other outcome. A patient with a moment from the cutoff on leaves its earlier ones
    unused, so that nobody is in both.

    As ``events`` of the same patients say, by column and by site: see :func:`told`. By site the
    split is the site's name; by kfold it is CROSSED, as the fold is a hash of who it is.
    """
    subject = ev.subjects(index)
    if split.method == "random":
        side = np.where(uniform(subject, seed=seed, salt=salt) < _shares(split)[0], TRAIN, TEST)
    elif split.method == "time":
        assert split.cutoff is not None, "the study checks that it is there"  # noqa: S101
        cutoff = ev.microseconds(split.cutoff)
        time = ev.times(ev.column(index, "prediction_time"))
        test = time >= cutoff
        train = ~np.isin(subject, subject[test]) & (time + within <= cutoff)
        side = np.where(test, TEST, np.where(train, TRAIN, NEITHER))
    elif split.crossed:
        side = np.full(len(subject), CROSSED)
    else:
        assert events is not None, "the caller hands them on"  # noqa: S101
        who, name = told(events, split)
        place = np.searchsorted(who, subject)
        known = np.isin(subject, who)
        side = np.full(len(subject), NEITHER, object)
        side[known] = name[place[known]]
    at = INDEX.arrow.get_field_index("split")
    names = pa.array(side.astype(object), pa.string(), mask=side == NEITHER)
    return index.set_column(at, INDEX.arrow.field("split"), names)


def told(events: pa.Table, split: Split) -> tuple[Ints, np.ndarray]:
    """The patients (p,) of whom ``events`` (EVENTS, whole patients) tell a side or site, ascending,
    and which (p,).

    By column a patient trains who has a code of ``learn``, tests who has one of ``judge``, and is
    in neither with both or none. By site a patient lies in one, of the earliest fact that tells any
    (a static one is before all; of several at one time the first by name), wherever it was seen
    later; of no site, in neither.
    """
    subject, time = ev.subjects(events), ev.times(ev.column(events, "time"))
    by_source = split.site == (SOURCE,)
    position, names = ev.coded(ev.column(events, "source" if by_source else "code"))
    if split.method == "column":
        sides = [subject[_fits(names, position, codes)] for codes in (split.learn, split.judge)]
        train, test = (np.unique(side) for side in sides)
        one = np.setxor1d(train, test, assume_unique=True)
        return one, np.where(np.isin(one, train), TRAIN, TEST).astype(object)
    rows = np.flatnonzero(position >= 0 if by_source else _fits(names, position, split.site))
    named = np.array(names, object)[position[rows]]
    order = np.lexsort((np.argsort(np.argsort(names))[position[rows]], time[rows], subject[rows]))
    who, first = np.unique(subject[rows][order], return_index=True)
    return who, named[order][first]


def _fits(names: Sequence[str], position: np.ndarray, codes: Sequence[str]) -> Flags:
    found: Flags = ev.looked_up(ev.matching(names, codes), position)
    return found


def learning(index: pa.Table, split: Split) -> Flags:
    """Which rows (n,) some model that is judged learns from."""
    side = index.column("split")
    return _true(pc.is_valid(side) if split.rotated else pc.equal(side, TRAIN))


def _shares(split: Split) -> tuple[float, float]:
    """Of all patients: those who train and those who test."""
    train = split.train / (split.train + split.test)
    return train, 1 - train


def fold(subject: Ints, folds: int, seed: int, salt: int = 0) -> Ints:
    """A fold, 0 to folds - 1, for each subject (n,); independent of the random split.

    Spark gives the same (``run.train.with_division``).
    """
    low = hashing.xxhash64_of(subject, seed=fold_seed(seed, salt)) & np.uint64(2**31 - 1)
    return (low * np.float64(folds) / 2.0**31).astype(np.int64)


def fold_seed(seed: int, salt: int) -> int:
    """The seed of the folds' hash, a signed number of 64 bits."""
    return hashing.signed(seed ^ FOLDS ^ (salt * STEP))


def strata(index: pa.Table, split: Split, *, seed: int) -> pa.Table:
    """How patients with and without an outcome would fall, for every salt, as STRATA.

    ``index``: whole patients with their ``split``; of their folds the training patients count.
    """
    subject, row = np.unique(ev.subjects(index), return_inverse=True)
    had = np.zeros(len(subject), np.int64)
    had[row[_true(index.column("boolean_value"))]] = 1
    trains = np.zeros(len(subject), bool)
    trains[row[learning(index, split)]] = True
    folded, learned = subject[trains], had[trains]
    made = []
    for salt in range(SALTS):
        if split.method == "random":
            test = uniform(subject, seed=seed, salt=salt) >= _shares(split)[0]
            made += _counted(SPLIT, salt, test.astype(np.int64), had)
        made += _counted(FOLD, salt, fold(folded, split.folds, seed, salt), learned)
    return STRATA.rows(made)


def _true(flags: pa.ChunkedArray) -> Flags:
    found: Flags = flags.fill_null(False).to_numpy().astype(bool)
    return found


def _counted(division: str, salt: int, part: Ints, had: Ints) -> list[dict[str, object]]:
    counts = np.bincount(2 * part + had)
    return [
        {"division": division, "salt": salt, "part": n // 2, "positive": n % 2, "subjects": count}
        for n, count in enumerate(counts.tolist())
        if count
    ]


def salts(found: pa.Table, split: Split) -> Salts:
    """The salts that divide patients evenly. ``found``: STRATA of all patients, added up."""
    folds = [1 / split.folds] * split.folds
    by_fold = _even(found, FOLD, folds)[: split.repeats]
    return Salts(_even(found, SPLIT, _shares(split))[0], tuple(by_fold))


def _even(found: pa.Table, division: str, shares: Sequence[float]) -> list[int]:
    """The salts, first those by which each part has its share of both strata, in their order, then
    those that are near to it."""
    counts = np.zeros((SALTS, len(shares), 2))
    for row in found.to_pylist():
        if row["division"] == division:
            counts[row["salt"], row["part"], row["positive"]] = row["subjects"]
    total = counts[0].sum(axis=0)
    due = np.array(shares)[:, None] * total
    off = (np.abs(counts - due) / np.maximum(1, NEAR * due)).max(axis=(1, 2))
    bare = ((counts == 0) & (total >= len(shares))).sum(axis=(1, 2))
    bad = (bare > 0) | (off > 1)
    order: list[int] = np.lexsort((np.where(bad, off, 0), np.where(bad, bare, 0), bad)).tolist()
    return order

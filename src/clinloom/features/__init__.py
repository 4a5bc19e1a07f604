"""Features: each family is a file; all see a patient's events only as of the index time.

A kernel room: functions of whole patients' events, without Spark, files or state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom import plugins
from clinloom.features._feature import Feature, read_span, widest
from clinloom.features._grid import Grid
from clinloom.features._past import Past, Seen
from clinloom.study import Model
from clinloom.tables import FEATURES, VOCABULARY

__all__ = ["Feature", "columns", "compute", "resolve", "vocabulary"]

MOST_VALUES = 2**31 - 1  # what a list array of 32-bit offsets can hold
CODES_DENSE = 1 << 24


class Family(Protocol):
    """What a family of features owes: a file of this room, or another package's module."""

    REQUIRES: str | None
    MODALITY: str  # "records" or "images"
    NUMERIC: bool  # only events with a number are candidates
    STATIC: bool  # facts without a time are candidates too
    EXCLUDED: tuple[str, ...]  # patterns of codes that belong to other families

    @property
    def Options(self) -> type[Model]:
        """What a study may set."""

    def candidates(self, options: Any) -> Sequence[str]:
        """The patterns of the codes that the family may use."""

    def names(self, options: Any, vocabulary: Sequence[str]) -> list[str]:
        """The names of its features of these codes.

        Where a family has ``untimed``, of the same arguments, that names the features of codes
        which are only told without a time.
        """

    def fill(self, past: Past, grid: Grid, out: ev.Floats) -> None:
        """Write the grid's features of every index row into ``out`` (rows, features)."""


def columns(families: Iterable[str]) -> list[str]:
    """The columns of the events that these families of features read."""
    more = [name for family in families for name in getattr(_family(family), "COLUMNS", ())]
    return list(dict.fromkeys([*READ, *more]))


READ = ("subject_id", "time", "code", "numeric_value")


def _family(name: str) -> Family:
    return cast(Family, plugins.load("features", name))


def vocabulary(events: pa.Table, index: pa.Table, options: Mapping[str, Model]) -> pa.Table:
    """In how many index rows each family's codes were seen, within its widest window.

    ``events`` and ``index`` (INDEX columns subject_id, prediction_time: training rows only) as in
    :func:`compute`; ``options`` maps a family to its Options. Answers VOCABULARY, sorted; counts
    add up over chunks of patients.
    """
    past = Past(events, index)
    found: list[tuple[str, str, int, int]] = []
    for name, chosen in sorted(options.items()):
        family = _family(name)
        codes = _candidates(past.codes, family, chosen)
        span = widest(map(read_span, getattr(chosen, "windows", ("all",))))
        rows, timed = np.zeros((2, len(codes)), np.int64)
        for seen in past.before(codes, span, numeric=family.NUMERIC, static=family.STATIC):
            here = _distinct(seen, len(codes))
            rows += here
            known = seen.age > 0
            timed += here if known.all() else _distinct(seen.where(known), len(codes))
        counts = zip(codes, rows.tolist(), timed.tolist(), strict=True)
        found += [(name, code, n, dated) for code, n, dated in counts if n]
    columns = list(zip(*sorted(found), strict=True)) or [(), (), (), ()]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, VOCABULARY.arrow, strict=True)]
    return pa.table(arrays, schema=VOCABULARY.arrow)


def _candidates(codes: Sequence[str], family: Family, options: Model) -> list[str]:
    """The codes that a family may use, each once."""
    fits = ev.matching(codes, family.candidates(options)) & ~ev.matching(codes, family.EXCLUDED)
    return sorted({codes[at] for at in np.flatnonzero(fits).tolist()})


def _distinct(seen: Seen, width: int) -> ev.Ints:
    """In how many rows each of ``width`` codes stands."""
    if seen.height * width <= CODES_DENSE:
        there = np.zeros((seen.height, width), bool)
        there[seen.row, seen.code] = True
        counts: ev.Ints = there.sum(axis=0, dtype=np.int64)
        return counts
    return np.bincount(np.unique(seen.row * width + seen.code) % width, minlength=width)


def resolve(
    options: Mapping[str, Model], vocabulary_counts: pa.Table, training_rows: int
) -> list[Feature]:
    """The feature list: every family's features of the codes that enough training rows have.

    ``vocabulary_counts``: :func:`vocabulary` over all chunks, summed. Order: families as the study
    names them, then code, statistic, window; a family's codes that are only told without a time
    come last.
    """
    rows: dict[str, dict[str, int]] = {name: {} for name in options}
    timed: set[tuple[str, str]] = set()
    listed = (vocabulary_counts.column(name).to_pylist() for name in VOCABULARY.arrow.names)
    for family, code, count, dated in zip(*listed, strict=True):
        if family in rows:
            rows[family][code] = rows[family].get(code, 0) + count
            timed |= {(family, code)} if dated else set()
    out: list[Feature] = []
    for name, chosen in options.items():
        family = _family(name)
        least = max(1.0, getattr(chosen, "min_rows", 0) * training_rows)
        kept = [(-count, code) for code, count in rows[name].items() if count >= least]
        kept = sorted(kept)[: getattr(chosen, "max_codes", None)]
        codes = sorted(code for _, code in kept)
        alike = getattr(family, "untimed", None)
        never = [code for code in codes if alike and (name, code) not in timed]
        named = family.names(chosen, sorted(set(codes) - set(never)))
        named += alike(chosen, never) if alike else []
        out += [Feature.named(n, modality=family.MODALITY) for n in named]
    return out


def compute(events: pa.Table, index: pa.Table, features: Sequence[Feature]) -> pa.Table:
    """The features of every index row, in the order of ``features``.

    ``events`` (EVENTS, of which those that :func:`columns` tells are read) hold whole patients,
    sorted by subject_id, time (nulls first), code, value. ``index`` (columns subject_id,
    prediction_time) may name any of those patients any number of times, in any order; a patient
    without events has counts of 0 and NaN otherwise.

    Answers FEATURES in the order of ``index``: one float64 list a row, NaN where missing. Events
    at or after the index time are never read.
    """
    values = matrix(events, index, features)
    columns = [index.column(name) for name in ("subject_id", "prediction_time")]
    fields = zip(columns, FEATURES.arrow, strict=False)
    columns = [c if c.type == f.type else c.cast(f.type) for c, f in fields]
    return pa.table([*columns, _lists(values)], schema=FEATURES.arrow)


def matrix(events: pa.Table, index: pa.Table, features: Sequence[Feature]) -> ev.Floats:
    """The features as float64 (rows, features): what :func:`compute` gives, as an array."""
    past = Past(events, index)
    shape = (index.num_rows, len(features))
    # Arrow's pool keeps pages from chunk to chunk; a new mapping would fault in every one of them.
    memory = pa.allocate_buffer(8 * shape[0] * shape[1])
    out = np.frombuffer(memory, np.float64).reshape(shape)
    for family, columns, grid in _plan(_Listed(features)):
        if isinstance(columns, slice):
            family.fill(past, grid, out[:, columns])
        else:
            part = np.empty((len(out), len(columns)))
            family.fill(past, grid, part)
            out[:, columns] = part
    return out


class _Listed:
    """A feature list as the key of its plan: by which objects they are.

    To hash a thousand features by name at each request takes as long as to compute them.
    """

    def __init__(self, features: Sequence[Feature]):
        self.features = tuple(features)  # held, so that no other object has one's place
        self._places = tuple(map(id, self.features))

    def __hash__(self) -> int:
        return hash(self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Listed) and self._places == other._places


@lru_cache(maxsize=16)
def _plan(listed: _Listed) -> tuple[tuple[Family, slice | np.ndarray, Grid], ...]:
    """Each family with its columns and grid."""
    features = listed.features
    places: dict[str, list[int]] = {}
    for at, feature in enumerate(features):
        places.setdefault(feature.family, []).append(at)
    plan = []
    for name, columns in places.items():
        together = columns[-1] - columns[0] + 1 == len(columns)
        where = slice(columns[0], columns[-1] + 1) if together else np.array(columns)
        plan.append((_family(name), where, Grid([features[c] for c in columns])))
    return tuple(plan)


def _lists(values: ev.Floats) -> pa.ChunkedArray:
    """Rows as lists, without a copy; in pieces where the offsets would overflow."""

    def pieces() -> Iterator[pa.Array]:
        width = values.shape[1]
        most = MOST_VALUES // max(width, 1)
        for start in range(0, len(values), most):
            part = values[start : start + most]
            offsets = np.arange(len(part) + 1, dtype=np.int32) * np.int32(width)
            yield pa.ListArray.from_arrays(offsets, part.reshape(-1))

    return pa.chunked_array(pieces(), FEATURES.arrow.field("values").type)

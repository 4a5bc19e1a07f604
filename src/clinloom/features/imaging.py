"""Measurements taken on images, as they were available before the index time.

A patient's features are one image's: `last` chooses the latest image of each modality and body part
and takes all of its measurements, so that no row describes an image that does not exist. The other
statistics are aggregates over all images of the span, measurement by measurement. An image without
a date, where the study lets it be one, is in every span; `last` is it where no other was known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from clinloom.events import Flags, Floats, Ints
from clinloom.features._feature import Windows, listed, one_each
from clinloom.features._grid import Grid
from clinloom.features._past import Past, Seen
from clinloom.features._summaries import SUMMARY, Bins, Statistic
from clinloom.study import Codes, Model

REQUIRES: str | None = None
MODALITY = "images"
NUMERIC = True
STATIC = True  # where the study lets an image have no date
EXCLUDED: tuple[str, ...] = ()
COLUMNS = ("record_id", "source")  # of the events, beside those that every family reads


class Options(Model):
    """Which image measurements are used, how, and over which spans."""

    codes: Codes = Field(
        default=("IMAGE//*",),
        description="codes IMAGE//modality//part//name; PT_BQML: PET that is no SUV",
    )
    statistics: tuple[Statistic, ...] = Field(
        default=("last",),
        description="last: all of the latest image before the index (of several at one moment, the"
        " last by its identifier); the others: over all images, measurement by measurement",
        min_length=1,
    )
    windows: Windows = Field(
        default=("all",), description="spans before the index time, e.g. [30d, all]", min_length=1
    )
    min_rows: float = Field(
        default=0.01, ge=0, le=1, description="a code is used if this part of training rows has it"
    )


def candidates(options: Options) -> Sequence[str]:
    """The patterns of codes that this family may use."""
    return options.codes


def names(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """The features of the codes that were seen."""
    return listed("imaging", vocabulary, options.statistics, options.windows)


def untimed(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """The features of codes that are only measured on images without a date."""
    return one_each("imaging", vocabulary, options.statistics, options.windows)


def fill(past: Past, grid: Grid, out: Floats) -> None:
    """Write the features of ``grid`` into ``out`` (rows, features)."""
    kinds = _kinds(grid.codes)
    for seen in past.before(grid.codes, grid.span, numeric=True, static=True, cells=grid.cells):
        bins = Bins(seen, grid)
        for statistic in grid.statistics:
            if statistic == "last":
                timed, untimed = bins.parted()
                made, has = _latest(timed, kinds, past)
                if untimed is not None:
                    np.copyto(made, _latest(untimed, kinds, past)[0], where=~has)
            else:
                made = SUMMARY[statistic](bins)
            grid.put(out[seen.rows], statistic, made)


def _kinds(codes: Sequence[str]) -> Ints:
    """Which modality and body part each code is of (c,), as a number."""
    prefixes = [code.rpartition("//")[0] for code in codes]
    number = {prefix: n for n, prefix in enumerate(dict.fromkeys(prefixes))}
    return np.array([number[prefix] for prefix in prefixes], np.int64)


def _latest(bins: Bins, kinds: Ints, past: Past) -> tuple[Floats, Flags]:
    """The values of each row's latest image of each kind, NaN: it has none; and whether there is
    one (windows, rows, codes).

    ``kinds`` (codes,); the block's events ascend in time in each row.
    """
    seen: Seen = bins.seen
    record = past.records(seen.at)
    windows, height, _ = bins.shape
    count = int(kinds.max()) + 1
    window = bins.key // (height * len(kinds))  # the narrowest that holds the event
    cell = (window * height + seen.row) * count + kinds[seen.code]
    size = windows * height * count
    youngest = np.full(size, -1, np.int64)
    youngest[cell] = seen.age  # in order of time: the last one stays
    newest = seen.age == youngest[cell]
    chosen = np.full(size, -1, np.int64)
    np.maximum.at(chosen, cell[newest], record[newest])
    mine = newest & (record == chosen[cell])
    out = np.full(bins.size, np.nan)
    out[bins.key[mine]] = seen.value[mine]
    made = out.reshape(bins.shape)
    has = (chosen >= 0).reshape(windows, height, count)
    for wider in range(1, windows):
        np.copyto(made[wider], made[wider - 1], where=has[wider - 1][:, kinds])
        has[wider] |= has[wider - 1]
    return made, has[:, :, kinds]

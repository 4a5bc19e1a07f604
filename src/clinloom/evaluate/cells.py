"""How the values of features are distributed: counts in at most ten cells of about equal share.

What a bundle keeps of its training rows, and what new rows are held against. The cells are cut at
the deciles of the training rows, rounded; a value lies in the first cell whose edge it does not
exceed. No cell holds fewer than 5 patients: it becomes one with its neighbour, and fewer than 5
that are missing count as the largest cell, so that nothing can be had by subtraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom.learn.sketch import Sketch

CELLS = 10
WIDTH = CELLS + 1  # and one for what is missing, the last
LEAST = 5  # patients of whom a cell may tell
DIGITS = 4  # significant ones of an edge: nobody's own value

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SCHEMA = pa.schema(
    [
        pa.field("period", pa.int64(), False),
        pa.field("feature", pa.int64(), False),
        pa.field("cell", pa.int64(), False),
        pa.field("rows", pa.int64(), False),
        pa.field("patients", pa.int64(), False),
    ]
)


@dataclass(frozen=True)
class Cells:
    """Where f features are cut: ``edges`` (f, 9), rising; infinite where there are fewer cells."""

    edges: Floats

    @classmethod
    def of(cls, sketch: Sketch) -> Cells:
        """At the rounded deciles of a sketch of f features.

        Where most values are one number, that number has a cell of its own.
        """
        at = [tenth / CELLS for tenth in range(1, CELLS)]
        found = _rounded(sketch.quantiles(at))
        least, most = _rounded(sketch.least), _rounded(sketch.most)
        edges = np.full((len(least), CELLS - 1), np.inf)
        for feature, cuts in enumerate(found.T):
            kept = np.unique(cuts[cuts < most[feature]])
            if not kept.size and least[feature] < most[feature]:
                kept = least[feature : feature + 1]
            edges[feature, : kept.size] = kept
        return cls(edges)

    def counts(self, values: Floats, period: Ints, subject: Ints) -> pa.Table:
        """Rows (n, f) of whole patients, in order, as SCHEMA: rows and patients of each cell.

        ``period`` and ``subject`` (n,); what is not finite is missing. A patient counts once a
        cell and period.
        """
        periods, at = np.unique(period, return_inverse=True)
        change = (subject[1:] != subject[:-1]) | (period[1:] != period[:-1])
        run = np.cumsum(np.r_[False, change][: subject.size])  # of one patient in one period
        of_run = at[np.r_[True, change][: subject.size]]
        parts = []
        for feature, edges in enumerate(self.edges):
            value = values[:, feature]
            cell = np.searchsorted(edges, value, side="left")
            cell[~np.isfinite(value)] = CELLS
            size = len(periods) * WIDTH
            rows = np.bincount(at * WIDTH + cell, minlength=size)
            if change.all():
                patients = rows
            else:
                seen = np.zeros(len(of_run) * WIDTH, bool)
                seen[run * WIDTH + cell] = True
                held = np.flatnonzero(seen)
                patients = np.bincount(of_run[held // WIDTH] * WIDTH + held % WIDTH, minlength=size)
            there = np.flatnonzero(rows)
            same = np.full(there.size, feature)
            parts.append(
                (periods[there // WIDTH], same, there % WIDTH, rows[there], patients[there])
            )
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else []
        return pa.table(columns, schema=SCHEMA) if columns else SCHEMA.empty_table()


def merged(tables: Sequence[pa.Table]) -> pa.Table:
    """Counts of all parts: how workers merge their partial sums."""
    found = pa.concat_tables(tables).group_by(["period", "feature", "cell"])
    made = found.aggregate([("rows", "sum"), ("patients", "sum")])
    return made.rename_columns(SCHEMA.names).cast(SCHEMA)


def dense(counts: pa.Table, periods: Sequence[int], features: int) -> tuple[Ints, Ints]:
    """Rows and patients (periods, f, 11) of SCHEMA; periods that are not asked for are left out."""
    of = {number: at for at, number in enumerate(periods)}
    place = np.array([of.get(number, -1) for number in counts.column("period").to_pylist()], int)
    kept = np.flatnonzero(place >= 0)
    feature, cell, *numbers = (
        counts.column(name).to_numpy()[kept] for name in SCHEMA.names if name != "period"
    )
    rows, patients = np.zeros((2, len(of), features, WIDTH), np.int64)
    for out, found in zip((rows, patients), numbers, strict=True):
        np.add.at(out, (place[kept], feature, cell), found)
    return rows, patients


@dataclass(frozen=True)
class Kept:
    """What may be told of the reference's rows: ``edges`` (f, 9) and ``counts`` (f, 11) of rows."""

    cells: Cells
    counts: Ints

    @classmethod
    def of(cls, cells: Cells, rows: Ints, patients: Ints) -> Kept:
        """Of counts (f, 11), cells of few patients joined to their neighbours."""
        edges = np.full_like(cells.edges, np.inf)
        counts = np.zeros_like(rows)
        for feature in range(len(rows)):
            cuts, found = joined(cells.edges[feature], rows[feature], patients[feature])
            edges[feature, : len(cuts)] = cuts
            counts[feature, : len(found) - 1] = found[:-1]
            counts[feature, CELLS] = found[-1]
        return cls(Cells(edges), counts)

    def plain(self) -> list[dict[str, Any]]:
        """As a document: edges, the counts of the cells between them, and who is missing."""
        out = []
        for edges, counts in zip(self.cells.edges, self.counts, strict=True):
            cuts = edges[np.isfinite(edges)].tolist()
            told = {"edges": cuts, "counts": counts[: len(cuts) + 1].tolist()}
            out.append({**told, "missing": int(counts[CELLS])})
        return out

    @classmethod
    def parse(cls, document: Sequence[Mapping[str, Any]]) -> Kept:
        """The inverse of :meth:`plain`."""
        edges = np.full((len(document), CELLS - 1), np.inf)
        counts = np.zeros((len(document), WIDTH), np.int64)
        for feature, told in enumerate(document):
            edges[feature, : len(told["edges"])] = told["edges"]
            counts[feature, : len(told["counts"])] = told["counts"]
            counts[feature, CELLS] = told["missing"]
        return cls(Cells(edges), counts)


def joined(edges: Floats, rows: Ints, patients: Ints) -> tuple[list[float], list[int]]:
    """A feature's edges and rows by cell, missing last, where no cell holds fewer than 5 patients.

    A small cell joins the smaller of its neighbours. Where fewer than 5 are known all are missing.
    """
    cuts = edges[np.isfinite(edges)].tolist()
    found, who = rows[: len(cuts) + 1].tolist(), patients[: len(cuts) + 1].tolist()
    missing, lacking = int(rows[CELLS]), int(patients[CELLS])
    while len(who) > 1 and min(who) < LEAST:
        at = who.index(min(who))
        left = at > 0 and (at == len(who) - 1 or who[at - 1] <= who[at + 1])
        at -= left  # the cell and the one to its right become one
        found[at : at + 2], who[at : at + 2] = [sum(found[at : at + 2])], [sum(who[at : at + 2])]
        del cuts[at]
    if sum(who) < LEAST:
        return [], [0, missing + sum(found)]
    if lacking < LEAST:
        found[who.index(max(who))] += missing
        missing = 0
    return cuts, [*found, missing]


def _rounded(values: Floats) -> Floats:
    """To so many significant digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        places = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * places) / places
    return np.where(np.isfinite(rounded), rounded, values)

"""Table 1: what those with and without the outcome are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom.learn.sketch import Sketch
from clinloom.report.disclosure import HIDDEN, SMALL, cell, parts, small
from clinloom.report.figures import FEW, MINUS, NONE, count, percent
from clinloom.report.figures import number as figure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
SIZE = "n"  # the name of the first row: how many rows each column describes
ALL_BUT_FEW = f"all but <{FEW}"
PARTS = ("overall", "without", "with")


@dataclass(frozen=True)
class Group:
    """Rows of one outcome: their sketch, and (f,) how many values are 0, are 1, are not whole,
    their mean, and the sum of squared distances from it."""

    sketch: Sketch
    zeros: Ints
    ones: Ints
    broken: Ints
    average: Floats
    square: Floats

    @classmethod
    def of(cls, values: Floats, order: Ints) -> Group:
        """Of rows (n, f), NaN or infinite = missing; ``order``: see ``Sketch.of``."""
        known = np.isfinite(values)
        counts = ((values == 0), (values == 1), known & (values != np.rint(values)))
        sketch = Sketch.of(np.where(known, values, np.nan), order)
        plain = np.where(known, values, 0.0)
        mean = plain.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        square = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
        parts = [*(found.sum(axis=0) for found in counts), mean, square]
        return cls(sketch, *parts)

    @classmethod
    def merge(cls, parts: Sequence[Group]) -> Group:
        """Of the rows of all parts."""
        counts = (sum(getattr(p, name) for p in parts) for name in COUNTS)
        known = np.array([part.sketch.known for part in parts], float)
        means = np.array([part.average for part in parts])
        mean = (known * means).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        square = sum(part.square for part in parts) + (known * (means - mean) ** 2).sum(axis=0)
        return cls(Sketch.merge(part.sketch for part in parts), *[*counts, mean, square])

    @property
    def variance(self) -> Floats:
        """The variance (f,) of the known values."""
        known: Floats = np.maximum(self.sketch.known, 1)
        return np.asarray(self.square / known)

    def table(self, outcome: bool) -> pa.Table:
        """As an Arrow table of one row."""
        made = self.sketch.table().append_column("outcome", pa.array([outcome]))
        for name in COUNTS:
            made = made.append_column(name, pa.array([getattr(self, name).tolist()], LONGS))
        for name in MOMENTS:
            made = made.append_column(name, pa.array([getattr(self, name).tolist()], DOUBLES))
        return made


COUNTS = ("zeros", "ones", "broken")
MOMENTS = ("average", "square")
LONGS, DOUBLES = pa.list_(pa.int64()), pa.list_(pa.float64())


def summary(values: Floats, label: Flags, order: Ints) -> pa.Table:
    """What Table 1 needs of rows (n, f) with their outcome (n,): a row for each outcome."""
    groups = [(one, label if one else ~label) for one in (False, True)]
    return pa.concat_tables(
        Group.of(values[inside], order[inside]).table(one) for one, inside in groups
    )


def merged(tables: Sequence[pa.Table]) -> pa.Table:
    """Summaries as one: how workers merge their partial sums."""
    return pa.concat_tables(
        Group.merge([found for table in tables for found in _groups(table, one)]).table(one)
        for one in (False, True)
    )


def _groups(table: pa.Table, outcome: bool) -> list[Group]:
    rows = [at for at, one in enumerate(table.column("outcome").to_pylist()) if one == outcome]
    return [
        Group(
            Sketch.read(table, at),
            *(np.array(table.column(n)[at].as_py()) for n in (*COUNTS, *MOMENTS)),
        )
        for at in rows
    ]


def table_one(
    names: Sequence[str], values: np.ndarray, label: np.ndarray, *, limit: int = 25
) -> list[dict[str, str]]:
    """The characteristics of rows in memory: :func:`told` of their summary.

    ``names`` (features,), ``values`` (rows, features) with NaN for missing, ``label`` (rows,) bool.
    """
    values, label = np.asarray(values, float), np.asarray(label).astype(bool)
    return told(names, summary(values, label, np.arange(len(label))), limit=limit)


def told(names: Sequence[str], found: pa.Table, *, limit: int = 25) -> list[dict[str, str]]:
    """The characteristics of all rows, of those without and of those with the outcome.

    ``names`` (features,), ``found``: their :func:`summary`. Answers dictionaries of texts:
    ``feature`` (its name, which the page puts in words), ``overall``, ``without``, ``with``,
    ``missing``, ``difference`` (standardised; Austin, Commun. Stat. Simul. Comput. 38 (2009)
    1228). The first row has the ``name`` n instead and gives the columns' sizes and, as
    ``known``, how many characteristics there are; then follow up to ``limit`` of them, those with
    the fewest missing, in the order given.

    Numbers are told as median (Q1–Q3), characteristics of 0 and 1 as n (%) of the known. No count
    below 5 is shown, nor one that leaves fewer than 5 over, nor the total from which a hidden
    count could be had, nor the share where it would tell of how few it is not known. Counts are
    exact; quartiles are, while the summary holds every value.
    """
    without, with_ = (Group.merge(_groups(found, one)) for one in (False, True))
    groups = [Group.merge([without, with_]), without, with_]
    whole = groups[0].sketch
    sizes = [group.sketch.rows for group in groups]
    sized = all(parts(sizes[1:]))
    rows = [_size(sizes)]
    share = whole.known / whole.rows if whole.rows else np.zeros(len(names))
    full = np.argsort(-share, kind="stable")[:limit]
    chosen = np.array(sorted(int(at) for at in full if share[at] > 0), np.int64)
    rows[0]["known"] = str(int((share > 0).sum()))
    quartiles = [group.sketch.quantiles((0.5, 0.25, 0.75), of=chosen) for group in groups]
    for number, at in enumerate(chosen):
        known = [int(group.sketch.known[at]) for group in groups]
        lacking = [group.sketch.rows - n for group, n in zip(groups, known, strict=True)]
        shares = sized and not any(map(small, lacking))
        if groups[0].zeros[at] + groups[0].ones[at] == known[0]:
            cells = _counted([int(group.ones[at]) for group in groups], known, shares=shares)
        else:
            shown = [q[:, number] for q in quartiles]
            cells = _measured(shown, known, whole=not groups[0].broken[at])
        rows.append(
            {
                "feature": names[at],
                **dict(zip(PARTS, cells, strict=True)),
                "missing": _missing(lacking[0], known[0]),
                "difference": _apart(groups[1], groups[2], int(at), cells),
            }
        )
    return rows


def _apart(without: Group, with_: Group, at: int, cells: Sequence[str]) -> str:
    """The standardised difference of means; hidden with what it would tell."""
    if any("<" in cell or cell == HIDDEN for cell in cells):
        return HIDDEN
    wide = (without.variance[at] + with_.variance[at]) / 2
    return (
        figure((with_.average[at] - without.average[at]) / np.sqrt(wide), 2) if wide > 0 else NONE
    )


def _size(sizes: Sequence[int]) -> dict[str, str]:
    """How many rows each column describes; the flow and the split tell of all of them, too."""
    shown = [sizes[0] >= FEW, *parts(sizes[1:])]
    texts = dict(zip(PARTS, map(cell, sizes, shown), strict=True))
    return {"name": SIZE, **texts, "missing": ""}


def _counted(ones: Sequence[int], known: Sequence[int], *, shares: bool) -> list[str]:
    """n (%) of each part; the first part is the sum of the others."""
    found = zip(ones, known, strict=True)
    cells = [_count(number, total, share=shares) for number, total in found]
    if any("<" in cell for cell in cells[1:]) and "<" not in cells[0]:
        cells[0] = HIDDEN
    return cells


def _count(number: int, total: int, *, share: bool) -> str:
    if number < FEW:
        return SMALL
    if total - number < FEW:
        return ALL_BUT_FEW
    return f"{number:,} ({percent(number / total)})" if share else count(number)


def _measured(quartiles: Sequence[Floats], known: Sequence[int], *, whole: bool) -> list[str]:
    """median (Q1–Q3) of each part, all with the same decimals."""
    found = [q if size >= FEW else None for q, size in zip(quartiles, known, strict=True)]
    shown = np.concatenate([f for f in found if f is not None] or [np.zeros(1)])
    decimals = _decimals(shown, whole=whole)
    return [_quartiles(f, decimals) if f is not None else f"<{FEW} known" for f in found]


def _decimals(shown: np.ndarray, *, whole: bool) -> int | None:
    """How many decimals suit the numbers; None: as powers of ten."""
    largest = float(np.abs(shown).max())
    if largest >= 1e7 or 0 < largest < 1e-3:
        return None
    if whole:
        return 0 if (shown == np.rint(shown)).all() else 1
    return 0 if largest >= 200 else 1 if largest >= 10 else 2 if largest >= 0.1 else 4


def _quartiles(found: np.ndarray, decimals: int | None) -> str:
    form = ",.3g" if decimals is None else f",.{decimals}f"
    median, low, high = (format(float(value) + 0.0, form).replace("-", MINUS) for value in found)
    between = " to " if MINUS in low else NONE
    return f"{median} ({low}{between}{high})"


def _missing(lacking: int, known: int) -> str:
    if small(lacking):
        return SMALL
    if known < FEW:
        return ALL_BUT_FEW
    share = lacking / (lacking + known)
    if share <= 0:
        return "0%"
    return "<1%" if share < 0.01 else ">99%" if share > 0.99 else f"{100 * share:.0f}%"

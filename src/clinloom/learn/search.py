"""The search for the best point of a grid, in folds: the whole grid, some of it, or by halving.

A trial is a point in the folds of a rung. What it told is a small table (TRIALS), which whoever
searches keeps, so that a search that was ended goes on after its last whole trial. Successive
halving (Jamieson and Talwalkar, AISTATS 2016) with folds as the resource: all points in the folds
of the first rung, the better third of them in those of the next, and so on; of a fold that was
paid for nothing is done again. Each part is searched for by itself, and none by its own rows; a fit
that tunes two parts is made where either wants it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.errors import DataError
from clinloom.learn import risks
from clinloom.learn.risks import Risks
from clinloom.study import Tune
from clinloom.tables import TRIALS

ETA = 3  # of so many points one goes on
NOWHERE = -1  # the part of a row that is not judged
Point = dict[str, Any]


class Cell(NamedTuple):
    """A fold that validates a point for the model that judges a part."""

    part: int
    fold: int


class Left(NamedTuple):
    """What a fit leaves out, of its repeat: a part and a fold; and what it validates with that."""

    repeat: int
    part: int | None
    fold: int
    cells: tuple[Cell, ...]
    rung: int  # when a search comes to it that does not fit every point everywhere


def cells(fits: Sequence[Left], part: int | None) -> list[Cell]:
    """What validates for a part; None: for the model of all rows, every one."""
    return [cell for left in fits for cell in left.cells if part in (None, cell.part)]


class Kept(Protocol):
    """What trials told, by their names."""

    def get(self, trial: str) -> pa.Table | None:
        """TRIALS; None where it was not made."""

    def __setitem__(self, trial: str, told: pa.Table) -> None:
        """Keep it."""


@dataclass(frozen=True)
class Failed:
    """Why a fit of a trial failed: the error itself, and in words that name no value."""

    error: Exception

    def __str__(self) -> str:
        return type(self.error).__name__


Fit = Callable[[Point, Left], Mapping[Cell, Risks]]
Fitted = Callable[[Iterable[tuple[Point, Left]]], Iterator[Mapping[Cell, Risks] | Failed]]


@dataclass
class Found:
    """What a search found: the areas by point and cell, where each point's risks are kept, and
    which points were left for each part."""

    points: Sequence[Point]
    fits: Sequence[Left]
    kept: Kept
    areas: list[dict[Cell, float]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    alive: dict[int | None, set[int]] = field(default_factory=dict)

    def mean(self, number: int, within: Sequence[Cell]) -> float:
        """The mean area of a point in those of some cells where it is defined; 0.5 in none."""
        told = [a for cell in within if not math.isnan(a := self.areas[number].get(cell, math.nan))]
        return float(np.mean(told)) if told else 0.5

    def best(self, part: int | None) -> tuple[int, list[float]]:
        """The number of the best point for a part, None: for all; and its areas.

        Of the points that were left to it: who was left behind was not tried everywhere, or by
        others, in whose choice the part's own rows had a say.
        """
        within = cells(self.fits, part)
        tried = [n for n in range(len(self.points)) if n not in self.failed]
        tried = [n for n in tried if n in self.alive.get(part, tried)] or tried

        def rank(number: int) -> tuple[int, float]:
            return sum(c in self.areas[number] for c in within), self.mean(number, within)

        number = max(tried, key=rank)
        told = [self.areas[number].get(cell, math.nan) for cell in within]
        return number, [area for area in told if not math.isnan(area)]

    def risks(self, number: int, part: int | None) -> Risks:
        """The raw risks that a point told of the rows that validate for a part."""
        parts = []
        for rung in sorted({left.rung for left in self.fits}):
            table = self.kept.get(name(self.points[number], rung))
            if table is not None:
                mine = table if part is None else table.filter(pc.field("part") == part)
                parts.append(Risks.read(mine.filter(pc.field("total") > 0)))
        return Risks.merge(parts).compact()


def name(point: Point, rung: int) -> str:
    """Of a trial."""
    text = json.dumps(point, sort_keys=True, default=str)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{rung}"


def drawn(points: Sequence[Point], how: Tune, *, seed: int) -> list[Point]:
    """The points that are tried: all of the grid, or as many as the study names, by the seed."""
    if how.trials is None or how.trials >= len(points):
        return list(points)
    order = np.random.default_rng(seed).permutation(len(points))[: how.trials]
    return [points[at] for at in sorted(order)]


def search(
    points: Sequence[Point],
    fits: Sequence[Left],
    fitted: Fitted,
    *,
    halving: bool = False,
    kept: Kept,
    note: Callable[[str], None] = lambda _: None,
) -> Found:
    """Try ``points`` in the folds of ``fits``. ``fitted`` makes fits side by side, in order.

    A trial that fails is told and left out. Raises its error where every trial fails.
    """
    found = Found(points, fits, kept, [{} for _ in points])
    parts = sorted({cell.part for left in fits for cell in left.cells})
    deciders: list[int | None] = [*parts, None] if len(parts) > 1 else [None]
    alive = {decider: set(range(len(points))) for decider in deciders}
    rungs = sorted({left.rung for left in fits}) if halving else [None]
    error: Exception | None = None
    for at, rung in enumerate(rungs):
        mine = [left for left in fits if rung in (None, left.rung)]
        error = _tried(found, _wanted(mine, alive, found), fitted, note) or error
        if len(found.failed) == len(points):
            raise error or DataError("no point could be fitted")
        seen = [left for left in fits if rung is None or left.rung <= rung]
        for decider, left_over in alive.items():
            left_over -= found.failed.keys()
            if at + 1 < len(rungs):
                within = cells(seen, decider)
                most = max(1, math.ceil(len(left_over) / ETA))
                order = sorted(left_over, key=lambda n: (-found.mean(n, within), n))
                alive[decider] = set(order[:most])
    found.alive.update(alive)
    return found


def _wanted(
    mine: Sequence[Left], alive: Mapping[int | None, set[int]], found: Found
) -> list[tuple[int, int, list[Left]]]:
    """The trials of a rung or of all, as point, rung and fits: of each what anybody wants."""
    out = []
    for number in range(len(found.points)):
        for rung in sorted({left.rung for left in mine}):
            fits = [left for left in mine if left.rung == rung and _asked(left, number, alive)]
            if fits:
                out.append((number, rung, fits))
    return out


def _asked(left: Left, number: int, alive: Mapping[int | None, set[int]]) -> bool:
    wants = (alive.get(decider, set()) for decider in (None, *(cell.part for cell in left.cells)))
    return any(number in wanted for wanted in wants)


def _tried(
    found: Found,
    trials: Sequence[tuple[int, int, list[Left]]],
    fitted: Fitted,
    note: Callable[[str], None],
) -> Exception | None:
    """Make the trials that are not kept, keep each as it is whole, and note the areas."""
    held = {
        at: found.kept.get(name(found.points[n], rung)) for at, (n, rung, _) in enumerate(trials)
    }
    held = {at: t for at, t in held.items() if t is not None and _covers(t, trials[at][2])}
    todo = [trial for at, trial in enumerate(trials) if at not in held]
    made = fitted((found.points[n], left) for n, _, fits in todo for left in fits)
    error = None
    for at, (number, rung, fits) in enumerate(trials):
        table = held.get(at)
        if table is None:
            answers = [next(made) for _ in fits]
            failed = next((a for a in answers if isinstance(a, Failed)), None)
            if failed is not None:
                if number not in found.failed:
                    note(f"a trial failed and is left out: {_said(found.points[number])}: {failed}")
                found.failed[number], error = str(failed), failed.error
                continue
            table = _table(answers)
            found.kept[name(found.points[number], rung)] = table
        for left in fits:
            for cell in left.cells:
                found.areas[number][cell] = _of(table, cell).auroc()
    return error


def _said(point: Point) -> str:
    return ", ".join(f"{key} {value}" for key, value in point.items()) or "the defaults"


def _covers(table: pa.Table, fits: Sequence[Left]) -> bool:
    """Whether a kept trial told of every fit: a row of no rows stands for a cell without any."""
    told = set(zip(table["part"].to_pylist(), table["fold"].to_pylist(), strict=True))
    return all(cell in told for left in fits for cell in left.cells)


def _of(table: pa.Table, cell: Cell) -> Risks:
    inside = (pc.field("part") == cell.part) & (pc.field("fold") == cell.fold)
    return Risks.read(table.filter(inside & (pc.field("total") > 0)))


def _table(answers: Iterable[Any]) -> pa.Table:
    made = []
    for answer in answers:
        for cell, told in answer.items():
            rows = told.table() if told.rows else _NONE
            key = [pa.array(np.full(rows.num_rows, n, np.int64)) for n in cell]
            made.append(pa.table([*key, *rows.columns], schema=TRIALS.arrow))
    return pa.concat_tables(made)


_NONE = pa.table([pa.array([0.0]), *([pa.array([0])] * 2), *([pa.array([0.0])] * 2)],
                 schema=risks.SCHEMA)  # fmt: skip

"""How rows are judged: the parts, each by a model that has not seen its patients, and the folds.

A split that sets a side aside has one part, the test rows. By site every site is one, by kfold
every fold of every repeat. The model that judges a part is learned from the other rows, and tuned
in their folds. Where the folds are the parts, a part is tuned in the other folds: a fit without
folds i and j validates j for the model that judges i, and i for the one that judges j, so each is
made once for both. No row of a part has a say in the point, calibration or threshold that it is
judged with. (Varma and Simon, BMC Bioinformatics 2006, 7:91)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.cohort import split as splitting
from clinloom.events import Ints
from clinloom.learn.search import NOWHERE, Cell, Left
from clinloom.study import Split


@dataclass(frozen=True)
class Division:
    """``parts``: the values of ``split`` whose rows are judged together; none: the folds are.

    ``salts``: of the folds' hash, one a repeat.
    """

    folds: int
    seed: int
    salts: tuple[int, ...]
    parts: tuple[str, ...]

    @classmethod
    def of(cls, split: Split, seed: int, sides: Mapping[str, Any]) -> Division:
        """Of a study, and what its cohort told of the ``sides``."""
        return cls(split.folds, seed, tuple(sides["folds"]), tuple(sides["parts"]))

    @property
    def crossed(self) -> bool:
        """Whether the folds are the parts."""
        return not self.parts

    @property
    def rotated(self) -> bool:
        """Whether every row is judged, and so learned from."""
        return self.parts != (splitting.TEST,)

    @property
    def each(self) -> int:
        """The parts of a repeat."""
        return len(self.parts) or self.folds

    @property
    def repeats(self) -> int:
        """How many times the rows are divided."""
        return len(self.salts)

    @property
    def names(self) -> list[str]:
        """Of every part, by its number: the repeats one after another."""
        if self.parts:
            return list(self.parts)
        folds = [f"fold {n + 1}" for n in range(self.folds)]
        if self.repeats == 1:
            return folds
        return [f"repeat {r + 1}, {fold}" for r in range(self.repeats) for fold in folds]

    def part(self, rows: pa.Table, repeat: int) -> Ints:
        """The part (n,) of each row of a table with subjects and ``split``; NOWHERE: in none.

        Spark gives the same (``run.train.with_division``).
        """
        side = rows.column("split")
        if self.crossed:
            subject = ev.subjects(rows)
            part = splitting.fold(subject, self.folds, self.seed, self.salts[repeat])
            inside = side.is_valid().to_numpy()
            return np.where(inside, part + repeat * self.folds, NOWHERE)
        position, names = ev.coded(ev.column(rows, "split"))
        of = np.array([self.parts.index(n) if n in self.parts else NOWHERE for n in names] or [0])
        return np.where(position >= 0, of[position], NOWHERE)

    def fits(self) -> list[Left]:
        """What is left out, in turn, of the fits that tune a point for every part.

        The rungs take in as many folds for each part: those next to it first.
        """
        if not self.crossed:
            return [
                Left(0, part, fold, (Cell(part, fold),), fold)
                for part in range(self.each)
                for fold in range(self.folds)
            ]
        return [
            Left(
                repeat,
                base + one,
                other,
                (Cell(base + one, other), Cell(base + other, one)),
                min(other - one, self.folds - other + one) - 1,
            )
            for repeat in range(self.repeats)
            for base in (repeat * self.folds,)
            for one in range(self.folds)
            for other in range(one + 1, self.folds)
        ]

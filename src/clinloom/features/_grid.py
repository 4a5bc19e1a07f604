"""Where a family's features lie: codes x statistics x windows, and the way back to columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from clinloom.features._feature import Feature, Span, widest


class Grid:
    """The codes, statistics and windows of some features, in their order.

    Windows are counted from the narrowest; numbers are kept as (window, row, code).
    """

    def __init__(self, features: Sequence[Feature]):
        self.features = tuple(features)
        self.codes = tuple(dict.fromkeys(f.code for f in features))
        self.statistics = tuple(dict.fromkeys(f.statistic for f in features))
        given: tuple[Span, ...] = tuple(dict.fromkeys(f.window[0] for f in features))
        self.windows = tuple(sorted(given, key=lambda w: (w is None, w or 0)))
        self.span = widest(given)
        self._given = [given.index(w) for w in self.windows]
        code = {c: n for n, c in enumerate(self.codes)}
        window = {w: n for n, w in enumerate(self.windows)}
        cells = [(f.code, f.statistic, f.window[0]) for f in features]
        self._full = cells == list(product(self.codes, self.statistics, given))
        self._picks: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for statistic in self.statistics:
            some = [(n, window[w], code[c]) for n, (c, s, w) in enumerate(cells) if s == statistic]
            columns, windows, codes = np.array(some, np.int64).T
            self._picks[statistic] = (columns, windows, codes)

    @property
    def cells(self) -> int:
        """Numbers a row and statistic."""
        return len(self.windows) * len(self.codes)

    def put(self, out: np.ndarray, statistic: str, numbers: np.ndarray) -> None:
        """Write a statistic's ``numbers`` (windows, rows, codes) into ``out`` (rows, features)."""
        if self._full:
            shape = (len(out), len(self.codes), len(self.statistics), len(self.windows))
            target = out.reshape(shape)  # splits the last axis: always a view
            place = self.statistics.index(statistic)
            for number, given in enumerate(self._given):
                target[:, :, place, given] = numbers[number]
            return
        columns, windows, codes = self._picks[statistic]
        out[:, columns] = numbers[windows, :, codes].T

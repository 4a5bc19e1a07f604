"""The times at which patients had what a criterion or an outcome names."""

from __future__ import annotations

import numpy as np

from clinloom import events as ev
from clinloom.events import Flags, Ints
from clinloom.history import History


class Occurrences:
    """The times at which each patient had one of some codes."""

    def __init__(self, history: History, rows: Ints):
        self._time = history.time[rows]
        self._starts = np.searchsorted(rows, history.starts)

    def between(
        self,
        patient: Ints,
        begin: Ints,
        end: Ints,
        *,
        including_start: bool = True,
        including_end: bool = False,
    ) -> Flags:
        """Whether there is one from ``begin`` to ``end`` (m,), for each moment's patient."""
        low, high = self._starts[patient], self._starts[patient + 1]
        first = ev.bisect(self._time, low, high, begin, after=not including_start)
        last = ev.bisect(self._time, low, high, end, after=including_end)
        return last > first

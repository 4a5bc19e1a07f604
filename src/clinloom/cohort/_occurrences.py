"""The times at which patients had what a criterion, an outcome or a period names."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from clinloom import events as ev
from clinloom.events import Flags, Ints
from clinloom.history import History


class Occurrences:
    """The times at which each patient had one of some codes."""

    def __init__(self, history: History, rows: Ints):
        self._history, self._rows = history, rows
        self._time = history.time[rows]
        self._starts = np.searchsorted(rows, history.starts)

    def count(
        self,
        patient: Ints,
        begin: Ints,
        end: Ints,
        *,
        including_start: bool = True,
        including_end: bool = False,
    ) -> Ints:
        """How many there are from ``begin`` to ``end`` (m,), for each moment's patient."""
        first = self._at(patient, begin, after=not including_start)
        return self._at(patient, end, after=including_end) - first

    def straddling(self, patient: Ints, moment: Ints, end: Ints) -> Ints:
        """How many were known after the moment and by ``end``, and may have happened before (m,).

        "Before" takes in the moment itself.
        """
        first = self._at(patient, moment, after=True)
        count = self._at(patient, end, after=True) - first
        which = np.repeat(np.arange(len(moment)), count)
        place = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        at = np.repeat(first, count) + place
        early = self._begins[at] <= moment[which]
        return np.bincount(which[early], minlength=len(moment))

    @cached_property
    def _begins(self) -> Ints:
        return self._history.begins(self._rows)

    def latest(self, patient: Ints, moment: Ints) -> Ints:
        """The last one up to the moment, itself included (m,); STATIC where there is none."""
        at = self._at(patient, moment, after=True) - 1
        return self._times(at, at >= self._starts[patient], ev.STATIC)

    def earliest(self, patient: Ints, moment: Ints) -> Ints:
        """The first one after the moment (m,); NEVER where there is none."""
        at = self._at(patient, moment, after=True)
        return self._times(at, at < self._starts[patient + 1], ev.NEVER)

    def _at(self, patient: Ints, moment: Ints, *, after: bool) -> Ints:
        low, high = self._starts[patient], self._starts[patient + 1]
        return ev.bisect(self._time, low, high, moment, after=after)

    def _times(self, at: Ints, there: Flags, otherwise: int) -> Ints:
        out = np.full(len(at), otherwise)
        out[there] = self._time[at[there]]
        return out

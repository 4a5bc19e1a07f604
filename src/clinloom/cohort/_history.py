"""Whole patients' events, asked by code and by span of time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.events import Flags, Floats, Ints


class History:
    """Events of whole patients. A patient is a position in ``subjects``."""

    def __init__(self, events: pa.Table):
        self._events = events
        self.time = ev.times(ev.column(events, "time"))
        self._position, self.codes = ev.coded(ev.column(events, "code"))
        self.subjects, self.starts = ev.patients(ev.subjects(events))

    @cached_property
    def value(self) -> Floats:
        """Numeric values; NaN where there is none."""
        return ev.numbers(ev.column(self._events, "numeric_value"))

    @cached_property
    def last_seen(self) -> Ints:
        """The time of each patient's last event; STATIC where it has none with a time."""
        return self.time[self.starts[1:] - 1] if len(self.subjects) else self.time

    def rows_of(self, patterns: Sequence[str], *, static: bool) -> Ints:
        """The rows whose code fits one of the patterns; ``static``: also those without a time."""
        rows = np.flatnonzero(ev.looked_up(ev.matching(self.codes, patterns), self._position))
        return rows if static else rows[self.time[rows] != ev.STATIC]

    def patient_of(self, rows: Ints) -> Ints:
        """The patient of each row."""
        return np.searchsorted(self.starts, rows, "right") - 1

    def first_time(self, patterns: Sequence[str]) -> Ints:
        """When each patient first had one of the codes; STATIC where never."""
        out = np.full(len(self.subjects), ev.STATIC)
        rows = self.rows_of(patterns, static=False)[::-1]
        out[self.patient_of(rows)] = self.time[rows]
        return out


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

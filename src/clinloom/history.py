"""Whole patients' events as arrays: what cohorts and features are computed from.

Each array is made when it is first asked for, and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import events as ev
from clinloom.events import Floats, Ints
from clinloom.tables import BIRTH


class History:
    """Events (EVENTS columns subject_id, time, code, numeric_value) of whole patients (n rows).

    They are sorted by subject_id and time, nulls first. A patient is a position in ``subjects``.
    """

    def __init__(self, events: pa.Table):
        self._events = events

    @cached_property
    def time(self) -> Ints:
        """Microseconds (n,); STATIC where there is none."""
        return ev.times(ev.column(self._events, "time"))

    @cached_property
    def value(self) -> Floats:
        """Numeric values (n,); NaN where there is none."""
        return ev.numbers(ev.column(self._events, "numeric_value"))

    def begins(self, rows: Ints) -> Ints:
        """The earliest that these rows' facts may have happened, in microseconds (EVENTS.earlier).

        ``rows`` (k,) have a time.
        """
        time = self.time[rows]
        if "earlier" not in self._events.column_names:
            return time
        earlier = ev.column(self._events, "earlier").take(pa.array(rows)).cast(pa.int64())
        before: Ints = time - earlier.fill_null(0).to_numpy()
        return before

    @cached_property
    def _coded(self) -> tuple[npt.NDArray[np.int32], list[str]]:
        return ev.coded(ev.column(self._events, "code"))

    @property
    def position(self) -> npt.NDArray[np.int32]:
        """Each event's position in ``codes`` (n,); -1 where it has no code."""
        return self._coded[0]

    @property
    def codes(self) -> list[str]:
        """The distinct codes of the events."""
        return self._coded[1]

    @cached_property
    def _patients(self) -> tuple[Ints, Ints]:
        return ev.patients(ev.subjects(self._events))

    @property
    def subjects(self) -> Ints:
        """The distinct patients (p,), ascending."""
        return self._patients[0]

    @property
    def starts(self) -> Ints:
        """Where each patient's events begin (p + 1,); the last is n."""
        return self._patients[1]

    @cached_property
    def last_seen(self) -> Ints:
        """The time of each patient's last event (p,); STATIC where it has none with a time."""
        return self.time[self.starts[1:] - 1] if len(self.subjects) else self.time

    @cached_property
    def first_begun(self) -> Ints:
        """When at the earliest each patient's first fact was (p,); STATIC where none has a time.

        A birth is no such fact, and a fact of a day was at its begin (see :meth:`begins`).
        """
        births = self.rows_of((BIRTH,), static=False)
        rows = np.setdiff1d(np.flatnonzero(self.time != ev.STATIC), births, assume_unique=True)
        patient, begins = self.patient_of(rows), self.begins(rows)
        first = np.flatnonzero(np.diff(patient, prepend=-1))
        out = np.full(len(self.subjects), ev.STATIC)
        out[patient[first]] = np.minimum.reduceat(begins, first) if len(first) else begins
        return out

    def rows_of(self, patterns: Sequence[str], *, static: bool) -> Ints:
        """The rows whose code fits one of the patterns; ``static``: also those without a time."""
        rows = np.flatnonzero(ev.looked_up(ev.matching(self.codes, patterns), self.position))
        return rows if static else rows[self.time[rows] != ev.STATIC]

    def patient_of(self, rows: Ints) -> Ints:
        """The patient of each row."""
        return np.searchsorted(self.starts, rows, "right") - 1

    def first_time(self, patterns: Sequence[str]) -> Ints:
        """When each patient first had one of the codes (p,); STATIC where never."""
        out = np.full(len(self.subjects), ev.STATIC)
        rows = self.rows_of(patterns, static=False)[::-1]
        out[self.patient_of(rows)] = self.time[rows]
        return out

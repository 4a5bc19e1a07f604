"""Prediction moments: of whom, after which event, when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinloom.events import Flags, Ints
from clinloom.history import History
from clinloom.study import IndexTime


@dataclass(frozen=True)
class Moments:
    """Prediction moments, sorted by patient and time.

    ``patient`` (m,) is a position in the chunk; ``event`` (m,) the time of the index event and
    ``time`` (m,) the index time, both in microseconds.
    """

    patient: Ints
    event: Ints
    time: Ints

    def where(self, keep: Flags) -> Moments:
        """The moments that are kept."""
        if keep.all():
            return self
        return Moments(self.patient[keep], self.event[keep], self.time[keep])

    def chosen(self, which: str) -> Moments:
        """Each patient's first or last, or every one."""
        new = np.ones(len(self.patient), bool)
        if which == "first":
            new[1:] = self.patient[1:] != self.patient[:-1]
        elif which == "last":
            new[:-1] = self.patient[1:] != self.patient[:-1]
        return self.where(new)


def moments(history: History, index: IndexTime) -> Moments:
    """Every index time of every patient, each once."""
    rows = history.rows_of(index.at, static=False)
    patient, time = history.patient_of(rows), history.time[rows]
    new = np.ones(len(rows), bool)
    new[1:] = (patient[1:] != patient[:-1]) | (time[1:] != time[:-1])
    return Moments(patient[new], time[new], time[new] + index.plus)

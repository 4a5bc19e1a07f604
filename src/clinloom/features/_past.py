"""Whole patients' events as they were known at each index time.

The only place that decides what lies before an index time: every family sees its events through
``Past.before``, which never reads a row at or after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import events as ev
from clinloom.events import Flags, Floats, Ints
from clinloom.history import History

EVENTS_AT_ONCE = 1 << 15  # events, counted once a row that sees them: a block stays in the cache
CELLS_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Seen:
    """Events that a block of index rows may know, in order of time within each row.

    ``rows`` is the block; ``row`` (n,) counts within it; ``code`` (n,) is a position in the codes
    asked for; ``age`` (n,) is microseconds before the index time, at least 1 and 0 where static;
    ``at`` (n,) is the event's place among all.
    """

    rows: slice
    row: Ints
    code: npt.NDArray[np.int64]
    age: Ints
    value: Floats
    at: Ints

    def where(self, keep: Flags) -> Seen:
        """Some of the events, for the same index rows."""
        row, code, age = self.row[keep], self.code[keep], self.age[keep]
        return Seen(self.rows, row, code, age, self.value[keep], self.at[keep])

    @property
    def height(self) -> int:
        """How many index rows the block has."""
        height: int = self.rows.stop - self.rows.start
        return height


class Past(History):
    """Events of whole patients (n rows) under an index (columns subject_id, prediction_time)."""

    def __init__(self, events: pa.Table, index: pa.Table):
        super().__init__(events)
        self.moment = ev.times(ev.column(index, "prediction_time"))
        self._low, self._high = ev.located(ev.subjects(events), ev.subjects(index))

    @cached_property
    def _numeric(self) -> Flags:
        numeric: Flags = self.value == self.value
        return numeric

    def records(self, at: Ints) -> Ints:
        """Of which record each of these events is (n,): numbers in the order of the records' names.

        A record's name is its source's: ``record_id``, then ``source``; all are one where the
        events have neither.
        """
        found = np.zeros(len(at), np.int64)
        for name in ("record_id", "source"):
            if name in self._events.column_names:
                cells = ev.column(self._events, name).take(pa.array(at))
                position, names = ev.coded(cells)
                rank = np.empty(len(names) + 1, np.int64)
                rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(1, len(rank))
                rank[-1] = 0  # of a position of -1: none
                found = found * len(rank) + rank[position]
        return found

    def before(
        self,
        codes: Sequence[str],
        span: int | None,
        *,
        numeric: bool,
        static: bool = False,
        cells: int = 1,
    ) -> Iterator[Seen]:
        """The events of ``codes`` in [index - span, index), in blocks that cover every row once.

        ``numeric``: only events with a number. ``static``: also facts without a time, which hold
        at every moment. ``cells``: how many numbers the caller keeps for each index row.
        """
        wanted = {code: place for place, code in enumerate(codes)}
        place = np.array([wanted.get(code, -1) for code in self.codes], np.int64)
        position = self.position
        keep = ev.looked_up(place >= 0, position)
        if numeric:
            keep &= self._numeric
        rows = np.flatnonzero(keep)
        whole = len(rows) == len(position)
        time = self.time if whole else self.time[rows]
        low = self._low if whole else np.searchsorted(rows, self._low)
        high = self._high if whole else np.searchsorted(rows, self._high)

        timed = ev.bisect(time, low, high, np.full(len(low), ev.STATIC + 1))
        end = ev.bisect(time, timed, high, self.moment)
        begin = timed if span is None else ev.bisect(time, timed, end, self.moment - span)
        first = (low if static else timed)[:, None]
        begins = np.concatenate([first, begin[:, None]], axis=1)
        ends = np.stack([timed, end], axis=1)  # two stretches a row: static facts, then events
        for block in _blocks((ends - begins).sum(axis=1), cells):
            row, at = _stretches(begins[block], ends[block])
            age = self.moment[block][row] - time[at]
            if static:
                age[time[at] == ev.STATIC] = 0
            origin = at if whole else rows[at]
            yield Seen(block, row, place[position[origin]], age, self.value[origin], origin)


def _blocks(lengths: Ints, cells: int) -> Iterator[slice]:
    """Consecutive rows whose events and cells fit in little memory; at least a row each."""
    total = np.concatenate([[0], np.cumsum(lengths)])
    most = max(1, CELLS_AT_ONCE // max(cells, 1))
    start = 0
    while start < len(lengths):
        fits = int(np.searchsorted(total, total[start] + EVENTS_AT_ONCE, "right")) - 1
        stop = min(max(fits, start + 1), start + most, len(lengths))
        yield slice(start, stop)
        start = stop


def _stretches(begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Every position of the stretches [begin, end) (rows, 2), with the row that it is for."""
    lengths = (ends - begins).ravel()
    done = np.cumsum(lengths)
    total = int(done[-1]) if len(done) else 0
    row = np.repeat(np.arange(len(begins)), lengths.reshape(begins.shape).sum(axis=1))
    shift = np.repeat(begins.ravel() - (done - lengths), lengths)
    return row, np.arange(total) + shift

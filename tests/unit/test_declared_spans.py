"""Spans since an origin that lead beyond the calendar are no times, whatever form they have."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from clinloom.sources._declared import TimeSpec, times

ORIGIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
DAY = 86_400_000_000
FAR = 3_000_000  # days, which no calendar of four digits has
SPEC = TimeSpec(column="at", offset="days", origin=ORIGIN)


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.string(), pa.duration("us"), pa.duration("s"), pa.duration("ms")]
)
def test_a_span_beyond_the_calendar_is_no_time_and_stays_as_text(kind):
    days = [2, FAR, -FAR, None]
    if pa.types.is_duration(kind):
        scale = {"us": DAY, "ms": DAY // 1000, "s": 86_400}[kind.unit]
        whole = [None if n is None else n * scale for n in days]
        column = pa.array(whole, pa.int64()).cast(kind)
    else:
        column = pa.array(days, pa.int64()).cast(kind)
    found = times(SPEC, column, len(days))
    assert found.time.to_pylist() == [ORIGIN + dt.timedelta(days=2), None, None, None]
    assert found.text.is_valid().to_pylist() == [False, True, True, False]


def test_a_span_that_is_no_number_to_people_is_none():
    found = times(SPEC, pa.array(["1_0", "nan", "inf", "1e3", " 2 "]), 5)
    assert found.time.is_valid().to_pylist() == [False, False, False, True, True]

"""Events given in Python: a date is no time, and a single time names its zone."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from clinloom.deploy.bundle import acquired
from clinloom.errors import DataError

NOON = dt.datetime(2024, 3, 5, 12, tzinfo=dt.UTC)


def rows(*times):
    return [{"subject_id": 1, "code": "A", "time": time} for time in times]


@pytest.mark.parametrize(
    "time", [dt.date(2024, 3, 5), NOON.replace(tzinfo=None), np.datetime64("2024-03-05")]
)
def test_a_date_or_a_time_without_a_zone_is_refused(time):
    with pytest.raises(DataError, match="time"):
        acquired(rows(NOON, time))


@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()])
def test_a_column_of_dates_is_refused(type_):
    dates = pa.array([dt.date(2024, 3, 5)], type_)
    with pytest.raises(DataError, match="dates"):
        acquired(pa.table({"subject_id": [1], "code": ["A"], "time": dates}))


def test_a_column_without_a_zone_is_utc_and_a_missing_time_always_holds():
    naive = pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us"))
    made = acquired(pa.table({"subject_id": [1], "code": ["A"], "time": naive}))
    assert made.column("time").to_pylist() == [NOON]
    assert acquired(rows(None, NOON)).column("time").to_pylist() == [None, NOON]

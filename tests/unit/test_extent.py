"""How far the input reaches, though a few of its events lie decades after all others."""

from __future__ import annotations

import datetime as dt

import pytest

from clinloom.run.sums import ending, reach, reached
from clinloom.tables import EVENTS

START = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


def of(lasts, size=1000):
    """REACH of patients last seen at these moments, each also seen long before, in chunks."""
    parts = []
    for begin in range(0, len(lasts), size):
        rows = []
        for subject, last in enumerate(lasts[begin : begin + size], begin):
            for time in (None, dt.datetime(2000, 1, 1, tzinfo=dt.UTC), last):
                rows.append({"subject_id": subject, "time": time, "code": "A"})
        parts.append(reach(EVENTS.rows(rows)))
    return reached(parts)


def days(count):
    return [START + dt.timedelta(days=n) for n in range(count)]


@pytest.mark.parametrize(
    "lasts, last, beyond",
    [
        (days(200), days(200)[-1], 0),
        ([*days(200), dt.datetime(2099, 1, 1, tzinfo=dt.UTC)], days(200)[-1], 1),
        ([*days(25), days(25)[-1] + dt.timedelta(days=400)], None, 0),  # late, as patients are
        ([*days(5), dt.datetime(2099, 1, 1, tzinfo=dt.UTC)], None, 0),  # too few to tell
        ([*days(40), *[dt.datetime(2099, 1, 1, tzinfo=dt.UTC)] * 2], None, 0),  # no single one
    ],
)
@pytest.mark.parametrize("size", [7, 1000])
def test_the_extract_ends_where_its_patients_do(lasts, last, beyond, size):
    found, left = ending(of(lasts, size))
    assert found.column("last").to_pylist() == [last or max(lasts)]
    assert left == beyond

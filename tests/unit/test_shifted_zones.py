"""Zones keep their summers after 2037, where shifted (de-identified) dates lie, as ``zoneinfo``."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom import zones
from clinloom.clean import times
from clinloom.events import microseconds, period_ends
from clinloom.sources import _time
from clinloom.tables import BIRTH, TIME

YORK = "America/New_York"
NAMES = [YORK, "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tokyo"]
SUMMER = "2150-07-01 12:00:00"
NOON = microseconds(dt.datetime(2150, 7, 1, 16))  # in New York


def told(array):
    return array.cast(TIME).cast(pa.int64()).to_pylist()


def test_a_source_and_the_cleaning_read_a_summer_of_a_shifted_year():
    assert told(_time.instants(pa.array([SUMMER]), zone=YORK, space=True).time) == [NOON]
    assert _time.iso(SUMMER, zone=YORK, space=True) == NOON
    assert times.parsed(pa.array([SUMMER]), ("%Y-%m-%d %H:%M:%S",), YORK)[0].tolist() == [NOON]


def test_a_shifted_day_ends_and_a_birth_begins_where_its_zone_says():
    begin = microseconds(dt.datetime(2150, 7, 1, 4))
    ends = microseconds(dt.datetime(2150, 7, 2, 4)) - 1
    assert period_ends(np.array([begin]), "D", YORK).tolist() == [ends]
    found = _time.instants(pa.array(["2150-07-01"]), zone=YORK)
    assert told(found.begin) == [begin] and told(found.time) == [ends]
    born = _time.dated(found, pa.array([BIRTH]).dictionary_encode(), YORK)
    assert told(born.time) == [microseconds(dt.datetime(2150, 7, 1))]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.lists(st.datetimes(dt.datetime(2036, 6, 1), dt.datetime(2230, 1, 1)), max_size=8),
)
def test_moments_and_wall_clocks_are_as_zoneinfo_tells_them(name, moments):
    there = ZoneInfo(name)
    known = [m.replace(tzinfo=dt.UTC) for m in moments]
    walls = [m.astimezone(there).replace(tzinfo=None) for m in known]
    assert zones.in_zone(pa.array([None, *known], TIME), name).to_pylist() == [None, *walls]
    found = zones.in_utc(pa.array([*moments, None], zones.LOCAL), name)
    expected = [m.replace(tzinfo=there).astimezone(dt.UTC) for m in moments]
    for mine, theirs, wall in zip(found.to_pylist(), expected, moments, strict=False):
        if theirs.astimezone(there).replace(tzinfo=None) == wall:  # else the hour was skipped
            assert mine == theirs
    assert found[-1].as_py() is None


@pytest.mark.parametrize("year", [2024, 2150])
def test_a_skipped_hour_is_the_turn_and_a_doubled_one_the_first_in_every_year(year):
    spring, autumn = (dt.datetime(year, month, 1, 2, 30) for month in (3, 11))
    spring += dt.timedelta(days=(6 - spring.weekday()) % 7 + 7)
    autumn += dt.timedelta(days=(6 - autumn.weekday()) % 7, hours=-1)
    found = zones.in_utc(pa.array([spring, autumn], zones.LOCAL), YORK).to_pylist()
    assert found[0] == spring.replace(hour=7, minute=0, tzinfo=dt.UTC)
    assert found[1] == autumn.replace(hour=5, tzinfo=dt.UTC)

"""What is told of subgroups and periods together gives away nobody; a level is never told as 0."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.properties import test_alarms as hospital

from clinloom import files
from clinloom.evaluate import alarms, watch
from clinloom.report import watched
from clinloom.run import feedback


def groups(few: int, *, named: int):
    """The subgroups that are told of 400 moments, where so many outcomes are of what is hidden."""
    known = hospital.reference(np.random.default_rng(0), each=1, rows=400, tests=300)
    made = hospital.drawn(np.random.default_rng(1), 400, each=1)
    inside = np.arange(400) < 200  # the first subgroup, and the first period
    made["period"] = (~inside).astype(int) if named == 2 else np.zeros(400, int)
    made["outcome"] = np.r_[np.arange(200) < 40, np.arange(200) < few]
    first = inside if named == 1 else np.arange(400) % 2 == 0
    rows = hospital.told(made)._replace(member=np.stack([first, ~first], axis=1))
    found = watch.sums(rows, known.risk.cells, 0.0)
    names = hospital.NAMES if named == 2 else (hospital.NAMES[0], "sex unlisted")
    return alarms.judge(known, found, labels={0: "a", 1: "b"}, groups=names)


@pytest.mark.parametrize("few", [1, 4])
def test_no_subgroup_tells_by_subtraction_of_those_who_are_of_none(few):
    told = groups(few, named=1)
    assert told["periods"][0]["observed"] is not None
    assert all(one["known"] is None and one["observed"] is None for one in told["groups"])
    assert groups(30, named=1)["groups"][0]["observed"] == 0.2


@pytest.mark.parametrize("few", [1, 4])
def test_no_subgroups_tell_by_subtraction_of_a_period_that_is_hidden(few):
    told = groups(few, named=2)
    assert [one["observed"] is None for one in told["periods"]] == [False, True]
    assert all(one["known"] is None and one["observed"] is None for one in told["groups"])
    assert all(one["observed"] is not None for one in groups(30, named=2)["groups"])


@pytest.mark.parametrize(("level", "told"), [(0.05, "5%"), (0.001, "0.1%"), (0.125, "12%")])
def test_the_level_is_told_as_it_is(level, told):
    assert watched._level({"level": level}) == told


def test_one_time_beyond_the_calendar_does_not_end_the_reading_of_feedback(tmp_path):
    place = files.address(tmp_path / "feedback.jsonl")
    stamps = ["0001-01-01T00:00:00+14:00", *["2026-01-03T10:00:00Z"] * 6]
    lines = [json.dumps({"outcome": "accepted", "outcomeTimestamp": stamp}) for stamp in stamps]
    files.write(place, "\n".join(lines).encode())
    found = feedback.counted(place, "week")
    assert [one["cards"] for one in found["periods"]] == [6] and found["unreadable"] == "<5"

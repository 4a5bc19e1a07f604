"""Of several patients in a request each is answered as alone; what the cohort leans on counts."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from tests.service import made

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door, Refusal
from clinloom.run.score import scored

NOW = dt.datetime.now(dt.UTC)
BORN, LATER = NOW.replace(year=1950, day=1), NOW + dt.timedelta(days=400)
MICROSECOND = dt.timedelta(microseconds=1)


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    def door(study=made.STUDY):
        place = made.publish(tmp_path_factory.mktemp("door") / "bundle", count=10, study=study)
        return Door(Bundle.load(place))

    return door


def patient(number, *more):
    """A patient who was admitted an hour ago: the study's moment is tomorrow."""
    rows = [
        {"code": "MEDS_BIRTH", "time": BORN},
        {"code": "ENCOUNTER//IMP//START", "time": NOW - dt.timedelta(hours=1)},
        *more,
    ]
    return [{"subject_id": number, **row} for row in rows]


def creatinine(time, unit="mg/dL", value=1.0, code="LOINC//2160-0"):
    return {"code": code, "time": time, "numeric_value": value, "unit": unit}


def test_one_date_that_lies_ahead_makes_no_moment_due(doors):
    """Nothing is shifted where the stay has begun: neither by an order nor by facts of today."""
    door = doors()
    day = dt.timedelta(days=1)
    today = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    ends = {"time": today + day - dt.timedelta(microseconds=1), "earlier": day // MICROSECOND - 1}
    of_today = [{"code": f"ICD10CM//{code}", **ends} for code in ("I10", "E11.9", "J44.9")]
    for more in ([creatinine(LATER)], of_today):
        answer = door.score(door.events(patient(1, *more)))
        assert answer.rows == [] and answer.flow["due by now"] == 0
    began_today = patient(1)
    began_today[1] |= ends
    answer = door.score(door.events(began_today))
    assert answer.rows == [] and answer.flow["due by now"] == 0


def test_anothers_later_dates_make_no_moment_due(doors):
    door = doors()
    alone = door.score(door.events(patient(1)))
    shifted = [*patient(2, creatinine(LATER))]
    shifted[1]["time"] = LATER  # the stay: all but the birth lies ahead
    both = door.score(door.events([*patient(1), *shifted]))
    assert alone.rows == [] and alone.flow["due by now"] == 0
    assert {row["subject_id"] for row in both.rows} == {2}  # whose dates were shifted
    bundle, events = door.bundle, both.events
    batch = scored(
        events,
        bundle=str(bundle.place),
        mark=bundle.mark,
        cohort=bundle.resolved.cohort,
        last=None,
        now=time.time_ns() // 1000,
    )
    assert batch["predictions"].column("subject_id").to_pylist() == [2]


def test_a_patient_of_whom_all_is_refused_is_told_of(doors):
    door = doors()
    impossible = {**creatinine(BORN, value=1e9), "subject_id": 2}
    answer = door.score(door.events([*patient(1), impossible]), LATER)
    assert [row["subject_id"] for row in answer.rows] == [1]
    assert {number: why.reason for number, why in answer.unscored.items()} == {2: "all_refused"}


def test_what_eligibility_asks_for_and_cannot_be_read_is_refused(doors):
    sick = '{age_at_least: 18, exclude: [{name: sick, codes: "LOINC//1988-5", value_above: 5}]}'
    study = made.STUDY.replace("{age_at_least: 18}", sick)
    other = creatinine(BORN, "furlong", code="LOINC//1988-5")
    ago = NOW - dt.timedelta(days=9)
    rows = patient(1, other, {"code": "ENCOUNTER//IMP//START", "time": ago})
    plain = doors()
    assert plain.score(plain.events(rows)).refused == {"unknown_unit": 1}
    asking = doors(study)
    with pytest.raises(Refusal, match="cannot be read") as caught:
        asking.score(asking.events(rows))
    assert caught.value.where == "LOINC//1988-5: unknown_unit in unit"

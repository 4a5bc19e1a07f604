"""Numbers without a time: what holds at every moment is a feature, of records as of images."""

from __future__ import annotations

import datetime as dt
import math
from typing import get_args

import pytest
from tests.unit.test_clean import NOON

from clinloom import features
from clinloom.features import Feature, imaging, measurements
from clinloom.features._summaries import Statistic
from clinloom.tables import EVENTS, INDEX

DAY = dt.timedelta(days=1)
MOMENTS = INDEX.rows([{"subject_id": n, "prediction_time": NOON + DAY} for n in (1, 2, 3)])
OPTIONS = measurements.Options(statistics=get_args(Statistic), windows=("36h", "7d"), min_rows=0)


def fact(subject, code, value, time=None, record="r"):
    row = {"subject_id": subject, "time": time, "code": code, "numeric_value": value}
    return {**row, "record_id": record, "source": "ehr"}


def table(*rows):
    return EVENTS.rows(sorted(rows, key=lambda r: (r["subject_id"], r["time"] or NOON - 99 * DAY)))


def learned(events, **options):
    return features.resolve(options, features.vocabulary(events, MOMENTS, options), 3)


def values(events, *names):
    listed = [Feature.named(name, modality="records") for name in names]
    return features.compute(events, MOMENTS, listed).column("values").to_pylist()


def test_a_code_that_has_no_time_is_one_feature():
    events = table(fact(1, "AGE", 71.0), fact(2, "AGE", 50.0), fact(1, "Na", 140.0, NOON))
    (*timed, alone) = learned(events, measurements=OPTIONS)
    assert alone.name == "measurements|AGE|last|7d"
    assert len(timed) == 20 and {f.code for f in timed} == {"Na"}
    (one,), (two,), (three,) = values(events, alone.name)
    assert (one, two) == (71.0, 50.0) and math.isnan(three)
    for asked, given in ((("max", "count"), "max"), (("count",), "count")):
        chosen = OPTIONS.model_copy(update={"statistics": asked, "windows": ("all",)})
        assert learned(events, measurements=chosen)[-1].name == f"measurements|AGE|{given}|all"
    slopes = OPTIONS.model_copy(update={"statistics": ("slope",)})
    assert {f.code for f in learned(events, measurements=slopes)} == {"Na"}


def test_a_number_without_a_time_is_in_every_span_and_gives_way_to_a_later_one():
    events = table(
        fact(1, "W", 80.0),
        fact(1, "W", 82.0, NOON - 2 * DAY),
        fact(1, "W", 81.0, NOON - 3 * DAY),
        fact(2, "W", 60.0),
        fact(2, "W", 99.0, NOON + 2 * DAY),
    )
    names = [f.name for f in learned(events, measurements=OPTIONS)]
    assert len(names) == 20
    one, two, _ = values(events, *names)
    one, two = dict(zip(names, one, strict=True)), dict(zip(names, two, strict=True))

    def of(row, statistic, window):
        return row[f"measurements|W|{statistic}|{window}"]

    assert [of(one, "last", w) for w in ("36h", "7d")] == [80.0, 82.0]
    assert [of(one, "count", w) for w in ("36h", "7d")] == [1, 3]
    assert [of(one, "mean", w) for w in ("36h", "7d")] == [80.0, 81.0]
    assert [of(one, "max", w) for w in ("36h", "7d")] == [80.0, 82.0]
    assert [of(one, "first", w) for w in ("36h", "7d")] == [80.0, 81.0]
    assert [of(one, "sum", w) for w in ("36h", "7d")] == [80.0, 243.0]
    assert of(one, "sd", "7d") == pytest.approx(1.0) and math.isnan(of(one, "sd", "36h"))
    assert of(one, "since", "7d") == 3.0 and math.isnan(of(one, "since", "36h"))
    assert of(one, "slope", "7d") == pytest.approx(1.0) and math.isnan(of(one, "slope", "36h"))
    assert [of(two, "last", w) for w in ("36h", "7d")] == [60.0, 60.0]
    assert math.isnan(of(two, "slope", "7d"))


def test_what_a_patient_has_once_is_one_feature_however_often_it_is_told():
    events = table(
        fact(1, "AGE", 66.0, NOON), fact(1, "AGE", 65.0, NOON - DAY), fact(1, "Na", 140.0, NOON)
    )
    chosen = OPTIONS.model_copy(update={"once": ("A*",), "statistics": ("count", "max")})
    listed = [feature.name for feature in learned(events, measurements=chosen)]
    assert listed[-1] == "measurements|AGE|last|7d" and len(listed) == 5
    assert all("|Na|" in name for name in listed[:-1])
    assert values(events, listed[-1])[0] == [66.0]


def image(subject, record, time=None, **found):
    return [
        fact(subject, f"IMAGE//CR//CHEST//{name}", value, time, record)
        for name, value in found.items()
    ]


def test_images_without_a_date_are_features_of_one_image():
    events = table(
        *image(1, "i1", mean=1.0, range=10.0),
        *image(1, "i2", mean=2.0),
        *image(2, "i1", mean=3.0, range=30.0),
        *image(2, "i3", NOON, mean=4.0),
    )
    chosen = imaging.Options(statistics=("last", "count"), windows=("36h", "all"), min_rows=0)
    listed = learned(events, imaging=chosen)
    assert [f.name.removeprefix("imaging|IMAGE//CR//CHEST//") for f in listed] == [
        "mean|last|36h", "mean|last|all", "mean|count|36h", "mean|count|all", "range|last|all",
    ]  # fmt: skip
    assert {f.modality for f in listed} == {"images"}
    one, two, three = values(events, *[f.name for f in listed])
    assert one[:4] == [2.0, 2.0, 2, 2] and math.isnan(one[4])  # of i2, which has no range
    assert two[:4] == [4.0, 4.0, 2, 2] and math.isnan(two[4])  # of the one that has a date
    assert three[2:4] == [0, 0]
    span = [f"imaging|IMAGE//CR//CHEST//mean|last|{window}" for window in ("6h", "all")]
    assert values(events, *span)[1] == [3.0, 4.0]

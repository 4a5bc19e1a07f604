"""The cohort by small records: index times, eligibility, outcome, washout, follow-up, split."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from clinloom import hashing
from clinloom.cohort import _ages, cohort, split
from clinloom.study import Cohort, Split
from clinloom.tables import EVENTS, FLOW, INDEX


def at(day, hour=0):
    return dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day, hours=hour)


def events(*rows):
    made = [
        {
            "subject_id": subject,
            "time": None if day is None else at(day),
            "code": code,
            "numeric_value": value[0] if value else None,
        }
        for subject, day, code, *value in rows
    ]
    return EVENTS.rows(
        sorted(
            made,
            key=lambda r: (r["subject_id"], r["time"] is not None, r["time"] or at(0), r["code"]),
        )
    )


def definition(**more):
    parts = {"index": {"at": "IN"}, "outcome": {"codes": "BAD", "within": "30d"}}
    for name, part in more.items():
        parts[name] = {**parts.get(name, {}), **part} if isinstance(part, dict) else part
    return Cohort(**parts)


def found(record, **more):
    made = cohort(record, definition(**more))
    assert made["index"].schema == INDEX.arrow
    assert made["flow"].schema == FLOW.arrow
    rows = made["index"].to_pylist()
    return [
        (r["subject_id"], (r["prediction_time"] - at(0)).days, r["boolean_value"]) for r in rows
    ]


def steps(record, **more):
    flow = cohort(record, definition(**more))["flow"].to_pylist()
    assert [r["step"] for r in flow] == list(range(len(flow)))
    return [(r["name"], r["subjects"], r["rows"]) for r in flow]


RECORD = events(
    (1, 0, "IN"), (1, 10, "BAD"), (1, 50, "IN"), (1, 90, "END"),
    (2, 0, "IN"), (2, 5, "OTHER"),
    (3, 0, "OTHER"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("first", [(1, 0, True), (2, 0, False)]),
        ("last", [(1, 50, False), (2, 0, False)]),
        ("every", [(1, 0, True), (1, 50, False), (2, 0, False)]),
    ],
)
def test_which_index_event(which, expected):
    assert found(RECORD, index={"which": which}) == expected


def test_the_index_time_is_the_event_plus_a_while():
    assert found(RECORD, index={"plus": "5d"}) == [(1, 5, True), (2, 5, False)]
    assert found(RECORD, index={"plus": "10d"}) == [(1, 10, False), (2, 10, False)]


@pytest.mark.parametrize(
    ("risk", "on_start", "on_end"),
    [
        ({}, False, True),
        ({"start": "inclusive"}, True, True),
        ({"end": "exclusive"}, False, False),
    ],
)
def test_the_ends_of_the_time_at_risk(risk, on_start, on_end):
    start = events((1, 0, "IN"), (1, 0, "BAD"))
    end = events((1, 0, "IN"), (1, 30, "BAD"))
    assert found(start, time_at_risk=risk) == [(1, 0, on_start)]
    assert found(end, time_at_risk=risk) == [(1, 0, on_end)]


def test_an_outcome_counts_from_where_the_time_at_risk_starts():
    assert found(RECORD, time_at_risk={"starts": "11d"})[0] == (1, 0, False)
    assert found(RECORD, time_at_risk={"starts": "9d"})[0] == (1, 0, True)


def test_an_outcome_by_value_and_static_outcomes_do_not_count():
    record = events((1, 0, "IN"), (1, 3, "BAD", 1.0), (2, 0, "IN"), (2, 3, "BAD", 2.0),
                    (3, 0, "IN"), (3, None, "BAD", 9.0), (4, 0, "IN"), (4, 1, "BAD"))  # fmt: skip
    labels = found(record, outcome={"value_above": 1.0})
    assert [x[2] for x in labels] == [False, True, False, False]
    assert [x[2] for x in found(record, outcome={"value_below": 2.0})] == [
        True,
        False,
        False,
        False,
    ]
    assert [x[2] for x in found(record)] == [True, True, False, True]


def test_ages_are_birthdays():
    record = EVENTS.rows(
        [
            {"subject_id": s, "time": t, "code": c}
            for s, birth in enumerate([(2002, 1, 1), (2002, 1, 2), (1929, 1, 2), (1928, 12, 31)])
            for t, c in ((dt.datetime(*birth, tzinfo=dt.UTC), "MEDS_BIRTH"), (at(0), "IN"))
        ]
        + [{"subject_id": 9, "time": at(0), "code": "IN"}]
    )
    assert [x[0] for x in found(record, eligibility={"age_at_least": 18})] == [0, 2, 3]
    assert [x[0] for x in found(record, eligibility={"age_at_most": 90})] == [0, 1, 2]
    assert [x[0] for x in found(record, eligibility={"age_at_most": 17.99})] == []
    both = {"age_at_least": 18, "age_at_most": 90}
    assert steps(record, eligibility=both)[2:4] == [
        ("age at least 18", 3, 3),
        ("age at most 90", 2, 2),
    ]


def test_completed_years_agree_with_the_calendar():
    born = [dt.date(2000, 2, 29), dt.date(1990, 6, 15), dt.date(1950, 12, 31), dt.date(2020, 1, 1)]
    for day in range(0, 1500, 7):
        now = dt.date(2020, 1, 1) + dt.timedelta(days=day)
        times = [(b - dt.date(1970, 1, 1)).days * 86_400_000_000 for b in born]
        moment = np.full(4, (now - dt.date(1970, 1, 1)).days * 86_400_000_000 + 5)
        expected = [now.year - b.year - ((now.month, now.day) < (b.month, b.day)) for b in born]
        assert _ages.completed_years(np.array(times), moment).tolist() == expected


def test_required_and_excluded_codes_lie_before_the_index_time():
    record = events((1, -10, "DX"), (1, 0, "IN"), (2, 0, "DX"), (2, 0, "IN"),
                    (3, None, "DX"), (3, 0, "IN"), (4, 0, "IN"))  # fmt: skip

    def who(kind, **more):
        return [
            x[0] for x in found(record, eligibility={kind: [{"name": "dx", "codes": "D*", **more}]})
        ]

    assert who("require") == [1, 3]
    assert who("require", within="9d") == [3]
    assert who("require", within="10d") == [1, 3]
    assert who("exclude") == [2, 4]
    assert who("exclude", within="9d") == [1, 2, 4]


def test_washout_takes_in_the_index_time_where_it_cannot_be_predicted():
    record = events((1, -5, "BAD"), (1, 0, "IN"), (2, 0, "BAD"), (2, 0, "IN"), (3, 0, "IN"))
    assert [x[0] for x in found(record, washout="5d")] == [3]
    assert [x[0] for x in found(record, washout="4d")] == [1, 3]
    inclusive = {"start": "inclusive"}
    assert found(record, washout="5d", time_at_risk=inclusive) == [(2, 0, True), (3, 0, False)]


def test_follow_up():
    assert len(found(RECORD)) == 2
    assert found(RECORD, time_at_risk={"follow_up": "required"}) == [(1, 0, True)]


def test_the_flow_names_each_step_in_order():
    assert steps(RECORD) == [("patients", 3, 0), ("with index event", 2, 2), ("outcome", 1, 1)]
    more = steps(
        RECORD,
        eligibility={"exclude": [{"name": "not moribund", "codes": "X"}]},
        washout="1d",
        time_at_risk={"follow_up": "required"},
    )
    assert [name for name, _, _ in more] == [
        "patients", "with index event", "not moribund", "free of the outcome before (washout)",
        "followed up", "outcome",
    ]  # fmt: skip


def test_no_events_give_an_empty_index_and_a_flow_of_zeros():
    assert found(EVENTS.empty) == []
    assert {n for step in steps(EVENTS.empty, washout="1d") for n in step[1:]} == {0}


def index(*rows):
    return INDEX.rows(
        [{"subject_id": s, "prediction_time": at(d), "boolean_value": False} for s, d in rows]
    )


def test_the_random_split_has_its_proportions_and_is_the_same_every_time():
    rows = index(*[(n, 0) for n in range(4000)])
    made = split.assign(rows, Split(train=3, test=1), seed=7)
    assert made.schema == INDEX.arrow
    share = made.column("split").to_pylist().count("train") / 4000
    assert abs(share - 0.75) < 0.03
    assert made.equals(split.assign(rows, Split(train=3, test=1), seed=7))
    assert not made.equals(split.assign(rows, Split(train=3, test=1), seed=8))


def test_folds_are_even_and_independent_of_the_split():
    subject = np.arange(20_000)
    for seed in (0, -1, 2**70):
        folds = split.fold(subject, 5, seed)
        train = split.uniform(subject, seed=seed) < 0.7
        for part in (folds[train], folds[~train]):
            assert np.allclose(np.bincount(part, minlength=5) / len(part), 0.2, atol=0.02)


def test_the_hash_is_splitmix64():
    # The first outputs of the published generator seeded with 0 and 1234567.
    assert hashing.mixed(np.array([0], np.uint64))[0] == 0xE220A8397B1DCDAF
    assert hashing.mixed(np.array([1234567], np.uint64))[0] == 6457827717110365317


def test_a_split_by_time_keeps_nobody_on_both_sides():
    rows = index((1, 0), (1, 20), (2, 0), (3, 10), (3, 11))
    made = split.assign(rows, Split(by="time", cutoff="2020-01-11"), seed=0)
    assert made.column("split").to_pylist() == [None, "test", "train", "test", "test"]
    aware = split.assign(rows, Split(by="time", cutoff="2020-01-11T02:00:00+02:00"), seed=0)
    assert aware.equals(made)
    assert split.assign(rows.slice(0, 0), Split(), seed=0).schema == INDEX.arrow


def test_events_may_come_in_several_pieces_and_other_resolutions():
    pieces = pa.concat_tables([RECORD.slice(n, 2) for n in range(0, RECORD.num_rows, 2)])
    assert cohort(pieces, definition())["index"].equals(cohort(RECORD, definition())["index"])
    seconds = RECORD.set_column(1, "time", RECORD.column("time").cast(pa.timestamp("s", tz="UTC")))
    assert cohort(seconds, definition())["index"].equals(cohort(RECORD, definition())["index"])

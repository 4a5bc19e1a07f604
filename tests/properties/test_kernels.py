"""Kernels equal a slow and obvious oracle; chunks of patients and the future change nothing."""

from __future__ import annotations

import math
import statistics as st_
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom import features
from clinloom.audit.future import differing
from clinloom.clean import clean
from clinloom.cohort import cohort, split
from clinloom.features import Feature, codes, demographics, imaging, measurements
from clinloom.features._summaries import Statistic
from clinloom.study import MICROSECONDS, Cohort, Split
from clinloom.tables import ACQUIRED, EVENTS, INDEX, conform

HOUR, DAY, YEAR = MICROSECONDS["h"], MICROSECONDS["d"], MICROSECONDS["y"]
IMAGES = ["IMAGE//CR//CHEST//mean", "IMAGE//CR//CHEST//range", "IMAGE//CT//CHEST//mean"]
CODES = ["A", "B", *IMAGES, "GENDER//female", "MEDS_BIRTH", "MEDS_DEATH", "I"]
NAMES = EVENTS.arrow.names


def first(value):
    """Nulls first."""
    return (value is not None, value)


def order(event):
    return (
        event["subject_id"],
        first(event["time"]),
        event["code"],
        first(event["numeric_value"]),
        first(event["text_value"]),
        first(event["record_id"]),
    )


@st.composite
def records(draw, most=40):
    """Events of a few patients, on a coarse clock so that times meet and tie."""
    out = []
    for subject in draw(st.lists(st.integers(-3, 3), unique=True, max_size=4)):
        for number in range(draw(st.integers(0, most))):
            value = draw(st.one_of(st.none(), st.integers(-5, 5).map(lambda n: n / 4)))
            time = draw(st.one_of(st.integers(-40, 60), st.none()))
            out.append(
                {
                    "subject_id": subject,
                    "time": None if time is None else time * 6 * HOUR + draw(st.integers(0, 1)),
                    "code": draw(st.sampled_from(CODES)),
                    "numeric_value": value,
                    "text_value": draw(st.sampled_from([None, None, "x", "y"])),
                    "unit": None,
                    "source": "ehr",
                    "record_id": f"r{number:03}",
                }
            )
            if out[-1]["code"] in IMAGES:  # the views of one moment, each with several numbers
                out[-1]["record_id"] = draw(st.sampled_from(["i1", "i2", "i3"]))
    return sorted(out, key=order)


@st.composite
def moments(draw):
    """Index rows of the same patients and of one without events, several for some."""
    rows = draw(
        st.lists(st.tuples(st.integers(-3, 4), st.integers(-45, 65)), unique=True, max_size=8)
    )
    return [{"subject_id": s, "prediction_time": t * 6 * HOUR} for s, t in sorted(rows)]


def table(rows, declared=EVENTS):
    return conform(pa.Table.from_pylist(rows, schema=_integers(declared)), declared)


def _integers(declared):
    plain = [
        f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in declared.arrow
    ]
    return pa.schema(plain)


def encoded(events):
    """As the store hands it out: strings as dictionaries."""
    for name in ("code", "unit", "source"):
        at = events.schema.get_field_index(name)
        events = events.set_column(at, name, events.column(name).dictionary_encode())
    return events


def chunks(rows, size):
    """Whole patients, ``size`` at a time."""
    known = sorted({r["subject_id"] for r in rows})
    for start in range(0, len(known), size):
        some = set(known[start : start + size])
        yield some, [r for r in rows if r["subject_id"] in some]


# ---- features

FAMILIES = {
    "demographics": demographics.Options(),
    "measurements": measurements.Options(
        codes=("*",),
        statistics=get_args(Statistic),
        windows=("36h", "7d", "all", "6h"),
        min_rows=0,
    ),
    "codes": codes.Options(
        codes=("*",), statistics=("present", "count"), windows=("48h", "all"), min_rows=0
    ),
    "imaging": imaging.Options(
        statistics=("last", "mean", "count", "first", "since"), windows=("48h", "all"), min_rows=0
    ),
}


def all_features():
    measured = ["A", "B", "I", "MEDS_BIRTH", "GENDER//female"]
    names = demographics.names(FAMILIES["demographics"], ["GENDER//female", "MEDS_BIRTH"])
    names += measurements.names(FAMILIES["measurements"], measured)
    names += codes.names(FAMILIES["codes"], ["A", "B", "I", "absent"])
    listed = [Feature.named(n, modality="records") for n in names]
    images = imaging.names(FAMILIES["imaging"], IMAGES)
    return listed + [Feature.named(n, modality="images") for n in images]


FEATURES = all_features()


def oracle(rows, row, feature):
    """A feature of an index row, as a person would work it out."""
    start, at = feature.window[0], row["prediction_time"]
    mine = [r for r in rows if r["subject_id"] == row["subject_id"] and r["code"] == feature.code]
    timed = [
        r
        for r in mine
        if r["time"] is not None and r["time"] < at and (start is None or at - start <= r["time"])
    ]
    if feature.statistic == "age":
        return (at - timed[0]["time"]) / YEAR if timed else math.nan
    if feature.family in ("codes", "demographics"):
        count = len(timed) + sum(r["time"] is None for r in mine)
        return float(count if feature.statistic == "count" else count > 0)
    numeric = [r for r in timed if r["numeric_value"] is not None]
    if feature.family == "imaging" and feature.statistic == "last":
        return of_latest_image(rows, row, feature)
    always = [r["numeric_value"] for r in mine if r["time"] is None]
    values = [v for v in always if v is not None] + [r["numeric_value"] for r in numeric]
    if feature.statistic == "count":
        return float(len(values))
    if not values:
        return math.nan
    if feature.statistic == "since":
        return (at - numeric[-1]["time"]) / DAY if numeric else math.nan
    if feature.statistic == "first":
        return numeric[0]["numeric_value"] if numeric else values[0]
    if feature.statistic == "sd":
        return st_.stdev(values) if len(values) > 1 else math.nan
    if feature.statistic == "slope":
        days = [(r["time"] - numeric[0]["time"]) / DAY for r in numeric]
        values = [r["numeric_value"] for r in numeric]
        return st_.linear_regression(days, values).slope if len(set(days)) > 1 else math.nan
    pick = {"last": lambda v: v[-1], "mean": st_.fmean, "min": min, "max": max, "sum": math.fsum}
    return pick[feature.statistic](values)


def of_latest_image(rows, row, feature):
    """The measurement on the latest image of its modality and body part; the last by its name.

    One without a time where there is no other.
    """
    start, at = feature.window[0], row["prediction_time"]
    kind = feature.code.rsplit("//", 1)[0]
    images = [
        r
        for r in rows
        if r["subject_id"] == row["subject_id"]
        and r["code"].rsplit("//", 1)[0] == kind
        and r["numeric_value"] is not None
        and (r["time"] is None or r["time"] < at)
        and (r["time"] is None or start is None or at - start <= r["time"])
    ]
    if not images:
        return math.nan
    chosen = max((first(r["time"]), r["record_id"]) for r in images)
    values = [
        r["numeric_value"]
        for r in images
        if (first(r["time"]), r["record_id"]) == chosen and r["code"] == feature.code
    ]
    return values[-1] if values else math.nan


def values(made):
    rows = made.column("values").to_pylist()
    return np.array(rows, float).reshape(len(rows), len(FEATURES))


@settings(max_examples=150, deadline=None)
@given(records(), moments(), st.booleans())
def test_features_equal_the_oracle(rows, index, dictionary):
    events = encoded(table(rows)) if dictionary else table(rows)
    made = features.compute(events, table(index, INDEX), FEATURES)
    expected = [[oracle(rows, row, f) for f in FEATURES] for row in index]
    expected = np.array(expected, float).reshape(len(index), len(FEATURES))
    np.testing.assert_allclose(values(made), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(records(), moments(), st.integers(1, 3), st.permutations(range(len(FEATURES))))
def test_features_do_not_depend_on_chunks_blocks_or_the_order_of_features(rows, index, size, mix):
    whole = values(features.compute(table(rows), table(index, INDEX), FEATURES))
    shuffled = features.compute(table(rows), table(index, INDEX), [FEATURES[n] for n in mix])
    np.testing.assert_array_equal(values(shuffled), whole[:, mix])
    from clinloom.features import _past

    usual = _past.EVENTS_AT_ONCE, _past.CELLS_AT_ONCE
    try:
        _past.EVENTS_AT_ONCE, _past.CELLS_AT_ONCE = 3, 40
        blocked = values(features.compute(table(rows), table(index, INDEX), FEATURES))
    finally:
        _past.EVENTS_AT_ONCE, _past.CELLS_AT_ONCE = usual
    np.testing.assert_array_equal(blocked, whole)
    for at, row in enumerate(index):
        mine = [r for r in rows if r["subject_id"] == row["subject_id"]]
        alone = values(features.compute(table(mine), table([row], INDEX), FEATURES))
        np.testing.assert_array_equal(alone[0], whole[at])
    for some, part in chunks(rows, size):
        at = [n for n, row in enumerate(index) if row["subject_id"] in some]
        made = features.compute(table(part), table([index[n] for n in at], INDEX), FEATURES)
        np.testing.assert_array_equal(values(made), whole[at].reshape(len(at), len(FEATURES)))


@settings(max_examples=60, deadline=None)
@given(records(), moments(), st.data())
def test_an_event_at_or_after_the_index_time_changes_no_feature(rows, index, data):
    seen = {}
    for row in index:  # one moment a patient: the future of one is the past of the next
        seen.setdefault(row["subject_id"], row)
    index = list(seen.values())
    later = [
        {
            **dict.fromkeys(NAMES),
            "subject_id": row["subject_id"],
            "time": row["prediction_time"] + data.draw(st.sampled_from([0, 1, 6 * HOUR, YEAR])),
            "code": data.draw(st.sampled_from(CODES)),
            "numeric_value": 1e9,
        }
        for row in index
    ]
    before = features.compute(table(rows), table(index, INDEX), FEATURES)
    after = features.compute(table(sorted(rows + later, key=order)), table(index, INDEX), FEATURES)
    np.testing.assert_array_equal(values(before), values(after))
    asked = table(rows).select(features.columns(FAMILIES)), table(index, INDEX), FEATURES
    assert not differing(*asked, features.matrix(*asked), features.matrix)


@settings(max_examples=60, deadline=None)
@given(records(), moments(), st.integers(1, 3))
def test_the_vocabulary_counts_rows_and_adds_up_over_chunks(rows, index, size):
    made = features.vocabulary(encoded(table(rows)), table(index, INDEX), FAMILIES)
    counted = {(r["family"], r["code"]): r["rows"] for r in made.to_pylist()}
    summed: dict = {}
    for some, part in chunks(rows, size):
        index_part = [r for r in index if r["subject_id"] in some]
        found = features.vocabulary(table(part), table(index_part, INDEX), FAMILIES)
        for r in found.to_pylist():
            key = (r["family"], r["code"])
            summed[key] = summed.get(key, 0) + r["rows"]
    assert counted == summed
    for code in ("A", "B", "I"):
        feature = Feature.named(f"codes|{code}|present|all", modality="records")
        assert counted.get(("codes", code), 0) == sum(oracle(rows, r, feature) for r in index)
        feature = Feature.named(f"measurements|{code}|count|all", modality="records")
        seen = sum(oracle(rows, r, feature) > 0 for r in index)
        assert counted.get(("measurements", code), 0) == seen
    assert not [c for f, c in counted if f in ("codes", "measurements") and c.startswith("IMAGE")]


# ---- cohort


@st.composite
def definitions(draw):
    hours = st.integers(1, 60).map(lambda n: f"{n * 6}h")
    maybe = st.one_of(st.none(), hours)
    ages = st.one_of(st.none(), st.integers(0, 3))
    codes = st.sampled_from(["A", "G*", "*"])
    least = st.one_of(st.none(), st.just(0))
    criterion = st.fixed_dictionaries(
        {
            "name": st.just("some"),
            "codes": codes,
            "within": maybe,
            "times": st.integers(1, 2),
            "value_above": least,
        }
    )
    nested = st.fixed_dictionaries(
        {
            "name": st.just("several"),
            "any_of": st.lists(criterion, min_size=2, max_size=2),
            "at_least": st.integers(1, 2),
        }
    )
    criterion = st.one_of(criterion, nested)
    return Cohort(
        index={
            "at": draw(st.sampled_from(["I", "*", ("A", "I")])),
            "which": draw(
                st.sampled_from(["first", "last", "every", "first_eligible", "last_eligible"])
            ),
            "plus": draw(st.sampled_from(["0d", "6h", "24h"])),
        },
        eligibility={
            "age_at_least": draw(ages),
            "prior_observation": draw(maybe),
            "require": draw(st.lists(criterion, max_size=1)),
            "exclude": draw(st.lists(criterion, max_size=1)),
        },
        outcome={
            "codes": "B",
            "within": draw(st.integers(3, 60).map(lambda n: f"{n * 6}h")),
            "value_above": draw(st.one_of(st.none(), st.just(0))),
        },
        time_at_risk={
            "starts": draw(st.sampled_from(["0d", "6h", "12h"])),
            "start": draw(st.sampled_from(["exclusive", "inclusive"])),
            "end": draw(st.sampled_from(["exclusive", "inclusive"])),
            "follow_up": draw(st.sampled_from(["assumed", "required", "data"])),
            "competing": {
                "codes": draw(st.sampled_from(["A", "MEDS_DEATH"])),
                "counts_as": draw(st.sampled_from(["negative", "excluded"])),
            },
        },
        washout=draw(st.one_of(st.sampled_from(["ever", "none"]), hours)),
        observed=draw(st.sampled_from([None, {"starts": "A", "ends": "G*"}])),
    )


def fits(code, patterns):
    return any(
        p == "*" or code == p or (p[-1] == "*" and code.startswith(p[:-1])) for p in patterns
    )


def cohort_oracle(rows, definition, data_end):
    """Index rows, patient by patient and moment by moment."""
    out = []
    which, _, eligible = definition.index.which.partition("_")
    for subject in sorted({r["subject_id"] for r in rows}):
        mine = [r for r in rows if r["subject_id"] == subject]
        timed = [r for r in mine if r["time"] is not None]
        starts = sorted({r["time"] for r in timed if fits(r["code"], definition.index.at)})
        part = {"first": slice(0, 1), "last": slice(-1, None), "every": slice(None)}[which]
        if not eligible:
            starts = starts[part]
        starts = [s for s in starts if _in_cohort(mine, timed, s, definition)]
        if eligible:
            starts = starts[part]
        for start in starts:
            at = start + definition.index.plus
            found = _what_followed(timed, at, definition, data_end)
            if found is not None:
                out.append((subject, at, found))
    return out


def _within(value, above):
    return above is None or (value is not None and value > above)


def _holds(criterion, mine, at):
    if criterion.any_of:
        return sum(_holds(c, mine, at) for c in criterion.any_of) >= criterion.at_least
    reach = criterion.within
    had = [
        r
        for r in mine
        if fits(r["code"], criterion.codes)
        and _within(r["numeric_value"], criterion.value_above)
        and (r["time"] is None or r["time"] < at)
        and (r["time"] is None or reach is None or at - reach <= r["time"])
    ]
    return len(had) >= criterion.times


def _period(timed, at, observed):
    """When the period that holds the moment is over; None where none does."""
    began = [r["time"] for r in timed if fits(r["code"], observed.starts) and r["time"] <= at]
    if not began:
        return None
    ends = [r["time"] for r in timed if fits(r["code"], observed.ends) and r["time"] > max(began)]
    over = min(ends, default=2**62)
    return over if over >= at else None


def _hits(timed, definition):
    outcome = definition.outcome
    return [
        r
        for r in timed
        if fits(r["code"], outcome.codes) and _within(r["numeric_value"], outcome.value_above)
    ]


def _in_cohort(mine, timed, start, definition):
    at, eligibility = start + definition.index.plus, definition.eligibility
    risk = definition.time_at_risk
    prevalent = risk.start == "exclusive" or risk.starts > 0

    def before(time):
        return time <= at if prevalent else time < at

    if definition.observed is not None and _period(timed, at, definition.observed) is None:
        return False
    born = [r["time"] for r in timed if r["code"] == "MEDS_BIRTH"]
    least = eligibility.age_at_least
    if least is not None and (not born or _birthdays(born[0], at) < least):
        return False
    seen = [r["time"] for r in timed if r["code"] != "MEDS_BIRTH"]
    reach = eligibility.prior_observation
    if reach is not None and (not seen or min(seen) > at - reach):
        return False
    if not all(_holds(c, mine, at) for c in eligibility.require):
        return False
    if any(_holds(c, mine, at) for c in eligibility.exclude):
        return False
    if any(r["code"] == "MEDS_DEATH" and before(r["time"]) for r in timed):
        return False
    wash = definition.washout
    return wash == "none" or not any(
        before(r["time"])
        and (wash == "ever" or at - wash <= r["time"])
        and not (r["time"] == start and fits(r["code"], definition.index.at))
        for r in _hits(timed, definition)
    )


def _what_followed(timed, at, definition, data_end):
    """Whether the outcome followed; None where the moment is left out for what followed."""
    risk = definition.time_at_risk
    low, high = at + risk.starts, at + definition.outcome.within
    found = any(
        (low <= r["time"] if risk.start == "inclusive" else low < r["time"])
        and (r["time"] <= high if risk.end == "inclusive" else r["time"] < high)
        for r in _hits(timed, definition)
    )
    ended = not found and any(
        at <= r["time"] <= high and fits(r["code"], risk.competing.codes) for r in timed
    )
    if ended and risk.competing.counts_as == "excluded":
        return None
    if risk.follow_up != "assumed" and not found and not ended:
        until = data_end
        if risk.follow_up == "required":
            until = max((r["time"] for r in timed if r["time"] <= data_end), default=-(2**62))
        if definition.observed is not None:
            until = min(until, _period(timed, at, definition.observed))
        if until < high:
            return None
    return found


def _birthdays(born, at):
    born, at = (np.datetime64(t, "us").astype("datetime64[D]").item() for t in (born, at))
    return at.year - born.year - ((at.month, at.day) < (born.month, born.day))


@settings(max_examples=200, deadline=None)
@given(records(), definitions(), st.integers(1, 3))
def test_the_cohort_equals_the_oracle_however_chunked(rows, definition, size):
    data_end = max((r["time"] for r in rows if r["time"] is not None), default=0)
    made = cohort(encoded(table(rows)), definition, data_end=data_end)
    found = [tuple(r.values())[:3] for r in _micro(made["index"]).to_pylist()]
    assert found == cohort_oracle(rows, definition, data_end)
    flow = [list(r.values()) for r in made["flow"].to_pylist()]
    assert flow[0][2] == len({r["subject_id"] for r in rows})
    assert flow[-1][3] == sum(f[2] for f in found)
    parts, flows = [], np.zeros((len(flow), 2), int)
    for _, part in chunks(rows, size):
        one = cohort(table(part), definition, data_end=data_end)
        parts += [tuple(r.values())[:3] for r in _micro(one["index"]).to_pylist()]
        flows += [[r["subjects"], r["rows"]] for r in one["flow"].to_pylist()]
    assert parts == found
    assert flows.tolist() == [row[2:] for row in flow]


def _micro(index):
    at = index.column("prediction_time").cast(pa.int64())
    return index.set_column(1, "prediction_time", at)


@settings(max_examples=40, deadline=None)
@given(moments(), st.integers(), st.integers(1, 3))
def test_the_split_does_not_depend_on_chunks_and_keeps_patients_whole(index, seed, size):
    for chosen in (Split(), Split(by="time", cutoff="1970-01-03")):
        whole = split.assign(table(index, INDEX), chosen, seed=seed).to_pylist()
        parts = []
        for _, part in chunks(index, size):
            parts += split.assign(table(part, INDEX), chosen, seed=seed).to_pylist()
        assert parts == whole
        sides: dict = {}
        for row in whole:
            sides.setdefault(row["subject_id"], set()).add(row["split"])
        assert not [s for s in sides.values() if {"train", "test"} <= s]
    folds = split.fold(np.array([r["subject_id"] for r in index], np.int64), 3, seed)
    assert set(folds.tolist()) <= {0, 1, 2}


# ---- clean


@st.composite
def acquired(draw):
    """Acquired events with free times, mixed units, empty and repeated values."""
    rows = draw(records(most=25))
    for row in rows:
        row["code"] = draw(st.sampled_from(["LOINC//2345-7", "LOINC//8310-5", "A", IMAGES[0]]))
        if row["code"] in IMAGES:
            row["record_id"] = draw(st.sampled_from(["i1", "i2"]))
        row["unit"] = draw(st.sampled_from([None, "mg/dL", "mmol/L", "Cel", "[degF]", "MG/DL"]))
        if draw(st.booleans()):  # several numbers of one record
            row["record_id"] = draw(st.sampled_from(["r1", "r2"]))
        row["text_value"] = draw(st.sampled_from([None, None, "", "x"]))
        row["source"] = draw(st.sampled_from(["ehr", "lab"]))
        if row["numeric_value"] is not None:
            row["numeric_value"] = draw(st.sampled_from([0.0, 37.0, 98.6, 5.5, 1000.0, math.nan]))
        row["time_text"] = None
        if row["time"] is None:
            row["time_text"] = draw(
                st.sampled_from([None, *TIMES, *AMBIGUOUS, "30.02.2020", "soon"])
            )
    return sorted(rows, key=order)


CONVERSIONS = {
    ("LOINC//2345-7", "mmol/L"): lambda v: v * 18.016,
    ("LOINC//8310-5", "[degF]"): lambda v: (v - 32) * 5 / 9,
}
LEARNED = {"A": "mg/dL"}
KNOWN = {
    "A": ("mg/dL", {"mg/dL", "MG/DL"}),
    "LOINC//2345-7": ("mg/dL", {"mg/dL", "MG/DL", "mmol/L"}),
    "LOINC//8310-5": ("Cel", {"Cel", "[degF]"}),
}
BOUNDS = {"LOINC//2345-7": (1, 3000), "LOINC//8310-5": (11, 47)}
TIMES = {"01/13/1970 06:00": 12 * DAY + 6 * HOUR, "19700103": 3 * DAY - 1}
DAYS = {"19700103": DAY - 1}  # of which no hour is told: known at its end
AMBIGUOUS = ("01/02/1970 06:00",)


def clean_oracle(rows):
    """What is kept, what is refused (record, reason), and how many are repeated."""
    kept, refused = [], []
    for given_ in rows:
        row = dict(given_)
        text = row.pop("time_text")
        row["earlier"] = None
        value = row["numeric_value"]
        number = value is not None and not math.isnan(value)
        if row["time"] is None and text is not None:
            row["time"], row["earlier"] = TIMES.get(text), DAYS.get(text)
        reason = None
        if given_["time"] is None and text is not None and row["time"] is None:
            reason = "ambiguous_date" if text in AMBIGUOUS else "invalid_date"
        elif not number and (
            row["text_value"] == "" or (value is not None and row["text_value"] is None)
        ):
            reason = "missing_value"
        elif number and row["code"] in KNOWN:
            canonical, units = KNOWN[row["code"]]
            if row["unit"] is not None and row["unit"] not in units:
                reason = "several_units" if row["code"] in LEARNED else "unknown_unit"
            else:
                convert = CONVERSIONS.get((row["code"], row["unit"]), lambda v: v)
                row["numeric_value"], row["unit"] = convert(value), canonical
                low, high = BOUNDS.get(row["code"], (-math.inf, math.inf))
                if not low <= row["numeric_value"] <= high:
                    reason = "impossible_value"
        if not number:
            row["numeric_value"] = None
        if reason:
            refused.append((row["subject_id"], row["record_id"], reason))
        if reason == "several_units":  # of the number alone
            row["numeric_value"] = None
        if reason in (None, "several_units"):
            kept.append(row)
    kept.sort(key=order)
    seen, out = set(), []
    for row in kept:
        key = tuple(row[n] for n in ("subject_id", "time", "code", "text_value", "unit"))
        key += (None if row["numeric_value"] is None else round(row["numeric_value"], 9),)
        key += (row["record_id"] if row["code"] in IMAGES else None,)
        if key not in seen:
            out.append(row)
        seen.add(key)
    return by_records(out), refused, len(kept) - len(out)


def by_records(rows):
    """Simultaneous numbers of a code by their records: who tells more codes counts later."""

    def record(row):
        return row["subject_id"], row["time"], row["record_id"], row["source"]

    told = {(record(r), r["code"]) for r in rows if r["numeric_value"] is not None}

    def key(row):
        if row["numeric_value"] is None:
            return (*order(row)[:3], False)
        breadth = sum(r == record(row) for r, _ in told)
        name = row["record_id"] or ""
        stem = name.rstrip("0123456789")  # a number at its end counts by its length first
        name = (stem, len(name), name, row["source"])
        return (*order(row)[:3], True, breadth, name, row["numeric_value"])

    return sorted(rows, key=key)


@settings(max_examples=200, deadline=None)
@given(acquired(), st.booleans(), st.integers(1, 3))
def test_cleaning_equals_the_oracle_however_chunked(rows, dictionary, size):
    events = table(rows, ACQUIRED)
    made = clean(encoded(events) if dictionary else events, {}, learned=LEARNED)
    kept, refused, repeated = clean_oracle(rows)
    found = made["events"].set_column(1, "time", made["events"].column("time").cast(pa.int64()))
    found = found.to_pylist()
    assert [r["record_id"] for r in found] == [r["record_id"] for r in kept]
    for mine, theirs in zip(found, kept, strict=True):
        value, expected = mine.pop("numeric_value"), theirs.pop("numeric_value")
        if value is None or math.isnan(value):
            assert expected is None
        else:
            assert value == pytest.approx(expected, rel=1e-11)
        assert mine == theirs
    shown = [(r["subject_id"], r["record_id"], r["reason"]) for r in made["rejected"].to_pylist()]
    assert sorted(shown) == sorted(refused)
    ledger = _ledger(made["ledger"])
    assert sum(n for key, n in ledger.items() if key[3] == "rejected") == len(refused)
    assert sum(n for key, n in ledger.items() if key[2] == "duplicate") == repeated
    parts: dict = {}
    records_ = []
    for _, part in chunks(rows, size):
        one = clean(table(part, ACQUIRED), {}, learned=LEARNED)
        records_ += one["events"].column("record_id").to_pylist()
        for key, n in _ledger(one["ledger"]).items():
            parts[key] = parts.get(key, 0) + n
    assert records_ == [r["record_id"] for r in found]
    assert parts == ledger


def _ledger(ledger):
    names = ("source", "code", "rule", "action")
    return {tuple(r[n] for n in names): r["count"] for r in ledger.to_pylist()}

"""Watching a model at work, without Spark: tellings, periods, feedback, what is kept, the page."""

from __future__ import annotations

import datetime as dt
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from tests.properties import test_alarms as hospital

from clinloom import cli, files, watching
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer
from clinloom.errors import StoreError, UsageError
from clinloom.evaluate import alarms, fitness, watch
from clinloom.evaluate.watch import Patients, Seen
from clinloom.features import Feature
from clinloom.learn.preparation import learn
from clinloom.learn.risks import Risks
from clinloom.report import watched
from clinloom.run import api, feedback, moments, periods, reference
from clinloom.tables import PREDICTIONS, SEEN

DAY = 86_400_000_000


def at(text: str) -> int:
    return int(np.datetime64(text, "us").astype(int))


@pytest.mark.parametrize(
    ("when", "week", "month"),
    [
        ("2026-03-01T23:59:59", "2026-W09", "2026-03"),
        ("2026-03-02T00:00:00", "2026-W10", "2026-03"),
        ("2021-01-03", "2020-W53", "2021-01"),
        ("1969-12-31", "1970-W01", "1969-12"),
        ("1923-06-05", "1923-W23", "1923-06"),
    ],
)
def test_periods_are_iso_weeks_and_months(when, week, month):
    for by, told in (("week", week), ("month", month)):
        number = int(periods.number(np.array([at(when)]), by)[0])
        assert periods.label(number, by) == told and number > 0
    year, iso, _ = dt.datetime.fromisoformat(when).isocalendar()
    assert week == f"{year}-W{iso:02}"


def tellings(*rows: tuple) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, moments.KEPT, strict=True)]
    return pa.table(arrays, schema=moments.KEPT)


def test_what_is_told_of_a_moment_becomes_one_row_and_the_highest_risk_counts():
    one, two = at("2026-01-05"), at("2026-02-05")
    told = tellings(
        (1, one, 0.2, False, None, None),
        (1, one, 0.6, True, None, None),  # scored again
        (1, one, None, None, False, None),
        (1, one, None, None, None, 0b10),
        (1, two, 0.3, False, True, None),
        (2, one, None, None, True, 0b01),  # was never scored
    )
    found = moments.of_tellings(told, by="month", known=one, groups=2)
    assert found.subject.tolist() == [1, 1] and found.risk.tolist() == [0.6, 0.3]
    assert found.flagged.tolist() == [True, False] and found.member.tolist() == [[0, 1], [0, 0]]
    assert found.outcome.tolist() == [False, True]
    assert found.known.tolist() == [True, False]  # who had it early does not count before the rest
    assert not moments.of_tellings(told, by="month", known=None, groups=0).known.any()
    assert moments.of_tellings(told.slice(0, 0), by="week", known=None, groups=2).risk.size == 0


FEEDBACK = [
    {"card": "a", "outcome": "accepted", "outcomeTimestamp": "2026-01-03T10:00:00Z"},
    {
        "card": "b",
        "outcome": "overridden",
        "overrideReason": {"reason": {"code": "known"}, "userComment": "Mrs Miller is fine"},
        "outcomeTimestamp": "2026-01-31T23:30:00-02:00",  # February, UTC
    },
]


def cards(one, count):
    """The same of several cards."""
    return [{**one, "card": f"{one['card']}{n}"} for n in range(count)]


def test_feedback_is_counted_by_period_and_its_comments_are_not_read(tmp_path):
    file = tmp_path / "feedback.jsonl"
    ten = cards(FEEDBACK[0], 10)
    lines = [{"feedback": ten[:8]}, *cards(FEEDBACK[1], 6), *ten[8:], {"card": 1}]
    more = ["no json", "[]", '{"feedback": 3}', json.dumps({**FEEDBACK[0], "outcome": "lost"}), ""]
    file.write_text("\n".join([*map(json.dumps, lines), *more]))
    found = feedback.counted(files.address(file), "month")
    january, february = found["periods"]
    assert (january["cards"], january["overridden"]) == (10, 0.0)
    assert (february["cards"], february["overridden"]) == (6, 1.0) and february["low"] > 0.5
    assert found["reasons"] == [{"code": "known", "cards": 6}] and found["unreadable"] == 5
    assert "Miller" not in json.dumps(found)
    file.write_text("\n".join(map(json.dumps, [*[FEEDBACK[0]] * 9, FEEDBACK[1] | FEEDBACK[0]])))
    file.write_text(json.dumps(FEEDBACK[1]) + "\n" + json.dumps(FEEDBACK[0]))
    assert all(
        one["cards"] is None for one in feedback.counted(files.address(file), "month")["periods"]
    )
    with pytest.raises(StoreError, match="cannot be read"):
        feedback.counted(files.address(tmp_path / "none"), "month")


def test_feedback_is_read_in_blocks(tmp_path, monkeypatch):
    file = tmp_path / "feedback.jsonl"
    file.write_text("\n".join(map(json.dumps, cards(FEEDBACK[0], 40))))
    whole = feedback.counted(files.address(file), "week")
    monkeypatch.setattr(feedback, "BLOCK", 37)
    assert feedback.counted(files.address(file), "week") == whole
    assert whole["periods"][0]["cards"] == 40


NAMES = (
    "demographics|MEDS_BIRTH|age|all",
    "demographics|GENDER//female|present|all",
    "codes|SITE//north|present|all",
    "measurements|LOINC//2160-0|last|24h",
)
FEATURES = [Feature.named(name, modality="records") for name in NAMES]


def test_subgroups_are_sexes_ages_and_sites():
    groups = reference.subgroups(FEATURES)
    assert [g.name for g in groups] == [
        "age 0 to 17",
        "age 18 to 44",
        "age 45 to 64",
        "age 65 to 79",
        "age 80 on",
        "sex female",
        "site north",
    ]
    values = np.array([[17.99, 1, 0, 1], [80, 0, 2, 1], [np.nan, np.nan, np.nan, 1]])
    member = reference.members(values, groups)
    assert [np.flatnonzero(row).tolist() for row in member] == [[0, 5], [4, 6], []]


def test_codes_and_their_units_are_counted_by_patient():
    rows = [
        (1, "A", 1.0, "mg/dL"), (1, "A", 2.0, "mg/dL"), (1, "A", None, "g/L"), (1, "B", None, None),
        (2, "A", 3.0, None), (2, "B", None, None), (3, "A", 1.0, "mg/dL"),
    ]  # fmt: skip
    names = ("subject_id", "code", "numeric_value", "unit")
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    events = events.set_column(1, "code", events.column("code").dictionary_encode())
    events = events.set_column(3, "unit", events.column("unit").dictionary_encode())
    whole = reference.codes_seen(events)["seen"]
    parts = [reference.codes_seen(events.slice(*at))["seen"] for at in ((0, 4), (4, 3))]
    order = [("code", "ascending"), ("unit", "ascending")]
    assert reference.seen_together(parts).sort_by(order).equals(whole.sort_by(order))
    found = {(r["code"], r["unit"]): r["patients"] for r in whole.to_pylist()}
    assert found == {("A", None): 3, ("A", "mg/dL"): 2, ("A", ""): 1, ("B", None): 2}


def seen(code: str, unit: str | None, patients: int) -> dict:
    return {"code": code, "unit": unit, "patients": patients}


def test_of_codes_only_those_of_five_patients_are_kept():
    rows = [seen("A", None, 9), seen("A", "g", 4), seen("A", "kg", 5), seen("B", None, 4)]
    made = SEEN.rows(rows)
    assert reference._listed(made) == {"A": ["kg"]} and reference._pairs(made) == 13


def group(kind: str, name: str) -> reference.Group:
    return reference.Group(kind, name, 0, 0.0, 1.0)


def outcomes(positive: int, known: int) -> Seen:
    label = np.arange(known) < positive
    risks = Risks.of(label, np.linspace(0.9, 0.1, known))
    apart = Patients(having=positive, lacking=known - positive)
    return Seen(known, 1.0, 0, known, 1.0, positive, risks, apart)


def flagged(marked: int, unmarked: int, *, each: int) -> int:
    """What is told of so many patients with and without a flag, all of whose rows are alike."""
    rows = each * (marked + unmarked)
    patients = Patients(marked=marked, unmarked=unmarked)
    return reference._flagged(Seen(rows, flagged=each * marked, patients=patients))


def test_a_subgroup_with_few_outcomes_hides_another_with_it():
    known = [
        (group("sex", "sex a"), outcomes(3, 60)),
        (group("sex", "sex b"), outcomes(30, 80)),
        (group("site", "site n"), outcomes(12, 40)),
        (group("site", "site s"), outcomes(21, 50)),
    ]
    assert [g.name for g, _ in reference._showable(known)] == ["site n", "site s"]
    assert reference._estimate(outcomes(3, 60), 1.0) == fitness.UNKNOWN
    assert [flagged(n, 100 - n, each=1) for n in (0, 3, 50, 98, 100)] == [0, 2, 50, 98, 100]


@pytest.fixture
def bundle(tmp_path):
    def put(told: str | None) -> str:
        place = files.address(tmp_path) / "bundle"
        arrays = {"coefficients": np.zeros(1), "intercept": np.zeros(1)}
        statistics = learn(np.arange(10.0)[:, None], lower=0.01, upper=0.99)
        scorer = Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.5)
        bundles.publish(
            place, scorer=scorer, study={}, features=FEATURES, evidence={}, check=lambda: None,
            reference=told,
        )  # fmt: skip
        return str(place)

    return put


def test_a_bundle_without_a_reference_says_so(bundle, tmp_path, capsys):
    place = bundle(None)
    with pytest.raises(StoreError, match="keeps no `reference`.*\n  → run its study again"):
        api.monitor(place, predictions=tmp_path)
    assert cli.main(["monitor", place, "--predictions", str(tmp_path)]) == 1
    assert "keeps no `reference`" in capsys.readouterr().err


def test_a_bundle_keeps_its_reference_as_a_part_of_its_own(bundle, tmp_path):
    known = hospital.reference(np.random.default_rng(0), each=1, rows=400, tests=300)
    place = bundle(json.dumps(known.plain()))
    assert bundles.Bundle.load(place).reference.plain() == known.plain()
    bundle(json.dumps(known.plain()))
    assert len(list((tmp_path / "bundle").glob("reference-*"))) == 1  # and none of the one before


@pytest.mark.parametrize(
    ("asked", "told"), [({"by": "day"}, "--by"), ({"level": 1.0}, "--false-alarms")]
)
def test_wrong_use_is_told_before_anything_is_read(asked, told):
    with pytest.raises(UsageError, match=told):
        api.monitor("nowhere", predictions="nowhere", **asked)


def test_what_is_no_table_of_predictions_is_told(bundle, tmp_path):
    known = hospital.reference(np.random.default_rng(0), each=1, rows=400, tests=300)
    place = bundle(json.dumps(known.plain()))
    with pytest.raises(StoreError, match="no Parquet file is here"):
        api.monitor(place, predictions=tmp_path / "none")
    from clinloom.store import TableWriter

    with TableWriter(files.address(tmp_path) / "seen.parquet", SEEN) as writer:
        writer.write(SEEN.empty)
    with pytest.raises(StoreError, match="column 'subject_id' is absent.*\n.*prediction_time"):
        api.monitor(place, predictions=tmp_path / "seen.parquet")


def test_the_exit_code_of_an_alarm_is_its_own():
    assert watching.code({"verdict": "alarm"}) == 3
    assert [watching.code(r) for r in ({"verdict": "no alarm"}, None, [], {"rows": 1})] == [0] * 4
    assert "3 an alarm" in cli.EXIT


@pytest.fixture(scope="module")
def verdict() -> dict:
    made = hospital.verdict(5, each=1, rows=900, change=hospital.shifted_unit)
    return made | {
        "bundle": "0" * 64, "study": "deterioration <b>", "model": "random_forest",
        "threshold": 0.25, "by": "month", "outcomes_until": "2026-03-01", "feedback": None,
        "reference": fitness.Estimate(0.1, 0.1, 1.0, 0.1, 1.2, 0.1).plain() | {"auroc": 0.77},
        "created": "2026-04-01T00:00:00+00:00",
    }  # fmt: skip


def test_the_page_tells_the_alarms_and_asks_nothing_of_a_network(verdict):
    page = watched.render(verdict)
    assert "needs a look" in page and "deterioration &lt;b&gt;" in page
    assert re.search(r"<td>f3</td><td>3</td>", page)
    assert page.count("<svg") == 4 and "<script" not in page and "http:" not in page
    calm = watched.render({**verdict, "alarms": []})
    assert "<strong>No alarm.</strong>" in calm and "<h2>Alarms<" not in calm


def test_the_page_of_a_model_without_outcomes_and_features(verdict):
    known = hospital.reference(np.random.default_rng(0), each=1, rows=400, tests=300)
    made = hospital.drawn(np.random.default_rng(1), 200, each=1)
    rows = hospital.told(made)._replace(known=np.zeros(200, bool), member=np.zeros((200, 0), bool))
    found = watch.sums(rows, known.risk.cells, 0.0)
    bare = alarms.judge(known, found, labels={n: str(n) for n in range(6)})
    assert set(bare["kinds"]) == {"predictions", "flagged"} and bare["limit"] is None
    told = {"periods": [{"period": "1", "cards": None, "overridden": None}], "reasons": [],
            "unreadable": 0}  # fmt: skip
    page = watched.render({**verdict, **bare, "feedback": told})
    assert "<svg" not in page and "&lt;5" in page


def test_nothing_is_told_of_few():
    known = hospital.reference(np.random.default_rng(0), each=1, rows=400, tests=300)
    made = hospital.drawn(np.random.default_rng(1), 300, each=1)
    made["period"][:] = np.r_[np.zeros(4), np.ones(296)]
    made["outcome"][:] = np.arange(300) < 8  # 4 in each
    rows = hospital.told(made)
    found = watch.sums(rows, known.risk.cells, 0.0)
    told = alarms.judge(known, found, labels={0: "a", 1: "b"}, groups=hospital.NAMES)
    assert [one["period"] for one in told["periods"]] == ["b"] and told["hidden"] == 1
    assert told["periods"][0]["observed"] is None and told["calibration"] == []
    assert all(one["observed"] is None and one["known"] is None for one in told["groups"])


@pytest.mark.parametrize(
    ("ones", "told"), [(0, True), (3, False), (5, True), (27, False), (30, True)]
)
def test_the_size_of_a_change_does_not_tell_of_few(ones, told):
    new = np.array([30 - ones, ones, *[0] * 9])
    size = alarms._size(new, np.array([50, 50, *[0] * 9]), 0.3, 0.2)
    assert (size == {"psi": 0.3, "ks": 0.2}) is told
    assert (size == {"psi": None, "ks": None}) is not told


def test_moments_that_come_twice_are_not_counted_as_evidence():
    rng = np.random.default_rng(4)
    known = hospital.reference(rng, each=1, rows=400, tests=300)
    made = hospital.drawn(rng, 100, each=1)
    once = known.features.cells.counts(made["x"], made["period"], made["subject"])
    again = once.set_column(3, "rows", pa.array(8 * once.column("rows").to_numpy()))
    found = watch.sums(hospital.told(made), known.risk.cells, 0.0)
    labels = {n: str(n) for n in range(6)}
    first, second = (alarms.judge(known, found, labels=labels, features=f) for f in (once, again))
    assert [f["p"] for f in first["features"]] == [f["p"] for f in second["features"]]


def test_predictions_are_read_as_they_are_written():
    rows = PREDICTIONS.rows(
        [
            {
                "subject_id": 7,
                "prediction_time": dt.datetime(2026, 1, 5, tzinfo=dt.UTC),
                "boolean_value": None,
                "predicted_boolean_value": True,
                "predicted_boolean_probability": 0.75,
            }
        ]
    )
    told = moments.said(rows)
    assert told.schema.equals(moments.KEPT)
    assert told.to_pylist() == [
        {"subject": 7, "at": at("2026-01-05"), "risk": 0.75, "flagged": True, "label": None,
         "member": None}
    ]  # fmt: skip

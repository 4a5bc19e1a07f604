"""Cleaning of records: versions, times out of a lifetime, answers, encounters that look alike."""

from __future__ import annotations

import datetime as dt

import pytest
from tests.unit.test_clean import NOON, cleaned, event, ledger, reasons

from clinloom.clean import answers, clean, duplicates, lifetime
from clinloom.events import matching
from clinloom.features import codes as family
from clinloom.features import vocabulary
from clinloom.history import History
from clinloom.tables import ACQUIRED, INDEX, REFUSED

UTC = dt.UTC
FACT = {"value": 90.0, "unit": "mg/dL"}


def at(year, code="LOINC//2345-7", **more):
    more = {**(FACT if code == "LOINC//2345-7" else {}), **more}
    return event(code, time=dt.datetime(year, 6, 1, tzinfo=UTC), **more)


def years(made):
    return [row["time"].year for row in made["events"].to_pylist()]


# ---- lifetimes


@pytest.mark.parametrize(
    "rows, left, refused",
    [
        ([at(1940), at(1950, "MEDS_BIRTH"), at(1990)], [1950, 1990], ["before_birth"]),
        ([at(1990), at(2000, "MEDS_DEATH"), at(2001)], [1990, 2000], ["after_death"]),
        ([at(1990), at(9999)], [1990], ["impossible_time"]),
        ([at(1), at(1990)], [1990], ["impossible_time"]),
        ([at(1950, "MEDS_BIRTH"), at(1990), at(2099)], [1950, 1990], ["impossible_time"]),
        ([at(1990), at(2099)], [1990, 2099], []),  # shifted dates: nothing says that it is wrong
        (
            [at(1990), at(1991), at(1992), at(1993), at(2024, "MEDS_BIRTH")],
            [1990, 1991, 1992, 1993],
            ["impossible_birth"],
        ),
        (
            [at(1900, "MEDS_DEATH"), at(1990), at(1991), at(1992)],
            [1990, 1991, 1992],
            ["impossible_death"],
        ),
        ([at(1940), at(1945, "MEDS_DEATH"), at(1950, "MEDS_BIRTH")], [1950], ["before_birth"] * 2),
    ],
)
def test_what_cannot_have_been_is_refused_and_counted(rows, left, refused):
    made = cleaned(*rows)
    assert years(made) == left
    assert reasons(made) == refused
    assert sum(n for *_, action, n in ledger(made) if action == "rejected") == len(refused)


def test_the_day_of_birth_and_letters_after_a_death_are_possible():
    born, died = dt.datetime(1950, 3, 5, tzinfo=UTC), dt.datetime(2000, 3, 5, tzinfo=UTC)
    near = dt.timedelta(hours=20)
    rows = [
        event(**FACT, time=born - near),
        event("MEDS_BIRTH", time=born),
        event("MEDS_DEATH", time=died),
        event(**FACT, time=died + dt.timedelta(days=60)),
    ]
    assert not reasons(cleaned(*rows))
    chosen = lifetime.Options(before_birth="0d", after_death="30d")
    assert reasons(cleaned(*rows, lifetime=chosen)) == ["before_birth", "after_death"]


def test_one_patients_birth_is_not_anothers_and_static_facts_have_no_time():
    rows = [at(1940, subject_id=1), at(1950, "MEDS_BIRTH", subject_id=2), at(1990, subject_id=2)]
    rows.insert(1, event("GENDER//female", time=None, subject_id=2))
    assert not reasons(cleaned(*rows))


# ---- answers

NOT_DETECTED, DETECTED = "SNOMED//260415000", "SNOMED//260373001"
TEST = "LOINC//94500-6"


def coded(*rows, **options):
    return cleaned(*rows, **options)["events"].column("code").to_pylist()


@pytest.mark.parametrize(
    "text, value, code",
    [
        (NOT_DETECTED, None, f"{TEST}={NOT_DETECTED}"),
        (" Not  Detected. ", None, f"{TEST}=not detected"),
        ("NEGATIVE", None, f"{TEST}=negative"),
        ("positive", None, f"{TEST}=positive"),
        ("false", 0.0, f"{TEST}=false"),
        ("true", 1.0, f"{TEST}=true"),
        ("<0.1", 0.1, TEST),
        ("positive", 5.0, TEST),  # a number is what was measured
        ("Meier, Anna", None, TEST),
        ("no " * 60, None, TEST),
        (None, None, TEST),
    ],
)
def test_a_coded_answer_is_a_part_of_the_code(text, value, code):
    made = cleaned(event(TEST, text_value=text, value=value))
    assert made["events"].column("code").to_pylist() == [code]
    assert made["events"].column("text_value").to_pylist() == [text]
    if code != TEST:
        assert ledger(made) == [(TEST, "answer", "joined", 1)]
    elif value is None and text is not None:
        assert ledger(made) == [(TEST, "free_text", "kept_as_text", 1)]


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Negative for SARS-CoV-2", "negative"),
        ("NEGATIVE  by PCR", "negative"),
        ("Negative, repeat in 48 h", "negative"),
        ("Negative (<0.5)", "negative"),
        ("neg. for nitrite", "neg"),
        ("Negativ für Influenza", "negativ"),
        ("Not detected (PCR)", "not detected"),
        ("Not Detected - influenza A, not detected - influenza B", "not detected"),
        ("Not present on admission", "not present"),
        ("Non-reactive: HIV 1/2", "non-reactive"),
        ("None seen", "none seen"),
        ("None seen.", "none seen"),
        ("None found in 100 fields", "none found"),
        ("No evidence of sepsis", "no evidence"),
        ("No growth after 48 h", "no growth"),
        ("Absent.", "absent"),
        ("nicht nachgewiesen (PCR)", "nicht nachgewiesen"),
        ("Negative for influenza A, positive for influenza B", None),
        ("Not detected in blood, now detected in urine", None),
        ("Negative pressure ventilation", None),
        ("negative-strand RNA virus", None),
        ("Absent bowel sounds", None),
        ("No change", None),
        ("no, but soon", None),
        ("None of the time", None),
        ("none, of four", None),
        ("Nothing abnormal", None),
        ("Negatively charged", None),
        ("Was negative for flu", None),
        ("- 5", None),
    ],
)
def test_a_text_that_begins_with_a_no_is_a_negative_answer(text, answer):
    (code,) = coded(event(TEST, text_value=text))
    assert code == (f"{TEST}={answer}" if answer else TEST)
    assert answer is None or not matching([code], (TEST,)).any()


def test_a_study_says_whose_short_texts_are_answers():
    rows = [event("A", text_value="Steady"), event("B", text_value="Steady")]
    assert coded(*rows, answers=answers.Options(codes=("A",))) == ["A=Steady", "B"]
    assert coded(*rows, answers=answers.Options(enabled=False)) == ["A", "B"]


def test_events_stay_in_order_and_the_same_answer_is_told_once():
    rows = [
        event("A", text_value="negative", record_id="r1"),
        event("A", text_value="NEGATIVE ", record_id="r2"),
        event("A", value=1.0, record_id="r3"),
        event("A*", record_id="r4"),
    ]
    assert coded(*rows) == ["A", "A*", "A=negative", "A=negative"]


@pytest.mark.parametrize(
    "pattern, fits",
    [
        (TEST, [True, True, False, False, False]),
        (f"{TEST}={DETECTED}", [False, True, False, False, False]),
        (f"{TEST}=negative", [False, False, True, False, False]),
        (f"{TEST}=*", [False, True, True, False, False]),
        ("LOINC//*", [True, True, False, False, True]),
        ("*=*", [False, True, True, True, False]),
        ("*", [True] * 5),
    ],
)
def test_a_pattern_without_an_answer_fits_all_but_those_that_say_no(pattern, fits):
    codes = [TEST, f"{TEST}={DETECTED}", f"{TEST}=negative", "A=false", "LOINC//2160-0"]
    assert matching(codes, (pattern,)).tolist() == fits


def test_sepsis_negative_is_no_outcome_and_a_feature_of_its_own():
    rows = [
        event(TEST, text_value=NOT_DETECTED, subject_id=1),
        event(TEST, text_value=DETECTED, subject_id=2),
    ]
    made = clean(ACQUIRED.rows(rows), {})["events"]
    assert History(made).rows_of((TEST,), static=False).tolist() == [1]
    moments = [{"subject_id": n, "prediction_time": NOON + dt.timedelta(days=1)} for n in (1, 2)]
    seen = vocabulary(made, INDEX.rows(moments), {"codes": family.Options(min_rows=0)})
    assert seen.column("code").to_pylist() == [f"{TEST}={DETECTED}", f"{TEST}={NOT_DETECTED}"]


# ---- records


def stay(record, **more):
    return event("ENCOUNTER//IMP//START", record_id=record, **more)


def test_two_stays_that_begin_at_once_are_two_and_one_told_twice_is_one():
    def records(*rows, **options):
        return cleaned(*rows, **options)["events"].column("record_id").to_pylist()

    assert records(stay("e1"), stay("e2")) == ["e1", "e2"]
    assert records(stay("e1"), stay("e1"), stay("e2"), stay("e2")) == ["e1", "e2"]
    elsewhere = [stay(f"x{n}", source="other") for n in (1, 2)]
    assert records(stay("e1"), stay("e2"), *elsewhere) == ["e1", "e2"]
    assert records(stay("e1"), stay("e2"), duplicates=duplicates.Options(distinct=())) == ["e1"]
    same = [event(**FACT, record_id="o1"), event(**FACT, record_id="o2")]
    assert records(*same) == ["o1"]
    doses = duplicates.Options(distinct=("LOINC//*",))
    assert records(*same, duplicates=doses) == ["o1", "o2"]


def test_versions_are_of_one_record_of_one_source():
    rows = [
        event(**FACT, record_id="o1", version=8),
        event("B", record_id="o1", version=16),
        event("C", record_id="o1", source="other", version=8),
        event("D", record_id="o2"),
        event("E", record_id=None, version=8),
        event("F", record_id=None, version=16),
    ]
    made = cleaned(*rows)
    assert made["events"].column("code").to_pylist() == ["B", "C", "D", "E", "F"]
    assert reasons(made) == ["superseded"]
    withdrawn = {"subject_id": 1, "source": "ehr", "record_id": "o2", "version": 2}
    gone = {**withdrawn, "stage": "acquire", "reason": "entered_in_error"}
    made = clean(ACQUIRED.rows(rows), {}, REFUSED.rows([gone]))
    assert made["events"].column("code").to_pylist() == ["B", "C", "E", "F"]
    assert sorted(reasons(made)) == ["superseded", "withdrawn"]
    made = clean(ACQUIRED.rows(rows), {}, REFUSED.rows([{**gone, "source": "other"}]))
    assert reasons(made) == ["superseded"]


def test_versions_are_of_one_patient_whoever_is_cleaned_beside():
    """Two servers in one source, or a table's names of records, may name two patients' alike."""
    rows = [
        event(code, record_id="o1", version=version, subject_id=subject)
        for subject, code, version in ((1, "A", 8), (1, "B", 16), (2, "C", 4), (2, "D", 8))
    ]
    gone = {"subject_id": 1, "source": "ehr", "record_id": "o1", "version": 20}
    refused = REFUSED.rows([{**gone, "stage": "acquire", "reason": "entered_in_error"}])
    for withdrawn, left in ((REFUSED.empty, ["B", "D"]), (refused, ["D"])):
        made = clean(ACQUIRED.rows(rows), {}, withdrawn)
        assert made["events"].column("code").to_pylist() == left

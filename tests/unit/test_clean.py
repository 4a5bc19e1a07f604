"""Each cleaning rule by small tables: what it converts, refuses, removes, and counts."""

from __future__ import annotations

import datetime as dt
import math

import pyarrow as pa
import pytest
from pydantic import ValidationError

from clinloom import plugins
from clinloom.clean import clean, duplicates, missing, plausible, rules, times, units
from clinloom.tables import ACQUIRED, EVENTS, LEDGER, REJECTED
from clinloom.vocabulary.quantities import BY_CODE

NOON = dt.datetime(2020, 1, 2, 12, tzinfo=dt.UTC)


def event(code="LOINC//2345-7", value=None, unit=None, **more):
    row = {"subject_id": 1, "time": NOON, "code": code, "numeric_value": value, "unit": unit}
    return {**row, "source": "ehr", "record_id": "r1", **more}


def cleaned(*rows, **options):
    return clean(ACQUIRED.rows(rows), options)


def ledger(made):
    return [(r["code"], r["rule"], r["action"], r["count"]) for r in made["ledger"].to_pylist()]


def reasons(made):
    return made["rejected"].column("reason").to_pylist()


def test_the_rules_run_in_their_order():
    assert [name for name, _ in rules()] == [
        "versions",
        "times",
        "lifetime",
        "missing",
        "answers",
        "units",
        "plausible",
        "duplicates",
    ]
    assert all(plugins.options("clean", name)().enabled for name, _ in rules())


def test_the_tables_have_their_declared_schema_even_when_empty():
    for made in (cleaned(), cleaned(event(value=5.0, unit="mmol/L"), event(text_value=""))):
        assert made["events"].schema == EVENTS.arrow
        assert made["rejected"].schema == REJECTED.arrow
        assert made["ledger"].schema == LEDGER.arrow


def test_what_needs_no_cleaning_is_handed_on_without_a_copy():
    acquired = ACQUIRED.rows(
        [event(value=90.0, unit="mg/dL", record_id=f"r{n}", subject_id=n) for n in range(9)]
    )
    made = clean(acquired, {})
    assert made["events"].equals(acquired.select(EVENTS.arrow.names))
    assert made["ledger"].num_rows == made["rejected"].num_rows == 0
    mine, theirs = (
        t.column("record_id").chunk(0).buffers()[2].address for t in (made["events"], acquired)
    )
    assert mine == theirs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("01/31/2020 13:45", "2020-01-31T13:45:00"),
        ("1/23/2020 7:05", "2020-01-23T07:05:00"),
        ("02/29/2020", "2020-02-29T23:59:59.999999"),
        ("20200131134501", "2020-01-31T13:45:01"),
        ("20200131134501+0100", "2020-01-31T12:45:01"),
        ("20200131134501-0530", "2020-01-31T19:15:01"),
        ("202001311345", "2020-01-31T13:45:00"),
        ("20200131", "2020-01-31T23:59:59.999999"),
        (" 31.01.2020 13:45 ", "2020-01-31T13:45:00"),
        ("31-JAN-2020", "2020-01-31T23:59:59.999999"),
        ("1969-07-20 20:17", "1969-07-20T20:17:00"),
        ("02/29/2019", None),
        ("13/31/2020 10:00", None),
        ("01/31/2020 24:00", None),
        ("20201331", None),
        ("31.04.2020 10:00", None),
        ("0000-01-01 00:00", None),
        ("2020", None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_time_is_read_by_the_formats_or_refused(text, expected):
    made = cleaned(event(value=90.0, unit="mg/dL", time=None, time_text=text))
    if expected is None:
        assert reasons(made) == ["invalid_date"]
        assert ledger(made) == [("LOINC//2345-7", "invalid_date", "rejected", 1)]
    else:
        found = made["events"].column("time")[0].as_py()
        assert found == dt.datetime.fromisoformat(expected).replace(tzinfo=dt.UTC)
        assert ledger(made) == [("LOINC//2345-7", "date_format", "converted", 1)]


def test_times_agree_with_the_standard_library():
    written = ["2021/03/04 05:06", "20210304050607", "20210304", "04.03.2021 05:06", "2021/03/04"]
    for text in written:
        (form,) = [f for f in times.FORMATS if _fits(text, f)][:1]
        expected = dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
        (found,), (whole,) = times.parsed(pa.array([text]), times.FORMATS)
        assert found == int(expected.timestamp() * 1e6)
        assert whole == ("%H" not in form)


def _fits(text, form):
    try:
        return dt.datetime.strptime(text, form)
    except ValueError:
        return None


def test_local_times_follow_the_zone_through_the_summer():
    chosen = times.Options(zone="Europe/Berlin")
    for text, hour in (("01.01.2020 12:00", 11), ("01.07.2020 12:00", 10)):
        made = cleaned(event(value=90.0, time=None, time_text=text), times=chosen)
        assert made["events"].column("time")[0].as_py().hour == hour


def test_a_date_in_free_form_is_known_at_its_end_in_its_zone_and_a_birth_at_its_begin():
    chosen = times.Options(zone="America/New_York")
    free = {"value": 90.0, "unit": "mg/dL", "time": None, "time_text": "05.03.2024"}
    made = cleaned(event(**free), times=chosen)["events"].to_pylist()
    assert made[0]["time"] == dt.datetime(2024, 3, 6, 4, 59, 59, 999_999, dt.UTC)
    assert made[0]["earlier"] == 86_400_000_000 - 1
    marked = {**free, "time_text": "05.03.2024[Asia/Tokyo]"}
    made = cleaned(event(**marked), times=chosen)["events"].to_pylist()
    assert made[0]["time"] == dt.datetime(2024, 3, 5, 14, 59, 59, 999_999, dt.UTC)
    birth = event("MEDS_BIRTH", time=None, time_text="05.03.1950[Asia/Tokyo]")
    made = cleaned(birth, times=chosen)["events"].to_pylist()
    assert made[0]["time"] == dt.datetime(1950, 3, 5, tzinfo=dt.UTC)
    assert made[0]["earlier"] is None


def test_day_first_dates_are_read_where_the_study_says_so():
    chosen = times.Options(formats=("%d/%m/%Y",))
    made = cleaned(event(value=90.0, time=None, time_text="03/02/2020"), times=chosen)
    assert made["events"].column("time")[0].as_py().month == 2


@pytest.mark.parametrize(
    "text, order, expected",
    [
        ("03/05/2024", None, "ambiguous_date"),
        ("03/05/2024 10:00", None, "ambiguous_date"),
        ("03/05/2024", "day", (5, 3)),
        ("03/05/2024", "month", (3, 5)),
        ("13/05/2024", None, (5, 13)),
        ("05/13/2024", None, (5, 13)),
        ("05/05/2024", None, (5, 5)),
        ("05/13/2024", "day", "invalid_date"),
        ("13/05/2024", "month", "invalid_date"),
    ],
)
def test_a_date_that_could_be_two_days_is_not_guessed(text, order, expected):
    told = event(value=90.0, unit="mg/dL", time=None, time_text=text)
    made = cleaned(told, times=times.Options(order=order))
    if isinstance(expected, str):
        assert reasons(made) == [expected]
        assert ledger(made) == [("LOINC//2345-7", expected, "rejected", 1)]
    else:
        found = made["events"].column("time")[0].as_py()
        assert (found.month, found.day) == expected


def test_formats_that_a_study_declares_are_the_only_ones():
    chosen = times.Options(formats=("%d/%m/%Y",))
    for text in ("05/13/2024", "2024/05/13"):
        made = cleaned(event(value=90.0, time=None, time_text=text), times=chosen)
        assert reasons(made) == ["invalid_date"]
    with pytest.raises(ValidationError, match="or `order`"):
        times.Options(formats=("%d/%m/%Y",), order="day")


def test_a_text_keeps_the_zone_of_its_source():
    texts = {"01.07.2020 12:00[Europe/Berlin]": 10, "01.07.2020 12:00": 12}
    texts |= {"01.07.2020 12:00[America/New_York]": 16}
    for text, hour in texts.items():
        made = cleaned(event(value=90.0, time=None, time_text=text))
        assert made["events"].column("time")[0].as_py().hour == hour
    made = cleaned(event(value=90.0, time=None, time_text="01.07.2020 12:00[Nowhere]"))
    assert reasons(made) == ["invalid_date"]


def test_a_zone_that_does_not_exist_is_a_fault_of_the_study():
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        times.Options(zone="Europe/Berlim")


@pytest.mark.parametrize("form", ["%m/%d", "%Y-%q-%d", "%A %d %Y"])
def test_a_format_that_cannot_be_read_is_a_fault_of_the_study(form):
    with pytest.raises(ValidationError):
        times.Options(formats=(form,))


def test_events_are_sorted_again_after_their_times_were_read():
    made = cleaned(
        event("A", time=None, time_text="2020/01/09 00:00", record_id="late"),
        event("A", time=None, record_id="static"),
        event("A", record_id="early"),
    )
    assert made["events"].column("record_id").to_pylist() == ["static", "early", "late"]


def test_missing_values_are_refused_and_present_ones_are_not():
    made = cleaned(
        event(text_value=""),
        event("A", text_value="  "),
        event("B", text_value="NULL"),
        event("C", value=math.nan),
        event("D", value=-999.0),
        event("E", value=1.0, text_value=""),
        event("F"),
        event("G", text_value="positive"),
        missing=missing.Options(tokens=("NULL",), sentinels={"D": (-999,)}),
    )
    assert reasons(made) == ["missing_value"] * 5
    assert made["events"].column("code").to_pylist() == ["E", "F", "G=positive"]
    assert made["rejected"].column("record_id").to_pylist() == ["r1"] * 5


@pytest.mark.parametrize(
    ("code", "value", "unit", "expected", "canonical"),
    [
        ("8310-5", 98.6, "[degF]", 37.0, "Cel"),
        ("8310-5", 98.6, "°F", 37.0, "Cel"),
        ("8310-5", 310.15, "K", 37.0, "Cel"),
        ("2160-0", 88.4, "umol/L", 1.0, "mg/dL"),
        ("2160-0", 88.4, "µmol/l", 1.0, "mg/dL"),
        ("2345-7", 5.0, "mmol/L", 90.08, "mg/dL"),
        ("14749-6", 90.08, "mg/dL", 5.0, "mmol/L"),
        ("718-7", 140.0, "g/L", 14.0, "g/dL"),
        ("29463-7", 220.0, "[lb_av]", 99.79032, "kg"),
        ("29463-7", 220.0, "lbs", 99.79032, "kg"),
        ("29463-7", 3400.0, "g", 3.4, "kg"),
        ("8302-2", 70.0, "[in_i]", 177.8, "cm"),
        ("8302-2", 70.0, "in", 177.8, "cm"),
        ("8302-2", 1.78, "m", 178.0, "cm"),
        ("8480-6", 16.0, "kPa", 120.00992, "mm[Hg]"),
        ("1975-2", 17.1, "umol/L", 0.9997686, "mg/dL"),
        ("777-3", 250.0, "x10^9/L", 250.0, "10*3/uL"),
        ("777-3", 250000.0, "/uL", 250.0, "10*3/uL"),
        ("4548-4", 53.0, "mmol/mol", 7.00044, "%"),
        ("2951-2", 140.0, "meq/L", 140.0, "mmol/L"),
        ("8867-4", 70.0, "{beats}/min", 70.0, "/min"),
        ("1988-5", 5.0, "mg/dL", 50.0, "mg/L"),
        ("1742-6", 1.0, "µkat/L", 60.0, "U/L"),
    ],
)
def test_units_come_to_the_canonical_one(code, value, unit, expected, canonical):
    made = cleaned(event(f"LOINC//{code}", value, unit))
    (found,) = made["events"].to_pylist()
    assert found["numeric_value"] == pytest.approx(expected, rel=1e-6)
    assert found["unit"] == canonical
    rule = ("mixed_units", "converted") if value != expected else ("unit_spelling", "respelled")
    assert ledger(made) == [(f"LOINC//{code}", *rule, 1)]


def test_an_unknown_unit_is_refused_only_for_a_number_of_a_code_with_a_canonical_unit():
    made = cleaned(
        event(value=5.0, unit="furlong"),
        event(text_value="high", unit="furlong"),
        event(unit="furlong", record_id="static", time=None),
        event("LOCAL//x", value=5.0, unit="furlong"),
        event(value=100.0, record_id="no unit"),
    )
    assert reasons(made) == ["unknown_unit"]
    assert made["events"].num_rows == 4
    assert ("LOINC//2345-7", "absent_unit", "assumed", 1) in ledger(made)
    strict = units.Options(absent="rejected")
    assert reasons(cleaned(event(value=5.0), units=strict)) == ["unknown_unit"]


def test_a_studys_own_conversion_is_used_and_is_stored_as_it_was_written():
    written = {"code": "LOCAL//*", "from": "stone", "to": "kg", "factor": 6.35029318}
    chosen = units.Options.model_validate({"convert": [written]})
    made = cleaned(event("LOCAL//w", 10.0, "stone"), event("LOCAL//w", 70.0, "kg"), units=chosen)
    assert made["events"].column("numeric_value").to_pylist() == [63.5029318, 70.0]
    stored = chosen.model_dump(mode="json")
    assert stored["convert"] == [{**written, "offset": 0.0}]
    assert units.Options.model_validate(stored) == chosen
    beside = units.Options(
        convert=({"code": "LOINC//29463-7", "from": "stone", "to": "kg", "factor": 6.35},)
    )
    made = cleaned(
        event("LOINC//29463-7", 10.0, "stone"), event("LOINC//29463-7", 100.0, "lb"), units=beside
    )
    assert made["events"].column("numeric_value").to_pylist() == [45.359237, 63.5]


def test_every_canonical_unit_converts_to_itself():
    for quantity in BY_CODE.values():
        assert quantity.conversion(quantity.unit) == (1.0, 0.0)


def test_impossible_values_are_refused_after_conversion():
    made = cleaned(
        event("LOINC//8310-5", 98.6, "[degF]"),
        event("LOINC//8310-5", 98.6, "Cel"),
        event("PHYSIONET//pH", 735.0),
        event("PHYSIONET//Height", 431.8),
        event("PHYSIONET//Temp", -17.8),
        event("LOCAL//x", math.inf),
        event("LOCAL//y", 1e12),
    )
    assert reasons(made) == ["impossible_value"] * 5
    chosen = plausible.Options(bounds={"LOCAL//*": (0, 10), "LOCAL//z": (0, 100)})
    made = cleaned(
        event("LOCAL//y", 11.0), event("LOCAL//y", 10.0), event("LOCAL//z", 11.0), plausible=chosen
    )
    assert made["events"].column("code").to_pylist() == ["LOCAL//y", "LOCAL//z"]
    with pytest.raises(ValidationError):
        plausible.Options(bounds={"x": (2, 1)})


def test_the_first_of_repeated_facts_is_kept_also_across_units_and_sources():
    made = cleaned(
        event(value=90.08, unit="mg/dL", record_id="b"),
        event(value=5.0, unit="mmol/L", record_id="a", source="lab"),
        event(value=90.08, unit="mg/dL", record_id="c", text_value="x"),
        event(value=90.08, unit="mg/dL", record_id="d", text_value="x"),
    )
    assert made["events"].column("record_id").to_pylist() == ["a", "c"]
    assert ("LOINC//2345-7", "duplicate", "removed", 2) in ledger(made)
    assert made["rejected"].num_rows == 0


def test_static_facts_and_facts_without_a_value_repeat_too():
    made = cleaned(*[event("GENDER//female", time=None, record_id=r) for r in "ab"])
    assert made["events"].column("record_id").to_pylist() == ["a"]


def test_every_rule_can_be_switched_off():
    rows = [
        event(text_value=""),
        event("LOINC//8310-5", 98.6, "[degF]", record_id="a"),
        event("LOINC//8310-5", 98.6, "[degF]", record_id="b"),
        event("B", time=None, time_text="20200101"),
    ]
    off = {name: plugins.options("clean", name)(enabled=False) for name, _ in rules()}
    made = cleaned(*rows, **off)
    assert made["events"].num_rows == 4
    assert made["ledger"].num_rows == 0
    assert duplicates.Options() != off["duplicates"]


def test_refusals_hold_no_value_and_name_their_source():
    made = cleaned(event(value=5.0, unit="furlong", source="lab", subject_id=7))
    (row,) = made["rejected"].to_pylist()
    assert row == {
        "subject_id": 7, "source": "lab", "record_id": "r1", "code": "LOINC//2345-7",
        "stage": "clean", "reason": "unknown_unit", "field": "unit", "file": None, "position": None,
    }  # fmt: skip


def test_dictionary_columns_stay_dictionaries():
    acquired = ACQUIRED.rows([event(value=5.0, unit="mmol/L"), event(value=90.0, unit="mg/dL")])
    for name in ("code", "unit", "source"):
        at = acquired.schema.get_field_index(name)
        acquired = acquired.set_column(at, name, acquired.column(name).dictionary_encode())
    made = clean(acquired, {})["events"]
    assert pa.types.is_dictionary(made.schema.field("unit").type)
    assert made.column("unit").to_pylist() == ["mg/dL", "mg/dL"]

"""What is told at one moment: whole records, doses that look alike, units that are a part of it."""

from __future__ import annotations

import datetime as dt
import itertools

import pyarrow as pa
import pytest
from tests.unit.test_clean import NOON, cleaned, event
from tests.unit.test_clean_records import stay

from clinloom import features
from clinloom.clean import clean, duplicates, units
from clinloom.features import Feature
from clinloom.tables import ACQUIRED, INDEX

MOMENT = INDEX.rows([{"subject_id": 1, "prediction_time": NOON + dt.timedelta(hours=1)}])


def last(rows, *codes):
    """The last number of each code, as a feature of what cleaning gives."""
    made = cleaned(*sorted(rows, key=lambda row: (row["code"], row["numeric_value"])))["events"]
    names = [f"measurements|{code}|last|all" for code in codes]
    listed = [Feature.named(name, modality="records") for name in names]
    return features.compute(made, MOMENT, listed).column("values")[0].as_py()


def panel(record, **values):
    return [event(code, value, record_id=record) for code, value in values.items()]


def test_the_last_of_several_codes_is_of_one_record():
    rows = panel("r1", Na=140.0, K=4.0) + panel("r2", Na=135.0, K=5.0)
    assert last(rows, "Na", "K") == [135.0, 5.0]
    rows = panel("r2", Na=140.0, K=4.0) + panel("r1", Na=135.0, K=5.0)
    assert last(rows, "Na", "K") == [140.0, 4.0]


def test_the_record_that_tells_most_comes_before_one_that_tells_less():
    rows = panel("r1", Na=135.0, K=5.0, Cl=100.0) + panel("r2", Na=140.0) + panel("r3", K=6.0)
    assert last(rows, "Na", "K", "Cl") == [135.0, 5.0, 100.0]
    rows = panel("r1", Na=135.0, K=5.0) + panel("r2", Na=140.0, Cl=100.0) + panel("r3", K=6.0)
    assert last(rows, "Na", "K", "Cl") == [140.0, 5.0, 100.0]  # as far as there is one


def test_what_two_records_say_alike_is_still_of_the_record_that_said_it():
    rows = panel("r1", Na=140.0, K=4.0) + panel("r2", Na=140.0, K=5.0)
    assert last(rows, "Na", "K") == [140.0, 4.0]


@pytest.mark.parametrize(
    "earlier, later",
    [
        ("lab.csv@90", "lab.csv@100"),
        ("Observation/9", "Observation/10"),
        ("a7", "b1"),
        ("x", "x0"),
        (None, "a"),
        ("r7", "r007"),
    ],
)
def test_records_that_tell_as_much_stand_by_their_names(earlier, later):
    rows = [event("Na", 1.0, record_id=later), event("Na", 2.0, record_id=earlier)]
    assert last(rows, "Na") == [1.0]
    twice = [event("Na", value, record_id=later) for value in (3.0, 1.0)]
    assert last([*twice, rows[1]], "Na") == [3.0]


def test_no_order_of_input_changes_which_is_last():
    rows = [*panel("r1", Na=140.0, K=4.0), *panel("r2", Na=135.0, K=5.0), *panel("r3", K=6.0)]
    rows.append(event("Na", 135.5, record_id="r2", source="lab"))
    rows.append(event("K", None, record_id="r4", text_value="hemolysed"))
    codes = [[row for row in rows if row["code"] == code] for code in ("K", "Na")]  # as they come
    orders = [*itertools.product(*map(itertools.permutations, codes))]
    assert len(orders) == 24 * 6
    found = set()
    for potassium, sodium in orders:
        made = clean(ACQUIRED.rows([*potassium, *sodium]), {})["events"]
        made = made.select(["code", "numeric_value", "record_id", "source"])
        found.add(str(made.to_pylist()))
    assert len(found) == 1


def test_other_moments_and_patients_do_not_count_into_a_record():
    later = NOON + dt.timedelta(minutes=5)
    rows = [
        *panel("r1", Na=140.0),
        *panel("r2", Na=135.0),
        event("Cl", 1.0, record_id="r1", time=later),
        event("Cl", 1.0, record_id="r1", subject_id=2),
    ]
    made = cleaned(*sorted(rows, key=lambda row: (row["subject_id"], row["time"])))["events"]
    assert made.column("numeric_value").to_pylist() == [140.0, 135.0, 1.0, 1.0]


# ---- facts that look alike

DOSE = {"value": 500.0, "unit": "mg"}


def records(*rows, **options):
    return cleaned(*rows, **options)["events"].column("record_id").to_pylist()


@pytest.mark.parametrize(
    "code, kind",
    [
        ("RXNORM//161", "MedicationAdministration"),
        ("HOSPITAL//paracetamol", "MedicationAdministration"),
        ("SNOMED//387517004", "MedicationDispense"),
        ("LOCAL//flu", "Immunization"),
        ("ATC//N02BE01", "emar"),
        ("MEDICATION//paracetamol", "emar"),
    ],
)
def test_two_equal_doses_of_one_moment_are_two(code, kind):
    two = [event(code, record_id=f"{kind}/{n}", **DOSE) for n in (1, 2)]
    assert records(*two) == [f"{kind}/1", f"{kind}/2"]
    assert records(two[0], *two) == [f"{kind}/1", f"{kind}/2"]
    elsewhere = [
        {**row, "source": "copy", "record_id": f"{kind}/x{n}"} for n, row in enumerate(two)
    ]
    assert records(*two, *elsewhere) == [f"{kind}/1", f"{kind}/2"]
    assert records(*two, duplicates=duplicates.Options(distinct=())) == [f"{kind}/1"]


@pytest.mark.parametrize(
    "place", ["emar.csv@{}", "@{}", "a/part.parquet#{}", "x.pq#{}", "#{}", "b.ndjson@{}"]
)
def test_a_row_that_has_only_its_place_for_a_name_is_told_again_and_no_second_dose(place):
    rows = [event("RXNORM//161", record_id=place.format(n), **DOSE) for n in (10, 20)]
    assert len(records(*rows)) == 1
    stays = [stay(place.format(n)) for n in (10, 20)]
    assert len(records(*stays)) == 1


def test_a_row_with_a_key_of_its_own_is_a_dose_of_its_own():
    rows = [event("RXNORM//161", record_id=f"emar#{n}", **DOSE) for n in (10, 20)]
    assert len(records(*rows)) == 2
    seen = [event("LOINC//2160-0", 1.0, "mg/dL", record_id=f"Observation/{n}") for n in (1, 2)]
    assert records(*seen) == ["Observation/1"]  # a measurement that is told twice


def test_a_unit_is_a_part_of_the_fact():
    rows = [event("X", 5.0, unit, record_id=unit) for unit in ("mg/dL", "mmol/L", "mg/dL")]
    assert records(*rows) == ["mg/dL", "mmol/L"]
    assert records(*rows, units=units.Options(enabled=False)) == ["mg/dL", "mmol/L"]
    same = [
        event("LOINC//2345-7", v, u, record_id=u) for v, u in ((90.08, "mg/dL"), (5.0, "mmol/L"))
    ]
    assert records(*same) == ["mg/dL"]


def test_an_unmoved_table_is_handed_on_without_a_copy():
    rows = [event("A", 1.0, record_id="r1"), event("A", 2.0, record_id="r2")]
    acquired = ACQUIRED.rows(rows)
    made = clean(acquired, {})["events"]
    assert made.column("record_id").to_pylist() == ["r1", "r2"]
    mine, theirs = (t.column("record_id").chunk(0).buffers()[2] for t in (made, acquired))
    assert mine.address == theirs.address and isinstance(made, pa.Table)

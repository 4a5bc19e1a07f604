"""One unit a code, also of codes that no vocabulary knows: learned once, held for everybody."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.test_clean import NOON, event, ledger, reasons

from clinloom.clean import canonical, clean, unconverted, units, units_of
from clinloom.deploy.bundle import Bundle, publish
from clinloom.deploy.scorer import Scorer
from clinloom.features import Feature
from clinloom.files import address
from clinloom.learn.preparation import learn
from clinloom.run import acquire, tallies
from clinloom.run.sums import MEASURED, measured
from clinloom.tables import ACQUIRED
from clinloom.vocabulary.ucum import converted, reading

CODE = "LAB//TROPONIN-HS"


def counts(told, code=CODE):
    return MEASURED.rows({"code": code, "unit": u, "events": n} for u, n in told.items())


def learned(told, code=CODE, **chosen):
    return units_of(counts(told, code), {"units": units.Options(**chosen)})


def decided(told, **chosen):
    return canonical(learned(told, **chosen))


def actions(told, **chosen):
    return {row["unit"]: row["action"] for row in learned(told, **chosen).to_pylist()}


def cleaned(*rows, told, **chosen):
    options = {"units": units.Options(**chosen)}
    return clean(ACQUIRED.rows(rows), options, learned=decided(told, **chosen))


@pytest.mark.parametrize(
    "unit, other, factor",
    [
        ("ng/mL", "ng/L", 1000),
        ("ng/L", "ug/L", 1e-3),
        ("lb", "kg", 0.45359237),
        ("[oz_av]", "g", 28.349523125),
        ("MG/DL", "g/L", 0.01),
        ("x10^9/L", "/uL", 1000),
        ("K/uL", "10*9/L", 1),
        ("mIU/L", "uU/mL", 1),
        ("mL/min", "mL/h", 60),
        ("mcg/kg/min", "mg/kg/h", 0.06),
        ("mg/100mL", "mg/dL", 1),
        ("mL/min/1.73m2", "mL/min/{1.73_m2}", 1),
        ("m2", "cm2", 1e4),
        ("kPa", "mm[Hg]", 7.500617),
        ("min-1", "{beats}/min", 1),
        ("L/L", "%", 100),
        ("a", "mo", 12),
        ("mmol/L", "mg/dL", None),
        ("mmol/L", "meq/L", None),
        ("kg", "cm", None),
        ("kg", "furlong", None),
        ("MU", "U", None),  # a million units, or a thousandth of one
        ("%", "10*3", None),
        ("{score}", "{points}", None),
        ("mg/24.h", "mg/h", None),
        ("/[HPF]", "/uL", None),
    ],
)
def test_units_convert_by_their_parts_or_not_at_all(unit, other, factor):
    found = converted(unit, other)
    if factor is None:
        assert found is None
    else:
        assert found[0] == pytest.approx(factor, rel=1e-6) and found[1] == 0
        assert converted(unit, unit) == (1.0, 0.0) and reading(other) is not None


def test_degrees_convert_with_their_zero():
    factor, offset = converted("[degF]", "Cel")
    assert 98.6 * factor + offset == pytest.approx(37.0)
    factor, offset = converted("Cel", "K")
    assert 37.0 * factor + offset == pytest.approx(310.15)


def test_what_converts_comes_to_the_commonest_unit_of_the_code():
    told = {"ng/L": 900, "ng/mL": 100, "NG/L": 5, "": 3}
    assert decided(told) == {CODE: "ng/L"}
    assert actions(told) == {
        "ng/L": "kept",
        "ng/mL": "converted",
        "NG/L": "respelled",
        None: "assumed",
    }
    rows = [event(CODE, 14.0, "ng/L"), event(CODE, 0.02, "ng/mL"), event(CODE, 20.5)]
    made = cleaned(*rows, told=told)
    assert made["events"].column("numeric_value").to_pylist() == [14.0, 20.0, 20.5]
    assert made["events"].column("unit").to_pylist() == ["ng/L"] * 3
    assert ledger(made) == [
        (CODE, "absent_unit", "assumed", 1),
        (CODE, "mixed_units", "converted", 1),
    ]
    assert not list(unconverted(learned(told)))
    strict = cleaned(*rows, told=told, absent="rejected")
    assert reasons(strict) == ["unknown_unit"]


def test_the_commonest_quantity_wins_and_not_its_commonest_spelling():
    told = {"mg/dL": 40, "g/L": 35, "mmol/L": 60}
    assert decided(told) == {CODE: "mg/dL"}
    assert actions(told) == {"mg/dL": "kept", "g/L": "converted", "mmol/L": "several_units"}


def test_what_nothing_converts_is_refused_counted_and_told_with_units_and_numbers():
    told = {"mg/dL": 1000, "mmol/L": 20}
    rows = [event(CODE, 5.0, "mg/dL", record_id="a"), event(CODE, 5.0, "mmol/L", record_id="b")]
    made = cleaned(*rows, told=told)
    assert made["events"].column("record_id").to_pylist() == ["b", "a"]
    assert made["events"].column("numeric_value").to_pylist() == [None, 5.0]  # the fact stays
    assert reasons(made) == ["several_units"]
    assert ledger(made) == [(CODE, "several_units", "rejected", 1)]
    (line,) = unconverted(learned(told))
    assert f"{CODE} came in the units mg/dL (1,000), mmol/L (20)" in line
    assert "20 refused" in line and "clean.units.convert" in line
    both = cleaned(*rows, told=told, several="rejected")
    assert reasons(both) == ["several_units"] * 2
    assert "no number is kept, 1,020 refused" in next(
        unconverted(learned(told, several="rejected"))
    )
    own = {"code": CODE, "from": "mmol/L", "to": "mg/dL", "factor": 18.0}
    own = (units.Convert.model_validate(own),)
    made = cleaned(*rows, told=told, convert=own)
    assert made["events"].column("numeric_value").to_pylist() == [5.0, 90.0]
    assert actions(told, convert=own) == {"mg/dL": "kept", "mmol/L": "converted"}


def test_annotations_are_units_where_they_are_all_there_is():
    told = {"{tablet}": 9, "{puff}": 2, "{TABLET}": 1}
    assert actions(told) == {
        "{tablet}": "kept",
        "{puff}": "several_units",
        "{TABLET}": "respelled",
    }


def test_many_such_codes_are_told_in_a_few_lines():
    told = [counts({"kg": n, "furlong": n}, f"X//{n}") for n in range(1, 15)]
    lines = list(unconverted(units_of(pa.concat_tables(told), {}), most=3))
    assert len(lines) == 4 and lines[0].startswith("X//14 ") and lines[3].startswith("11 more")


def test_one_unit_or_none_needs_no_decision_and_known_codes_keep_theirs():
    assert actions({"furlong": 5}) == {"furlong": "kept"}
    assert learned({"": 7}).num_rows == 0
    known = units_of(counts({"mmol/L": 9, "mg/dL": 1, "furlong": 2}, "LOINC//2345-7"), {})
    assert canonical(known) == {}
    found = {row["unit"]: row["action"] for row in known.to_pylist()}
    assert found == {"mmol/L": "converted", "mg/dL": "kept", "furlong": "unknown_unit"}
    assert (
        units_of(counts({"kg": 1, "m": 1}), {"units": units.Options(enabled=False)}).num_rows == 0
    )
    assert not reasons(cleaned(event(CODE, 5.0, "furlong"), told={"furlong": 5}))


def test_numbers_are_counted_by_code_and_unit_however_they_are_parted():
    rows = [event(CODE, 1.0, u) for u in ("kg", "lb", None, "kg")]
    rows += [event("B", 1.0), event("C", unit="kg", text_value="x"), event("D", np.nan, "kg")]
    table = ACQUIRED.rows(rows)
    expected = {(CODE, "kg"): 2, (CODE, "lb"): 1, (CODE, ""): 1, ("B", ""): 1}
    assert measured(table) == expected
    assert measured(table[:3]) + measured(table[3:]) == expected
    at = table.schema.get_field_index("unit")
    coded = table.set_column(at, "unit", table.column("unit").dictionary_encode())
    assert measured(coded) == expected
    assert measured(table.drop_columns("unit")) == {(CODE, ""): 4, ("B", ""): 1}


def test_acquisition_counts_units_on_its_way_and_takes_them_out_of_the_ledger(tmp_path):
    from clinloom import plugins

    file = tmp_path / "weights.csv"
    rows = ["k,p,t,w,u", "W,1,2024-01-01,70,kg", "W,2,2024-01-01,154,lb", "W,3,2024-01-01,80,kg"]
    file.write_text("\n".join(rows))
    columns = {"patient": "p", "time": {"column": "t"}, "code": {"column": "k"}}
    options = plugins.options("sources", "table")(
        type="table", path=str(file), value="w", unit="u", **columns
    )
    kind = plugins.load("sources", "table")
    given = {"source": "s", "units": list(kind.plan(options, "sources.s"))}
    told = pa.concat_tables(
        made["ledger"] for made in acquire.read(given, sources={"s": options}) if "ledger" in made
    )
    found = {(r["code"], r["unit"]): r["events"] for r in tallies.measured(told).to_pylist()}
    assert found == {("W", "kg"): 2, ("W", "lb"): 1}


def scorer():
    statistics = learn(np.arange(10.0)[:, None], lower=0.01, upper=0.99)
    arrays = {"coefficients": np.ones(1), "intercept": np.zeros(1)}
    return Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.5)


def test_a_patient_who_is_scored_alone_is_read_in_the_units_of_training(tmp_path):
    place = address(tmp_path) / "bundle"
    feature = Feature.named("measurements|W|last|all", modality="records")
    publish(
        place,
        scorer=scorer(),
        study={"name": "s", "clean": {}},
        features=[feature],
        units=canonical(units_of(counts({"kg": 9, "lb": 1}, "W"), {})),
        evidence={},
        check=lambda: None,
    )
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["units"] == {"W": "kg"}
    bundle = Bundle.load(place)
    bundle.__dict__["resolved"] = type("Resolved", (), {"clean": {}})()
    alone = {"subject_id": 1, "time": NOON, "code": "W"}

    def risk(value, unit):
        events = [{**alone, "numeric_value": value, "unit": unit}, {**alone, "code": "OTHER"}]
        made = bundle.predict(events, at=NOON.replace(hour=13))
        return made.column("predicted_boolean_probability")[0].as_py(), made.schema.metadata

    assert risk(9.5, "kg")[0] == pytest.approx(risk(9.5 / 0.45359237, "lb")[0], rel=1e-9)
    assert risk(2.0, "kg")[0] != risk(2.0, "lb")[0]
    assert risk(2.0, None)[0] == risk(2.0, "kg")[0]
    assert json.loads(risk(2.0, "furlong")[1][b"rejected"]) == {"several_units": 1}

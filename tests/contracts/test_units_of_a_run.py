"""Units through a whole run: learned over all files, told, in the bundle, held in scoring."""

from __future__ import annotations

import datetime as dt
import io

import numpy as np
import pyarrow.parquet as pq
import pytest

import clinloom
from clinloom import plugins
from clinloom import study as studies
from clinloom.run import api as spine
from clinloom.run.progress import Progress

START = dt.datetime(2024, 1, 1)
POUND = 0.45359237
N = 120


def hospital(folder, patients, pounds):
    """Weights in two files and units, a dose in three; whoever is heavy has the outcome."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    kilograms = random.uniform(50, 110, N)
    heavy = kilograms + random.normal(0, 15, N) > 80
    files = {"a": [], "b": []}
    for n in patients:
        in_pounds = pounds(n)
        weight = kilograms[n] / POUND if in_pounds else kilograms[n]
        rows = files["b" if in_pounds else "a"]
        day = START + dt.timedelta(days=n)
        rows.append((n, day, "WEIGHT", f"{weight:.9f}", "lb" if in_pounds else "kg"))
        unit = "{tbl}" if n % 10 == 0 else "mg" if n % 2 else "g"
        rows.append((n, day, "DOSE", "0.5" if unit == "g" else "500", unit))
        rows.append((n, day + dt.timedelta(days=1), "SEEN", "", ""))
        if heavy[n]:
            rows.append((n, day + dt.timedelta(days=3), "HARM", "", ""))
    for name, rows in files.items():
        lines = [",".join(map(str, row)) for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["who,when,what,value,unit", *lines, ""]))


def study(folder):
    lab = {"type": "table", "path": str(folder), "patient": "who", "time": {"column": "when"}}
    lab |= {"code": {"column": "what"}, "value": "value", "unit": "unit"}
    return {
        "name": "units",
        "sources": {"lab": lab},
        "cohort": {
            "index": {"at": "SEEN", "plus": "1h"},
            "outcome": {"codes": "HARM", "within": "30d"},
        },
        "features": {"measurements": {"statistics": ["last"], "windows": ["all"]}},
        "models": {"logistic_regression": {"penalty": [0.02], "elastic_net": [0.0]}},
        "split": {"folds": 2},
        "evaluate": {"bootstrap": 20},
    }


@pytest.fixture(scope="module")
def done(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    hospital(folder / "data", range(N), lambda n: n % 3 == 0)
    told = io.StringIO()
    made = spine.run(
        studies.parse(study(folder / "data"), rooms=plugins),
        out=folder / "out",
        spark=spark,
        progress=Progress(stream=told),
    )
    return made, told.getvalue()


def test_units_are_counted_over_all_files_and_decided_once(done):
    made, _ = done
    found = {
        (r["code"], r["unit"]): (r["events"], r["canonical"], r["action"])
        for r in made.table("units").read().to_pylist()
    }
    assert found == {
        ("WEIGHT", "kg"): (80, "kg", "kept"),
        ("WEIGHT", "lb"): (40, "kg", "converted"),
        ("DOSE", "mg"): (60, "mg", "kept"),
        ("DOSE", "g"): (48, "mg", "converted"),
        ("DOSE", "{tbl}"): (12, "mg", "several_units"),
    }
    events = made.table("events").read().to_pylist()
    weights = [e["numeric_value"] for e in events if e["code"] == "WEIGHT"]
    assert len(weights) == N and 50 <= min(weights) and max(weights) <= 110
    doses = [e["numeric_value"] for e in events if e["code"] == "DOSE"]
    assert sorted(map(str, set(doses))) == ["500.0", "None"] and doses.count(None) == 12
    ledger = {(r["code"], r["rule"]): r["count"] for r in made.table("ledger").read().to_pylist()}
    assert ledger["WEIGHT", "mixed_units"] == 40 and ledger["DOSE", "several_units"] == 12


def test_the_command_line_and_the_report_tell_codes_units_and_numbers(done):
    made, told = done
    line = "DOSE came in the units mg (60), g (48), {tbl} (12), of which not all convert"
    assert line in told and "WEIGHT came" not in told
    assert line in made.report.path.read_text()


def test_a_patient_alone_and_a_batch_in_pounds_are_read_in_the_units_of_training(
    spark, done, tmp_path
):
    made, _ = done
    bundle = clinloom.load_bundle(made.out / "bundle")
    assert bundle.units == {"DOSE": "mg", "WEIGHT": "kg"}
    hospital(tmp_path / "new", range(20), lambda n: True)  # whose commonest unit is the pound
    out = tmp_path / "risk.parquet"
    changes = [f"sources.lab.path={tmp_path / 'new'}"]
    spine.score(made.out / "bundle", out=out, overrides=changes, spark=spark)
    batch = pq.read_table(out).column("predicted_boolean_probability").to_pylist()
    alone = []
    lines = (tmp_path / "new" / "b.csv").read_text().splitlines()[1:]
    for n in range(20):
        rows = [line.split(",") for line in lines if line.startswith(f"{n},")]
        events = [
            {
                "subject_id": n,
                "time": dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC),
                "code": what,
                "numeric_value": float(value) if value else None,
                "unit": unit or None,
            }
            for _, when, what, value, unit in rows
        ]
        (risk,) = bundle.predict(events).column("predicted_boolean_probability").to_pylist()
        alone.append(risk)
    assert sorted(alone) == pytest.approx(sorted(batch), abs=1e-9)
    assert max(alone) - min(alone) > 0.2

"""The FHIR and table sources on public data, each against a slow and obvious reading of it."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from clinloom import files, plugins
from clinloom.tables import PARCELS, conform

EXAMPLES = Path(__file__).parents[2] / "examples"


def need(data: Path, name: str) -> Path:
    file = data / name
    if not file.exists():
        pytest.skip(f"{name} is not in the folder of public data")
    return file


def parcels(options, pieces=None) -> dict[str, pa.Table]:
    """Everything that a source gives, in groups as the engine cuts them."""
    module = plugins.load("sources", options.type)
    units = list(module.plan(options, "sources.real")) if pieces is None else pieces
    parts: dict[str, list[pa.Table]] = {n: [t.empty] for n, t in PARCELS.items()}
    for group in files.groups(units, cores=2):
        for parcel in module.read(group, options, "real"):
            for name, table in parcel.items():
                parts[name].append(conform(table, PARCELS[name]))
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def example(study: str, source: str, path: Path):
    """A source of an example study, read from where the data lie."""
    given = yaml.safe_load((EXAMPLES / study).read_text())["sources"][source]
    options = plugins.options("sources", given["type"])
    return options.model_validate({**given, "path": str(path)})


def test_physionet_2012_stays(data):
    path = need(data, "physionet2012/set-a.zip")
    found = parcels(example("physionet2012.yaml", "stays", path))
    events = found["events"]
    assert found["rejected"].num_rows == 0
    assert len(pc.unique(events["patient"])) == 3996
    assert found["links"].num_rows == 3996
    admitted = pc.equal(events["code"], "PHYSIONET//RecordID")
    assert pc.sum(admitted.cast(pa.int64())).as_py() == 3996
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(".txt")]
        lines = sum(archive.read(n).count(b"\n") for n in names[:200])
        expected = Counter()
        for name in names[100:130]:
            stay = Path(name).stem
            for row in list(csv.reader(io.StringIO(archive.read(name).decode())))[1:]:
                hours, minutes = map(int, row[0].split(":"))
                time = dt.datetime(2012, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
                    hours=hours, minutes=minutes
                )
                value = None if row[1] == "RecordID" or float(row[2]) == -1 else float(row[2])
                expected[stay, time, f"PHYSIONET//{row[1]}", value] += 1
    chosen = pa.array([Path(n).stem for n in names[100:130]])
    some = events.filter(pc.is_in(events["patient"], chosen))
    columns = [some[c].to_pylist() for c in ("patient", "time", "code", "numeric_value")]
    assert Counter(zip(*columns, strict=True)) == expected
    first = pa.array([Path(n).stem for n in names[:200]])
    assert pc.sum(pc.is_in(events["patient"], first).cast(pa.int64())).as_py() == lines - 200
    blank = events.filter(pc.equal(events["text_value"], ""))
    assert blank.num_rows and blank["numeric_value"].null_count == blank.num_rows


def test_physionet_2012_outcomes(data):
    path = need(data, "physionet2012/Outcomes-a.txt")
    found = parcels(example("physionet2012.yaml", "outcomes", path))
    rows = list(csv.DictReader(path.open()))
    died = {r["RecordID"] for r in rows if r["In-hospital_death"] == "1"}
    assert set(found["events"]["patient"].to_pylist()) == died
    assert set(found["events"]["code"].to_pylist()) == {"OUTCOME//IN_HOSPITAL_DEATH"}
    assert found["links"].num_rows == len(rows)


def test_ham10000_metadata(data):
    path = need(data, "ham10000/metadata.csv")
    found = parcels(example("ham10000.yaml", "metadata", path))
    rows = list(csv.DictReader(path.open()))
    expected = Counter()
    for row in rows:
        expected["GENDER//" + row["sex"]] += 1
        expected["SITE//" + row["localization"]] += 1
        expected["AGE"] += 1
        expected["OUTCOME//MALIGNANT"] += row["malignant"] == "1"
    events = found["events"]
    assert Counter(events["code"].to_pylist()) == expected
    ages = events.filter(pc.equal(events["code"], "AGE"))
    empty = [r["lesion_id"] for r in rows if not r["age"]]
    assert ages.filter(pc.equal(ages["text_value"], ""))["patient"].to_pylist() == empty
    assert found["rejected"].num_rows == 0


@pytest.fixture(scope="module")
def synthea(data):
    path = need(data, "synthea_r4/bundles.zip")
    options = plugins.options("sources", "fhir")(path=str(path))
    chosen = list(files.listing(str(path)))[:60]
    with zipfile.ZipFile(path) as archive:
        bundles = [json.loads(gzip.decompress(archive.read(p.member))) for p in chosen]
    return parcels(options, chosen), bundles


def resources(bundles, kind):
    return [
        e["resource"] for b in bundles for e in b["entry"] if e["resource"]["resourceType"] == kind
    ]


def test_synthea_observations(synthea):
    found, bundles = synthea
    expected = Counter()
    for given in resources(bundles, "Observation"):
        time = dt.datetime.fromisoformat(given["issued"])
        patient = given["subject"]["reference"].replace("urn:uuid:", "Patient/")
        for part in [given, *given.get("component", [])]:
            coding = part["code"]["coding"][0]
            value = part.get("valueQuantity", {}).get("value")
            if part is not given or value is not None or "component" not in given:
                expected[patient, time, "LOINC//" + coding["code"], value] += 1
    events = found["events"]
    some = events.filter(pc.starts_with(events["record_id"], "Observation/"))
    columns = [some[c].to_pylist() for c in ("patient", "time", "code", "numeric_value")]
    assert Counter(zip(*columns, strict=True)) == expected


def test_synthea_people_and_their_care(synthea):
    found, bundles = synthea
    people = resources(bundles, "Patient")
    counts = Counter(code.split("//")[0] for code in found["events"]["code"].to_pylist())
    assert counts["MEDS_BIRTH"] == len(people) == len(bundles)
    assert counts["MEDS_DEATH"] == sum("deceasedDateTime" in p for p in people)
    assert counts["ENCOUNTER"] == 2 * len(resources(bundles, "Encounter"))
    assert counts["RXNORM"] == len(resources(bundles, "MedicationRequest"))
    assert counts["IMAGINGSTUDY"] >= len(resources(bundles, "ImagingStudy")) > 0
    numbers = {
        (f"Patient/{p['id']}", i["value"])
        for p in people
        for i in p["identifier"]
        if i.get("type", {}).get("coding", [{}])[0].get("code") == "MR"
    }
    pairs = set(zip(*[found["links"][c].to_pylist() for c in ("patient", "other")], strict=True))
    assert pairs == numbers | {(f"Patient/{p['id']}",) * 2 for p in people}
    assert found["rejected"].num_rows == 0
    assert found["events"]["time_text"].null_count == found["events"].num_rows
    left_out = {row["code"]: row["count"] for row in found["ledger"].to_pylist()}
    assert left_out["Claim"] >= 0 and sum(left_out.values()) > 0


def test_the_official_examples_of_fhir_r4_hold_nothing_malformed(data):
    path = need(data, "conformance/fhir_r4_examples.zip")
    found = parcels(plugins.options("sources", "fhir")(path=str(path)))
    reasons = Counter(found["rejected"]["reason"].to_pylist())
    assert not {r for r in reasons if r.startswith("malformed")}
    assert found["events"].num_rows > 200
    assert set(reasons) <= {
        "no_time",
        "no_code",
        "no_patient",
        "entered_in_error",
        "not_done",
        "cancelled",
        "in_progress",  # dispenses that were not handed over
        "on_hold",
        "differential",
        "unknown_status",
        "not_a_resource",
    }

"""The example studies on three patients each, recomputed from the raw files by another hand.

What a file says, when, who is in the cohort and every feature are worked out from CSV, JSON and
Parquet without Clinloom (``by_hand``). Each study then runs its own kernels on the same patients'
raw files, and both must agree.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.reference.by_hand import (
    DAY,
    HOUR,
    MICROSECOND,
    UNIX,
    YEAR,
    Fact,
    Facts,
    Family,
    Rows,
    demographics,
    expected,
    moment,
    numbered,
    started,
    us,
)

from clinloom import clean as cleaning
from clinloom import cohort, features, files
from clinloom.events import STATIC
from clinloom.features._summaries import Statistic
from clinloom.run import api, dataset, sums
from clinloom.sources import load
from clinloom.tables import ACQUIRED, REFUSED, conform, matrix

EXAMPLES = Path(__file__).parents[2] / "examples"


def computed(study: str, *overrides: str) -> Rows:
    """The dataset that an example makes of some files, by patient and index time."""
    given = api.read_study(EXAMPLES / study, overrides=overrides)
    parts: dict[str, list[pa.Table]] = {"events": [], "rejected": []}
    names: list[str] = []
    for name, options in given.sources.items():
        kind = load(options.type)
        for group in files.groups(kind.plan(options, f"sources.{name}"), cores=1):
            for parcel in kind.read(group, options, name):
                for table, declared in (("events", ACQUIRED), ("rejected", REFUSED)):
                    if table in parcel:
                        parts[table].append(_numbered(parcel[table], names, declared))
    events = pa.concat_tables(parts["events"])
    columns = (events["subject_id"], events["time"].cast("int64").fill_null(STATIC))
    subject, time = (column.to_numpy() for column in columns)
    code = np.array(events["code"].to_pylist())
    events = events.take(pa.array(np.lexsort((code, time, subject))))
    refused = pa.concat_tables(parts["rejected"]) if parts["rejected"] else REFUSED.empty
    counts = [{"code": c, "unit": u, "events": n} for (c, u), n in sums.measured(events).items()]
    units = cleaning.units_of(pa.Table.from_pylist(counts), given.clean)
    learned = cleaning.canonical(units)
    events = dataset.cleaned(events, refused, options=given.clean, learned=learned)["events"]
    last = pc.max(events["time"]).cast("int64").as_py()
    index = cohort.cohort(events, given.cohort, data_end=last)["index"]
    seen = features.vocabulary(events, index, given.features)
    listed = features.resolve(given.features, seen, index.num_rows)
    made = matrix(features.compute(events, index, listed)).tolist()
    times = index["prediction_time"].cast("int64").to_pylist()
    keys = zip((names[n] for n in index["subject_id"].to_pylist()), times, strict=True)
    told = zip(index["boolean_value"].to_pylist(), made, strict=True)
    return {
        key: (outcome, dict(zip([f.name for f in listed], row, strict=True)))
        for key, (outcome, row) in zip(keys, told, strict=True)
    }


def _numbered(table: pa.Table, names: list[str], declared: Any) -> pa.Table:
    """A parcel's table with a number for each patient's own name."""
    patients = table["patient"].cast(pa.string()).to_pylist()
    names += sorted({p for p in patients if p is not None} - set(names))
    places = pa.array([None if p is None else names.index(p) for p in patients], pa.int64())
    return conform(table.append_column("subject_id", places), declared)


def same(mine: Rows, theirs: Rows, *, moments: int, numbers: int) -> None:
    """Both have the same rows with the same features, to nine decimals."""
    assert mine.keys() == theirs.keys()
    assert len(mine) >= moments
    for key, (outcome, values) in mine.items():
        other, found = theirs[key]
        assert outcome == other
        assert values.keys() == found.keys()
        assert sum(not math.isnan(v) for v in values.values()) >= numbers
        for name, value in values.items():
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name
    assert {outcome for outcome, _ in mine.values()} == {True, False}


def need(data: Path, name: str) -> Path:
    """A folder of public data; the test is skipped where it is not there."""
    if not (data / name).exists():
        pytest.skip(f"{name} is not in the folder of public data")
    return data / name


CALLED = {"cp": "CHEST_PAIN", "restecg": "ECG", "thal": "THALLIUM"}


def test_heart_disease(data, tmp_path):
    """CSV files of two hospitals, a row a patient."""
    folder = need(data, "heart_uci")
    facts: Facts = {}
    start = us(2000, 1, 1)
    for hospital, chosen in (("cleveland", [1, 87]), ("hungarian", [250])):
        name = f"processed.{hospital}.data"
        header, *rows = (folder / name).read_text().splitlines()
        kept = [header, *(rows[n] for n in chosen)]
        (tmp_path / name).write_text("\n".join(kept) + "\n")
        at = len(header) + 1
        for line in kept[1:]:
            row = dict(zip(header.split(","), line.split(","), strict=True))
            mine: list[Fact] = [(start, "VISIT", None)]
            for column, cell in row.items():
                if cell in ("?", ""):
                    continue
                if column in CALLED:
                    mine.append((start, f"{CALLED[column]}//{int(float(cell))}", None))
                elif column != "target":
                    mine.append((start, f"HEART//{column}", float(cell)))
                elif float(cell) > 0:
                    mine.append((start + 9 * DAY, "OUTCOME", None))
            facts[f"{name}@{at}"] = mine
            at += len(line) + 1
    moments = [
        (patient, start + DAY, any(code == "OUTCOME" for _, code, _ in mine))
        for patient, mine in facts.items()
    ]
    families = [
        Family("measurements", numbered("HEART//"), ("last",), {"all": None}),
        Family(
            "codes", started(("CHEST_PAIN//", "ECG//", "THALLIUM//")), ("present",), {"all": None}
        ),
    ]
    found = computed("heart_uci.yaml", f"sources.visits.path={tmp_path}")
    same(expected(facts, moments, families), found, moments=3, numbers=12)


def test_intensive_care(data, tmp_path):
    """Parquet files with a row an hour and a row a stay."""
    folder = need(data, "yaib_demo/mortality24/eicu_demo")
    facts: Facts = {}
    start = us(2020, 1, 1)
    for name in ("dyn", "sta", "outc"):
        table = pq.read_table(folder / f"{name}.parquet")
        table = table.filter(pc.is_in(table["stay_id"], pa.array([141765, 176730, 261520])))
        pq.write_table(table, tmp_path / f"{name}.parquet")
        for row in table.to_pylist():
            mine = facts.setdefault(str(row.pop("stay_id")), [])
            if name == "dyn":
                time = start + row.pop("time") // MICROSECOND
                told = [(time, f"ICU//{column}", value) for column, value in row.items()]
            elif name == "sta":
                mine += [(start, "GENDER//" + row.pop("sex"), None), (start, "ADMISSION", None)]
                told = [(start, f"STAY//{column}", value) for column, value in row.items()]
            else:
                told = [(us(2020, 2, 1), "OUTCOME", float(row["label"]) or None)]
            mine += [(t, c, v) for t, c, v in told if v is not None and not math.isnan(v)]
    moments = [
        (patient, start + 25 * HOUR, any(code == "OUTCOME" for _, code, _ in mine))
        for patient, mine in facts.items()
    ]
    statistics = get_args(Statistic)  # more than the study's
    families = [
        demographics(age=False),
        Family("measurements", numbered("ICU//"), statistics, {"all": None}),
        Family("measurements", numbered("STAY//"), ("last",), {"all": None}),
    ]
    paths = {"hours": "dyn", "stays": "sta", "deaths": "outc"}
    sets = [f"sources.{name}.path={tmp_path / file}.parquet" for name, file in paths.items()]
    sets.append(f"features.measurements.statistics=[{', '.join(statistics)}]")
    found = computed("yaib_mortality.yaml", *sets)
    same(expected(facts, moments, families), found, moments=3, numbers=70)


GONE = {"11", "13", "14", "19", "20", "21"}  # dead, or in a hospice
NAMED = ("admission_type_id", "admission_source_id", "discharge_disposition_id")


def test_readmission(data, tmp_path):
    """A CSV file in an archive, with a row a stay and several stays a patient."""
    folder = need(data, "diabetes130")
    with zipfile.ZipFile(folder / "diabetic_data.zip") as archive:
        text = archive.read("diabetic_data.csv").decode()
    header, *lines = text.splitlines()
    chosen = ("1719279", "430092", "110907864")
    lines = [line for line in lines if line.split(",", 2)[1] in chosen]
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("diabetic_data.csv", "\n".join([header, *lines]) + "\n")
    facts: Facts = {}
    moments = []
    start, second = us(2000, 1, 1), 1_000_000
    for row in csv.DictReader([header, *lines]):
        patient = row.pop("patient_nbr")
        time = start + int(row.pop("encounter_id")) * second
        readmitted, kind, source, left = (row.pop(n) for n in ("readmitted", *NAMED))
        told: set[Fact] = {(time, f"ADMISSION_TYPE//{kind}", None)}
        told |= {(time, f"ADMISSION_SOURCE//{source}", None), (time, f"DISPOSITION//{left}", None)}
        for column, cell in row.items():
            if cell == "?":
                continue
            if column.startswith("diag_"):
                told.add((time, f"ICD9CM//{cell}", None))
            elif cell.lstrip(">").isdigit():  # ">7" is a number, too
                told.add((time, f"DIAB//{column}", float(cell.lstrip(">"))))
            else:
                word = cell.lower() if cell in ("No", "Yes", "None") else cell
                told.add((time, f"DIAB//{column}={word}", None))
        facts.setdefault(patient, []).extend(told)
        if left not in GONE:
            moments.append((patient, time + second, readmitted == "<30"))
    assert len(lines) > len(moments) > 12
    prefixes = ("ICD9CM//", "DISPOSITION//", "ADMISSION_TYPE//", "ADMISSION_SOURCE//")
    families = [
        Family("measurements", numbered("DIAB//"), ("last",), {"1s": second}),
        Family(
            "codes",
            lambda code, _: code.startswith(prefixes) or "=" in code,
            ("present",),
            {"1s": second},
        ),
    ]
    found = computed("diabetes130.yaml", f"sources.stays.path={tmp_path / 'some.zip'}")
    same(expected(facts, moments, families), found, moments=13, numbers=60)


def test_events_in_the_form_of_meds(data, tmp_path):
    """A Parquet file with a row an event."""
    folder = need(data, "mimic_iv_demo_meds")
    chosen = [10000032, 10004720, 10025463]
    boston = dt.timezone(dt.timedelta(hours=-5))
    table = pq.read_table(
        folder / "mimic_iv_demo_meds_events.parquet", filters=[("subject_id", "in", chosen)]
    )
    pq.write_table(table, tmp_path / "events.parquet")
    told: dict[str, set[Fact]] = defaultdict(set)  # what is told twice counts once
    for row in table.to_pylist():
        time = row["time"] and (row["time"].replace(tzinfo=boston) - UNIX)
        value = row["value"]
        # A number of 32 bits is meant as it is written: 33.8, not 33.79999923706055.
        number = None if value is None or math.isnan(value) else float(str(np.float32(value)))
        fact = time and time // MICROSECOND, row["code"].strip(), number
        told[str(row["subject_id"])].add(fact)
    facts: Facts = {}
    moments = []
    for patient, mine in told.items():
        died = max(time for time, code, _ in mine if code == "MEDS_DEATH")
        facts[patient] = [f for f in mine if f[0] is None or f[0] <= died + 90 * DAY]
        admitted = {time for time, code, _ in mine if code.startswith("HOSPITAL_ADMISSION//")}
        for index in sorted(time + DAY for time in admitted):
            if index < died:
                moments.append((patient, index, died <= index + 30 * DAY))
    families = [
        demographics(),
        Family("measurements", numbered("LAB//"), ("last", "min", "max"), {"24h": DAY}),
        Family("codes", started(("DIAGNOSIS//", "MEDICATION//")), ("present",), {"all": None}),
    ]
    place = f"sources.meds.path={tmp_path}"
    found = computed("mimic_meds.yaml", place)
    same(expected(facts, moments, families), found, moments=6, numbers=100)
    study = api.read_study(EXAMPLES / "mimic_meds.yaml", overrides=[place])
    assert api.look(study)["meds"].zoneless == 0


SYSTEMS = {
    "http://loinc.org": "LOINC",
    "http://snomed.info/sct": "SNOMED",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RXNORM",
    "http://hl7.org/fhir/sid/cvx": "CVX",
}


def codes(concept: dict[str, Any]) -> list[str]:
    """A concept's codings."""
    return [f"{SYSTEMS[c['system']]}//{c['code']}" for c in concept["coding"]]


def measured(part: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """What an Observation or its component says, by code."""
    for code in codes(part["code"]):
        if "valueQuantity" in part:
            yield code, float(part["valueQuantity"]["value"])
        elif "valueCodeableConcept" in part:
            yield f"{code}={codes(part['valueCodeableConcept'])[0]}", None
        elif "component" not in part:
            yield code, None


def happened(resource: dict[str, Any]) -> Iterator[Fact]:
    """What a resource says, and when it was known."""
    kind = resource["resourceType"]
    if kind == "Patient":
        year, month, day = map(int, resource["birthDate"].split("-"))
        yield us(year, month, day), "MEDS_BIRTH", None
        yield None, f"GENDER//{resource['gender']}", None
        if "deceasedDateTime" in resource:
            yield moment(resource["deceasedDateTime"]), "MEDS_DEATH", None
    elif kind == "Encounter":
        for edge in ("start", "end"):
            code = f"ENCOUNTER//{resource['class']['code']}//{edge.upper()}"
            yield moment(resource["period"][edge]), code, None
    elif kind == "Observation":
        for part in (resource, *resource.get("component", [])):
            for code, value in measured(part):
                yield moment(resource["issued"]), code, value
    elif kind in ("Condition", "MedicationRequest", "Procedure"):
        time = resource.get("recordedDate") or resource.get("authoredOn")
        concept = resource.get("code") or resource["medicationCodeableConcept"]
        for code in codes(concept):
            yield moment(time or resource["performedPeriod"]["start"]), code, None


def possible(fact: Fact, born: int, died: float) -> bool:
    """Whether it may be true: of a living patient, and no protein of 70 g/dL (they are g/L)."""
    time, code, _ = fact
    alive = time is None or born - DAY <= time <= died + 90 * DAY
    return alive and code != "LOINC//2885-2"


def test_emergency_care(data, tmp_path):
    """FHIR bundles, one a patient."""
    archive = zipfile.ZipFile(need(data, "synthea_r4") / "bundles.zip")
    starts = ("Alexia_Rice", "Austin_Franecki", "Barry_Wolf")
    names = [n for n in archive.namelist() if n.startswith(starts)]
    assert len(names) == 3
    facts: Facts = {}
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as some:
        for name in names:
            some.writestr(name, archive.read(name))
            bundle = json.loads(gzip.decompress(archive.read(name)))
            resources = [entry["resource"] for entry in bundle["entry"]]
            patient = next(r["id"] for r in resources if r["resourceType"] == "Patient")
            told: dict[Any, Fact] = {}  # what is told twice counts once; two visits are two
            for number, resource in enumerate(resources):
                for fact in happened(resource):
                    twice = number if fact[1].startswith("ENCOUNTER//") else None
                    told[(*fact, twice)] = fact
            facts[f"Patient/{patient}"] = list(told.values())
    moments = []
    limits = {}
    for patient, mine in facts.items():
        at = {code: time for time, code, _ in mine}
        limits[patient] = at["MEDS_BIRTH"], at.get("MEDS_DEATH", math.inf)
        facts[patient] = [fact for fact in mine if possible(fact, *limits[patient])]
    end = max(time for mine in facts.values() for time, *_ in mine if time is not None)
    cared = {"ENCOUNTER//EMER//START", "ENCOUNTER//IMP//START"}
    for patient, mine in facts.items():
        born, died = limits[patient]
        for index in sorted({time for time, code, _ in mine if code == "ENCOUNTER//AMB//END"}):
            within = index + YEAR
            outcome = any(
                code in cared and index < time <= within for time, code, _ in mine if time
            )
            known = outcome or index < died <= within or within <= end
            if index < died and known and index >= eighteenth(born):
                moments.append((patient, index, outcome))
    back = {"365d": 365 * DAY}
    families = [
        demographics(),
        Family("measurements", numbered("LOINC//"), ("count", "last", "mean", "min", "max"), back),
        Family(
            "codes",
            lambda code, _: (
                code.startswith(("SNOMED//", "RXNORM//"))
                or (code.startswith("ENCOUNTER//") and code.endswith("//START"))
                or (code.startswith("LOINC//") and "=" in code)
            ),
            ("count",),
            {**back, "all": None},
        ),
    ]
    found = computed("synthea_emergency.yaml", f"sources.ehr.path={tmp_path / 'some.zip'}")
    same(expected(facts, moments, families), found, moments=20, numbers=100)


def eighteenth(born: int) -> int:
    """When somebody is eighteen: at the beginning of that birthday."""
    day = (UNIX + dt.timedelta(microseconds=born)).date()
    return us(day.year + 18, day.month, day.day)

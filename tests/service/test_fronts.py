"""Every front gives the same risks, bit for bit: batch, ``predict``, JSON, Arrow, FHIR, stream."""

from __future__ import annotations

import json
import time
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import made

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.files import Given
from clinloom.identity.few import few
from clinloom.run import acquire, api, score
from clinloom.run.dataset import cleaned
from clinloom.tables import ACQUIRED, REFUSED, conform

PATIENTS = 200
KEYS = ("subject_id", "prediction_time")
RISK = "predicted_boolean_probability"


@pytest.fixture(scope="module")
def bundle(published) -> Bundle:
    return Bundle.load(published)


@pytest.fixture(scope="module")
def events(bundle) -> pa.Table:
    door = Door(bundle)
    facts = [door.fhir(made.body(number)) for number in range(PATIENTS)]
    tables = [conform(one.events, ACQUIRED) for one in facts]
    return pa.concat_tables(tables).sort_by([("subject_id", "ascending"), ("time", "ascending")])


def risks(rows):
    return sorted((row["subject_id"], row[RISK]) for row in rows)


@pytest.fixture(scope="module")
def batch(bundle, published) -> list[tuple[int, float]]:
    """The kernels of a scoring run, on all patients' records as lines of one file."""
    resources = [e["resource"] for n in range(PATIENTS) for e in made.patient(n)["entry"]]
    lines = b"\n".join(json.dumps(resource).encode() for resource in resources)
    unit = {"source": "ehr", "units": [Given("all.ndjson", lines)]}
    study = bundle.resolved
    parcels = list(acquire.read(unit, sources=study.sources))
    joined = {
        name: pa.concat_tables([conform(p[name], table) for p in parcels if name in p])
        for name, table in (("events", ACQUIRED), ("rejected", REFUSED))
    }
    walked, _ = few([p["links"] for p in parcels if "links" in p])
    true = dict(zip(*(walked.column(n).to_pylist() for n in ("own", "subject_id")), strict=True))
    assert all(true[own] == own for own in joined["events"].column("subject_id").to_pylist())
    order = [("subject_id", "ascending"), ("time", "ascending"), ("code", "ascending")]
    made_ = cleaned(
        joined["events"].sort_by(order),
        joined["rejected"],
        options=study.clean,
        learned=bundle.units,
    )
    found = score.scored(
        made_["events"],
        bundle=str(published),
        mark=bundle.mark,
        cohort=study.cohort,
        last=None,
        now=time.time_ns() // 1000,
    )
    return risks(found["predictions"].to_pylist())


def test_batch_and_predict_agree(bundle, events, batch):
    assert len(batch) > PATIENTS * 0.8
    assert risks(bundle.predict(events).to_pylist()) == batch


def test_json_agrees(service, events, batch):
    rows = [{k: v for k, v in row.items() if v is not None} for row in events.to_pylist()]
    for row in rows:
        row.pop("time_text", None)
        row.pop("version", None)
        if "time" in row:
            row["time"] = row["time"].isoformat()
    by = {}
    for row in rows:
        by.setdefault(row["subject_id"], []).append(row)
    listed, answers = list(by), []
    for begin in range(0, len(listed), 40):
        part = [row for subject in listed[begin : begin + 40] for row in by[subject]]
        response = service.client.post("/predict", json={"events": part})
        assert response.status_code == 200, response.text
        answers += response.json()["predictions"]
    assert sorted((row["subject_id"], row["probability"]) for row in answers) == batch


def test_arrow_agrees(service, events, batch):
    subjects = sorted(set(events.column("subject_id").to_pylist()))
    plain = events.drop_columns(["time_text", "version"])
    answers = []
    for begin in range(0, len(subjects), 40):
        wanted = pa.array(subjects[begin : begin + 40], pa.int64())
        part = plain.filter(pa.compute.is_in(plain.column("subject_id"), wanted))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as stream:
            stream.write_table(part)
        kind = {"content-type": "application/vnd.apache.arrow.stream"}
        body = sink.getvalue().to_pybytes()
        response = service.client.post("/predict", content=body, headers=kind)
        assert response.status_code == 200, response.text
        answers += response.json()["predictions"]
    assert sorted((row["subject_id"], row["probability"]) for row in answers) == batch


def test_fhir_agrees_and_names_whom_when_and_from_what(service, batch):
    found = []
    for number in range(PATIENTS):
        response = service.fhir(made.body(number))
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/fhir+json"
        for entry in response.json().get("entry", ()):
            resource = entry["resource"]
            if resource["resourceType"] != "RiskAssessment":
                continue
            [prediction] = resource["prediction"]
            found.append(prediction["probabilityDecimal"])
            assert resource["subject"] == {"reference": f"Patient/p{number}"}
            assert resource["status"] == "final" and resource["occurrenceDateTime"].endswith("Z")
            assert prediction["outcome"]["text"].startswith("Respiratory failure")
            kinds = {reference["reference"].split("/")[0] for reference in resource["basis"]}
            assert {"Patient", "Observation"} <= kinds <= {"Patient", "Observation", "Condition"}
    assert sorted(found) == sorted(risk for _, risk in batch)


def test_the_stream_agrees(spark, published, batch, tmp_path):
    """Records come one by one, in any order and some of them twice."""
    resources = [e["resource"] for n in range(PATIENTS) for e in made.patient(n)["entry"]]
    lines = [json.dumps(resource) for resource in (*resources, *resources[::9])]
    Random(2).shuffle(lines)
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for number in range(3):
        (incoming / f"{number}.ndjson").write_text("\n".join(lines[number::3]))
    told = {"told": [f"ehr={incoming}"], "once": True, "most": 2}
    found = api.stream(published, out=tmp_path / "out", **told, spark=spark)
    assert found["steps"] == 2
    files = sorted((tmp_path / "out" / "predictions").iterdir())
    last = {tuple(row[k] for k in KEYS): row for f in files for row in pq.read_table(f).to_pylist()}
    assert risks(row for row in last.values() if not row["withdrawn"]) == batch


def test_contributions_add_up_to_the_risk(service, bundle):
    from clinloom.learn import calibration

    json_ = {"accept": "application/json"}
    answer = service.fhir(made.body(3), params={"explain": "true"}, headers=json_).json()
    [row] = answer["predictions"]
    added = sum(row["contributions"]["by_feature"].values()) + answer["explained"]["base"]
    assert answer["explained"]["scale"] == "log-odds"
    scorer = bundle.scorer
    raw = calibration.sigmoid(added)
    risk = calibration.apply(raw, scorer.slope, scorer.intercept)
    assert risk == pytest.approx(row["probability"], abs=1e-9)
    assert len(row["contributions"]["reasons"]) == 5
    told = service.fhir(made.body(3), params={"explain": "true"}).json()["entry"][0]["resource"]
    assert told["prediction"][0]["rationale"].startswith(row["contributions"]["reasons"][0])

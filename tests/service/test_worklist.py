"""The worklist's data: today's list by risk, what changed, and what the ward answered."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import made, wards

from clinloom.cohort import due
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.deploy.explain import Explainer
from clinloom.files import address
from clinloom.run import feedback, score
from clinloom.tables import CROSSWALK, SCORES

TOKEN = {"authorization": "Bearer secret"}
NOT_USEFUL = {"outcome": "not_useful", "reason": "known"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    wards.write(folder, {"M1": 0.2, "M2": 0.7, "M4": 0.5}, day=-1, creatinine=1.5)
    wards.write(folder, {"M1": 0.6, "M2": 0.7, "M3": 0.1})
    return folder


@pytest.fixture(scope="module")
def ward(published, folder, tmp_path_factory):
    from tests.service.conftest import Running

    told = ("--worklist", str(folder), "--token", "env:T")
    running = Running(tmp_path_factory.mktemp("ward"), published, *told, T="secret")
    running.client.headers.update(TOKEN)
    yield running
    assert running.end() == 0


def listed(ward):
    found = ward.client.get("/worklist/list")
    assert found.status_code == 200, found.text
    return found.json()


def test_todays_patients_by_risk_and_what_changed_since_yesterday(ward):
    found = listed(ward)
    assert found["title"] == "Respiratory failure within 30 days of admission"
    assert found["as_of"] == "2026-03-09T08:00:00Z" and found["by"] == "not told"
    patients = found["patients"]
    assert [p["patient"] for p in patients] == ["M2", "M1", "M3"]  # M4 is not on today's list
    assert [p["risk"] for p in patients] == [0.7, 0.6, 0.1]
    assert [p["before"] and p["before"]["risk"] for p in patients] == [0.7, 0.2, None]
    assert patients[1]["changed"] == [
        {"now": "Creatinine, last: 2.0 mg/dL", "before": "Creatinine, last: 1.5 mg/dL"}
    ]
    assert patients[2]["changed"] == [] and patients[2]["moments"] == 1
    assert patients[1]["id"] == str(wards.BIG + 1)  # as a text: no number of JavaScript's holds it


def test_a_patients_history_is_told_the_last_moment_first(ward):
    found = ward.client.get(f"/worklist/patients/{wards.BIG + 1}").json()
    assert [moment["risk"] for moment in found] == [0.6, 0.2]
    assert ward.client.get("/worklist/patients/5").status_code == 404


def test_the_page_is_open_and_holds_nothing_of_a_patient_and_its_data_wants_the_token(ward):
    with httpx.Client(base_url=ward.url) as stranger:
        for path in ("/worklist", "/worklist/page.css", "/worklist/page.js"):
            found = stranger.get(path)
            assert found.status_code == 200 and "M1" not in found.text
            assert "http" not in found.text.replace("http://www.w3.org/2000/svg", "")
            assert "default-src 'none'" in found.headers["content-security-policy"]
        for path in ("/worklist/list", f"/worklist/patients/{wards.BIG + 1}"):
            assert stranger.get(path).status_code == 401
        assert stranger.post("/worklist/answers", json={}).status_code == 401


def test_answers_are_kept_without_a_patient_and_counted_by_the_monitor(ward, folder):
    by = {p["patient"]: p for p in listed(ward)["patients"]}

    def give(patient, **answer):
        body = {"patient": by[patient]["id"], "time": by[patient]["time"], **answer}
        return ward.client.post("/worklist/answers", json=body).status_code

    tag = ward.client.get("/worklist/list").headers["etag"]
    asked = {"if-none-match": tag}
    assert ward.client.get("/worklist/list", headers=asked).status_code == 304
    assert give("M1", outcome="acknowledged") == 204
    assert give("M2", **NOT_USEFUL) == 204
    assert ward.client.get("/worklist/list", headers=asked).status_code == 200
    found = {p["patient"]: p["answer"] for p in listed(ward)["patients"]}
    assert found["M1"]["outcome"] == "acknowledged" and found["M3"] is None
    assert found["M2"]["reason"] == "Known, and acted on already"
    assert give("M2", outcome="acknowledged") == 204  # the last answer holds
    assert {p["patient"]: p["answer"] for p in listed(ward)["patients"]}["M2"]["reason"] is None
    files = sorted((folder / "feedback").rglob("*.jsonl"))
    kept = b"".join(file.read_bytes() for file in files)
    assert not any(secret in kept for secret in (b"M1", b"M2", str(wards.BIG + 1).encode()))
    lines = [json.loads(line) for line in kept.splitlines()]
    assert sorted(line["outcome"] for line in lines) == ["accepted", "accepted", "overridden"]
    counted = feedback.counted(address(folder / "feedback"), "month")
    assert counted["unreadable"] == 0 and len(counted["periods"]) == 1
    assert "M1" not in ward.log and str(wards.BIG + 1) not in ward.log


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"outcome": "not_useful"}, 400),
        ({"outcome": "not_useful", "reason": "a text of somebody"}, 400),
        ({"outcome": "acknowledged", "reason": "known"}, 400),
        ({"outcome": "ignored"}, 400),
        ({"outcome": "acknowledged", "patient": "7"}, 404),
        ({"outcome": "acknowledged", "time": "2026-03-08T08:00:00Z"}, 404),
        ({"outcome": "acknowledged", "time": "2026-03-09T08:00:00"}, 404),
        ({"outcome": "acknowledged", "time": "soon"}, 400),
    ],
)
def test_an_answer_that_is_none_is_refused(ward, answer, status):
    about = {"patient": str(wards.BIG + 1), "time": "2026-03-09T08:00:00Z"}
    found = ward.client.post("/worklist/answers", json={**about, **answer})
    assert found.status_code == status and "text" not in found.text


def test_a_form_of_another_page_answers_nothing(ward):
    about = {"patient": str(wards.BIG + 3), "time": "2026-03-09T08:00:00Z"}
    body = json.dumps({**about, "outcome": "acknowledged"})
    kind = {"content-type": "text/plain"}
    assert ward.client.post("/worklist/answers", content=body, headers=kind).status_code == 415


def test_a_new_list_is_taken_up_and_a_file_that_is_none_is_left_out(published, started, tmp_path):
    folder = tmp_path / "lists"
    ward = started(published, "--worklist", str(folder))
    assert listed(ward)["patients"] == [] and listed(ward)["as_of"] is None
    wards.write(folder, {"M1": 0.3}, day=-1)
    assert [p["patient"] for p in listed(ward)["patients"]] == ["M1"]
    (folder / "2026-03-09.parquet").write_bytes(b"PAR1 broken")
    assert [p["patient"] for p in listed(ward)["patients"]] == ["M1"]
    assert '"event": "no_list"' in ward.log
    wards.write(folder, {"M2": 0.9})
    assert [p["patient"] for p in listed(ward)["patients"]] == ["M2"]
    other = {**Bundle.load(published).scored_by, "mark": "other.npz", "threshold": 0.8}
    file = folder / "2026-03-10.parquet"
    table = pq.read_table(folder / "2026-03-09.parquet")
    pq.write_table(table.replace_schema_metadata({"clinloom.bundle": json.dumps(other)}), file)
    assert listed(ward)["by"] == "other" and listed(ward)["model"]["threshold"] == 0.8


def test_a_list_without_identifiers_and_reasons_is_shown_by_number(published, started, tmp_path):
    folder = tmp_path / "lists"
    file = wards.write(folder, {"M1": 0.3})
    pq.write_table(pq.read_table(file).drop_columns(["patient", "system", "reasons"]), file)
    (patient,) = listed(started(published, "--worklist", str(folder)))["patients"]
    assert (patient["patient"], patient["reasons"]) == (None, [])


def test_scoring_tells_the_reasons_that_the_service_tells(published):
    bundle = Bundle.load(published)
    door = Door(bundle)
    facts = [door.fhir(made.body(number)) for number in range(8)]
    events = pa.concat_tables([bundle.clean(one.events)["events"] for one in facts])
    events = events.sort_by([("subject_id", "ascending"), ("time", "ascending")])
    told = {"bundle": str(published), "mark": bundle.mark, "cohort": bundle.resolved.cohort}
    told |= {"last": None, "now": 1 << 60}
    found = score.scored(events, **told, reasons=3)["predictions"]
    plain = score.scored(events, **told)["predictions"]
    assert found.drop_columns(["reasons"]).equals(plain) and found.num_rows > 3
    index = due(events, bundle.resolved.cohort, now=np.int64(1 << 60))["index"]
    explainer = Explainer.of(bundle)
    for row, values in zip(found.to_pylist(), bundle.values(events, index), strict=True):
        wanted = explainer.reasons(values, most=3)
        assert [r["text"] for r in row["reasons"]] == [r.text for r in wanted]
        assert [r["contribution"] for r in row["reasons"]] == [r.contribution for r in wanted]
    assert "reasons" not in SCORES.arrow.names
    subjects = plain.column("subject_id").unique().to_pylist()[1:]
    own = [{"system": "#ehr", "identifier": f"M{n}", "subject_id": n} for n in subjects]
    both = score.scored(events, CROSSWALK.rows(own), **told, reasons=3)["predictions"]
    assert both.drop_columns(["patient", "system"]).equals(found)
    names = [f"M{n}" if n in subjects else None for n in both.column("subject_id").to_pylist()]
    assert both.column("patient").to_pylist() == names

"""Times whose zone nobody tells are counted and said: by every kind of source, look and run."""

from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom import cli, files
from clinloom.report import doubts
from clinloom.run import record, tallies
from clinloom.sources import fhir, load, table
from clinloom.sources._declared import TimeSpec, zoneless
from clinloom.sources._time import unzoned
from clinloom.tables import ASSUMED_ZONE, LEDGER

MAPPING = {"patient": "pid", "code": {"column": "what"}, "value": "value"}
ROWS = """pid,what,value,when
1,MEDS_BIRTH,,1950-01-01
1,crea,1.5,2024-03-05 08:00
1,crea,1.6,2024-03-05T08:00:00Z
1,crea,1.6,2024-03-05T08:00:00.123+01:00
1,crea,1.7,2024-03-06
2,crea,1.8,06.03.2024 09:00
2,crea,1.8,
"""


def counted(kind, options, pieces) -> int:
    found = [p["ledger"] for p in kind.read(pieces, options, "lab") if "ledger" in p]
    rows = pa.concat_tables([LEDGER.empty, *found]).to_pylist()
    assert {row["source"] for row in rows} <= {"lab"}
    return sum(row["count"] for row in rows if row["rule"] == ASSUMED_ZONE)


def listed(path):
    return list(files.listing(str(path)))


@pytest.mark.parametrize(
    ("zone", "count"), [({}, 3), ({"zone": "UTC"}, 0), ({"zone": "Europe/Berlin"}, 0)]
)
def test_a_table_counts_times_and_dates_without_a_zone_but_births(tmp_path, zone, count):
    (tmp_path / "t.csv").write_text(ROWS)
    given = {**MAPPING, "path": str(tmp_path), "time": {"column": "when", **zone}}
    assert counted(table, table.Options(**given), listed(tmp_path)) == count


@pytest.mark.parametrize(
    ("column", "spec", "rows"),
    [
        (pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("us")), {}, [True]),
        (pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("us", tz="UTC")), {}, None),
        (pa.array([dt.date(2024, 1, 1), None]), {}, [True, False]),
        (pa.array(["05.03.2024 08:00"]), {"format": "%d.%m.%Y %H:%M"}, [True]),
        (pa.array(["05.03.2024 08:00 +0100"]), {"format": "%d.%m.%Y %H:%M %z"}, None),
        (pa.array(["08:00"]), {"offset": "HH:MM", "origin": "2024-01-01"}, None),
        (pa.array(["2024-01-01T10:00"]), {"zone": "UTC"}, None),
    ],
)
def test_of_each_form_of_time_it_is_told_whether_a_zone_is_missing(column, spec, rows):
    found = zoneless(TimeSpec(column="when", **spec), column)
    assert (found if found is None else found.to_pylist()) == rows


def test_texts_are_told_apart_by_their_ends():
    texts = ["2024-01-01T10:00:00Z ", "2024-01-01T10:00-05", "2024-01-01T10:00", "2024", "", None]
    expected = [False, False, True, True, False, None]
    for column in (pa.array(texts), pa.array(texts).dictionary_encode()):
        assert unzoned(column).to_pylist() == expected


def test_fhir_counts_them_too(tmp_path):
    about = {"status": "final", "subject": {"reference": "Patient/p1"}}
    about |= {"resourceType": "Observation", "code": {"coding": [{"system": "x", "code": "y"}]}}
    times = ["2024-01-02T03:04:05", "2024-01-02T03:04:05Z", "2024-01-02"]
    lines = [json.dumps({**about, "id": t[-2:], "effectiveDateTime": t}) for t in times]
    lines.append(json.dumps({"resourceType": "Patient", "id": "p1", "birthDate": "1950-01-01"}))
    (tmp_path / "all.ndjson").write_text("\n".join(lines))
    untold, told = (fhir.Options(path=str(tmp_path), **z) for z in ({}, {"zone": "UTC"}))
    assert counted(fhir, untold, listed(tmp_path)) == 2
    assert counted(fhir, told, listed(tmp_path)) == 0


@pytest.mark.parametrize(
    ("tags", "count"), [({}, 1), ({"TimezoneOffsetFromUTC": "+0100"}, 0),
                        ({"AcquisitionDateTime": "20240229101112.5-0500"}, 0)]
)  # fmt: skip
def test_images_count_those_that_name_no_zone(tmp_path, tags, count):
    pytest.importorskip("pydicom", reason="the dicom extra is not installed")
    from tests.unit.test_dicom_source import instance, written

    (tmp_path / "a.dcm").write_bytes(written(instance(**tags)))
    kind = load("dicom")
    assert counted(kind, kind.Options(path=str(tmp_path)), listed(tmp_path)) == count
    assert counted(kind, kind.Options(path=str(tmp_path), zone="UTC"), listed(tmp_path)) == 0


def test_photographs_count_the_rows_of_their_manifest(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="the images extra is not installed")
    (tmp_path / "images").mkdir()
    for name in "abc":
        image.new("L", (32, 32)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "m.csv").write_text(
        "who,image,taken\n1,a,2024-01-02\n2,b,2024-01-02T00:00Z\n3,c,\n"
    )
    kind = load("images")
    given = {"path": str(tmp_path / "images"), "manifest": str(tmp_path / "m.csv")}
    given |= {"file": "{image}.png", "patient": "who"}
    for zone, count in (({}, 1), ({"zone": "UTC"}, 0)):
        options = kind.Options(**given, time={"column": "taken", "empty": "static", **zone})
        assert counted(kind, options, list(kind.plan(options, "sources.lab"))) == count


STUDY = """
name: zoned
sources:
  lab: {type: table, path: lab.parquet, patient: pid, time: {column: when}, code: {column: what}}
  other: {type: table, path: lab.csv, patient: pid, time: {column: when, format: "%Y-%m-%d"},
          code: {column: what}}
cohort:
  index: {at: crea}
  outcome: {codes: crea, within: 30d}
features: {measurements: {codes: "*"}}
models: [logistic_regression]
"""


def test_validate_says_it_once_and_where_the_study_tells_it_not_at_all(tmp_path, capsys):
    when = pa.array([dt.datetime(2024, 1, 1)] * 3, pa.timestamp("us"))
    rows = pa.table({"pid": ["1", "2", "3"], "what": ["crea"] * 3, "when": when})
    pq.write_table(rows, tmp_path / "lab.parquet")
    (tmp_path / "lab.csv").write_text("pid,what,when\n1,crea,2024-01-01\n")
    (tmp_path / "study.yaml").write_text(STUDY)

    def notes(*more: str) -> list[str]:
        assert cli.main(["validate", str(tmp_path / "study.yaml"), "--json", *more]) == 0
        found = json.loads(capsys.readouterr().out)["notes"]
        return [line for line in found if "zone" in line]

    [plain] = notes()
    assert plain.startswith("sources.other: its `format` of times has no zone")
    parquet, csv = notes("--data")
    assert parquet.startswith("sources.lab: 3 times of those looked at name no zone")
    assert "taken as UTC" in csv and csv.startswith("sources.other: 1 times")
    told = [f"sources.{name}.time.zone=UTC" for name in ("lab", "other")]
    assert not notes("--data", "--set", told[0], "--set", told[1])


def test_the_run_and_the_report_say_it_in_the_same_words():
    row = {"source": "lab", "rule": ASSUMED_ZONE, "action": "taken_as_UTC", "count": 1200}
    events = {"source": "lab", "rule": tallies.EVENTS_OF, "action": "", "count": 9}
    ledger = LEDGER.rows([row, events])
    [line] = doubts.of_ledger(["ehr", "lab"], ledger.to_pylist())
    assert line.startswith("sources.lab: 1,200 times name no zone and the study tells none")
    given = [{"name": "lab", "events": 9, "images": 0}]
    assert list(record.doubtful(given, [], ledger.to_pylist())) == [line]


def test_a_source_that_is_mostly_refused_is_said_first_with_reason_and_counts():
    given = [
        {"name": "lab", "events": 40, "images": 0},
        {"name": "cxr", "events": 2000, "images": 10},  # 200 measurements of each image
        {"name": "ehr", "events": 50, "images": 0},
    ]
    refusals = [
        {"source": "lab", "stage": "acquire", "reason": "no_time", "count": 10},
        {"source": "lab", "stage": "clean", "reason": "invalid_date", "count": 50},
        {"source": "cxr", "stage": "acquire", "reason": "truncated_dicom", "count": 90},
        {"source": "ehr", "stage": "clean", "reason": "no_time", "count": 50},
    ]
    lab, cxr = record.doubtful(given, refusals, [])
    assert lab.startswith("sources.lab: 60 of 100 records were refused, mostly as invalid_date (")
    assert cxr.startswith("sources.cxr: 90 of 100 records were refused, mostly as truncated_dicom")
    rows = [
        {"source": "cxr", "rule": rule, "action": action, "count": count}
        for rule, action, count in (
            (tallies.EVENTS_OF, "", 2000),
            (tallies.EVENTS_OF, "truncated_dicom", 90),
            (tallies.IMAGES_OF, "", 10),
        )
    ]
    assert list(tallies.refused(["cxr"], LEDGER.rows(rows))) == [cxr]

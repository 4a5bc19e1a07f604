"""What comes by files, topics and tables is read alike, and nothing of it is lost."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import made

from clinloom import files
from clinloom.deploy import lines
from clinloom.deploy.bundle import Bundle
from clinloom.errors import UsageError
from clinloom.events import STATIC
from clinloom.run import feeds, stream
from clinloom.run.feeds import Feed, Reading

ROW = {"subject_id": 7, "code": "LOINC//2160-0", "time": "2024-03-01T08:00:00Z"}
BORN = {"subject_id": 7, "code": "MEDS_BIRTH", "time": "1950-03-01T08:00:00Z"}
NOW = 1_900_000_000_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return Bundle.load(made.publish(tmp_path_factory.mktemp("feeds") / "bundle"))


@pytest.fixture
def reading(bundle) -> Reading:
    return Reading(bundle.resolved.sources, late=STATIC, now=NOW)


def gathered(parcels, name):
    found = [row for parcel in parcels for row in parcel.get(name, pa.table({})).to_pylist()]
    return found


def rows(feed, place, values):
    columns = [[feed] * len(values), [place] * len(values), range(100, 100 + len(values)), values]
    names = ["feed", "place", "position", "value"]
    return pa.table([list(c) for c in columns], names=names)


def test_messages_of_a_topic_tell_what_the_lines_of_a_file_tell(tmp_path, bundle, reading):
    resources = [e["resource"] for e in made.patient(3)["entry"]]
    (tmp_path / "a").mkdir()
    text = "\n".join(map(json.dumps, resources))
    (tmp_path / "a" / "b.ndjson").write_text(text)
    [unit] = feeds._units(
        [("ehr", f"file://{tmp_path}/a/b.ndjson")],
        {"ehr": files.address(tmp_path)},
        bundle.resolved.sources,
        2,
    )
    assert [piece.name for piece in unit["units"]] == ["a/b.ndjson"]
    of_file = list(feeds._of_files(unit, reading=reading))
    values = [json.dumps(resource, indent=1).encode() for resource in resources]
    of_topic = list(feeds._of_rows(iter([rows("ehr", "t/0", values)]), reading=reading))
    assert gathered(of_file, "events") == gathered(of_topic, "events") != []
    assert gathered(of_file, "links") == gathered(of_topic, "links") != []
    assert all(row["own"] == row["subject_id"] for row in gathered(of_file, "events"))


def test_what_is_refused_names_the_message(reading):
    values = [b'{"resourceType": "Patient", "id": "x"}', b"{", b'{"a": 1}', b"7"]
    found = feeds._of_rows(iter([rows("ehr", "t/3", values)]), reading=reading)
    told = gathered(found, "told")
    assert [(r["file"], r["position"], r["reason"]) for r in told] == [
        ("t/3", 101, "malformed_json"),
        ("t/3", 102, "not_a_resource"),
        ("t/3", 103, "not_a_resource"),
    ]
    values = [json.dumps(ROW).encode(), b'{"a', b'{"subject_id": "7"}', b""]
    found = list(feeds._of_rows(iter([rows("events", "t/3", values)]), reading=reading))
    assert [row["subject_id"] for row in gathered(found, "events")] == [7]
    assert [(r["position"], r["reason"]) for r in gathered(found, "told")] == [
        (101, "malformed_json"),
        (102, "malformed_events"),
    ]


def test_files_of_events_are_lines_or_parquet(tmp_path, reading):
    text = "\n".join(map(json.dumps, (ROW, BORN)))
    (tmp_path / "a.jsonl").write_text(text)
    table, _ = lines.of_lines(text.encode().split(b"\n"))
    pq.write_table(table.drop_columns(["version", "time_text"]), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    found = [
        list(feeds._of_files({"source": "events", "units": [str(tmp_path / n)]}, reading=reading))
        for n in ("a.jsonl", "a.parquet", "b.parquet", "none")
    ]
    assert gathered(found[0], "events") == gathered(found[1], "events") != []
    assert [gathered(f, "told")[0]["reason"] for f in found[2:]] == [
        "malformed_events",
        "unreadable_file",
    ]


def test_what_comes_too_late_is_refused_and_what_lasts_is_not(bundle):
    moment = lines.of_lines([json.dumps(ROW).encode()])[0].column("time").cast("int64")[0].as_py()
    values = [json.dumps(row).encode() for row in (ROW, BORN, {"subject_id": 7, "code": "GENDER"})]
    for late, count in ((moment, 3), (moment + 1, 2)):
        reading = Reading(bundle.resolved.sources, late=late, now=NOW)
        found = list(feeds._of_rows(iter([rows("events", "t/0", values)]), reading=reading))
        told = gathered(found, "told")
        assert len(gathered(found, "events")) == count and len(told) == 3 - count
        assert all((row["reason"], row["code"]) == ("late", ROW["code"]) for row in told)
    [extent] = gathered(found, "extent") or [None]
    assert extent is None  # of what is known for ever, and what was refused, no time counts


def test_a_feed_names_its_source(bundle):
    sources = bundle.resolved.sources
    assert feeds.read(["kafka://a:1/t"], sources) == [Feed("ehr", "kafka://a:1/t")]
    assert feeds.read(["events=delta:/x"], sources) == [Feed("events", "delta:/x")]
    assert feeds.read([], sources)[0].folder == sources["ehr"].path
    for wrong in ("her=/x", "x=kafka://a/t"):
        with pytest.raises(UsageError, match="no source"):
            feeds.read([wrong], sources)


def test_a_bundle_that_looks_back_without_end_refuses_nothing_as_late(bundle):
    with pytest.raises(UsageError, match="looks back without end"):
        stream._lateness(1, bundle.resolved, bundle)

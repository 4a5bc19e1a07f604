"""What `clinloom score` leaves: in every form the online engine's numbers, whole or not at all.

A thousand patients are scored once, by Spark; every form is written from that scoring.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import made

from clinloom import files, outputs
from clinloom.deploy._assessments import assessments
from clinloom.deploy._standing import Served
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door, Refusal
from clinloom.errors import DataError, StoreError, UsageError
from clinloom.outputs import fhir, meds, omop
from clinloom.run import score as scoring
from clinloom.tables import PREDICTIONS, SCORES

PATIENTS = 1000
RISK, ABOVE = "predicted_boolean_probability", "predicted_boolean_value"
DERBY = ["url=jdbc:derby:memory:clinic;create=true", "table=risk"]


@pytest.fixture(scope="module")
def given() -> list[bytes]:
    return [made.body(number, observations=12) for number in range(PATIENTS)]


@pytest.fixture(scope="module")
def bundle(published) -> Bundle:
    return Bundle.load(published)


@pytest.fixture(scope="module")
def left(spark, given, published, tmp_path_factory):
    """The folder of all that one scoring left, by the names of forms."""
    place = tmp_path_factory.mktemp("outputs")
    resources = [entry["resource"] for body in given for entry in json.loads(body)["entry"]]
    (place / "ward").mkdir()
    lines = "\n".join(json.dumps(resource) for resource in resources)
    (place / "ward" / "all.ndjson").write_text(lines)
    write = scoring._write

    def every(work, bundle, made_, table, target, form, settings):
        rows = write(work, bundle, made_, table, target, form, settings)
        with work.store.writing("others", "others") as pending:
            known = made_["crosswalk"]
            read = made_["predictions"], SCORES, made_["events"], known, pending
            scores = outputs.Scores(work.spark, bundle, *read)
            for name, told in (("fhir", []), ("meds", []), ("jdbc", DERBY), ("jdbc", DERBY)):
                to = target.parent / name
                settings = outputs.settled(name, told)
                assert outputs.load(name).write(scores, to, settings) == rows
            for name, error in (("omop", DataError), ("delta", StoreError)):
                with pytest.raises(error):
                    outputs.load(name).write(
                        scores, target.parent / name, outputs.settled(name, [])
                    )
                assert not (place / name).exists()
            options = outputs.settled("omop", ["first=7", "notes=4", "cohort=3"])
            scores = replace(scores, known=None, table=PREDICTIONS)
            assert outputs.load("omop").write(scores, target.parent / "omop", options) == rows
        return rows

    overrides = [f"sources.ehr.path={place / 'ward'}", "deploy.identifier=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_write", every)
        out = str(place / "parquet")
        told = scoring.score(str(published), out=out, overrides=overrides, spark=spark)
    return place, told


@pytest.fixture(scope="module")
def rows(left):
    return pq.read_table(left[0] / "parquet").to_pylist()


@pytest.fixture(scope="module")
def online(bundle, given):
    """What the online engine says of each patient, asked one by one."""
    door, found = Door(bundle), []
    for body in given:
        try:
            found.append(door.score(door.fhir(body)))
        except Refusal as refusal:
            assert refusal.reason == "nothing_known"
    return found


def test_a_thousand_patients_have_the_numbers_of_the_online_engine(left, rows, online):
    number = {f"M{n:05}": f"Patient/p{n}" for n in range(PATIENTS)}
    batch = {(number[row["patient"]], row["prediction_time"]): row[RISK] for row in rows}
    one_by_one = {
        (answer.patients[row["subject_id"]], row["prediction_time"]): row[RISK]
        for answer in online
        for row in answer.rows
    }
    assert batch == one_by_one and len(batch) == left[1]["rows"] == len(rows) > PATIENTS * 0.8


def test_fhir_has_the_resources_of_the_service(left, bundle, online):
    found = {}
    for line in (left[0] / "fhir").read_text().splitlines():
        resource = json.loads(line)
        [identifier] = resource.pop("identifier")
        assert identifier["system"] == "urn:clinloom:prediction"
        assert resource.pop("performer")["identifier"]["value"] == bundle.hash
        number = resource["subject"].pop("identifier")
        assert number["system"] == "urn:mrn" and number["value"].startswith("M")
        found[identifier["value"]] = resource
    served = Served(bundle, Door(bundle))
    theirs = [
        entry["resource"]
        for answer in online
        for entry in assessments(served, answer, ()).get("entry", ())
        if entry["resource"]["resourceType"] == "RiskAssessment"
    ]

    def ordered(resources):
        return sorted(resources, key=lambda one: one["subject"]["reference"])

    assert ordered(found.values()) == ordered(theirs) and len(theirs) == left[1]["rows"]


def test_of_whom_identifiers_may_not_leave_fhir_tells_the_subject_alone(bundle, rows):
    some = pa.Table.from_pylist(rows[:3], schema=SCORES.arrow)
    about = {"assessor": fhir.Assessor.of(bundle), "bundle": bundle.hash, "leans": frozenset()}
    made_ = fhir.lines(some.select(["subject_id"]), some, **about)["lines"]
    for row, line in zip(rows, made_.column("line").to_pylist(), strict=False):
        told = json.loads(line)
        identifier = {"system": "urn:clinloom:subject", "value": str(row["subject_id"])}
        assert told["subject"] == {"identifier": identifier} and "basis" not in told
        assert row["patient"] not in line


def test_meds_has_the_types_of_its_schema(left, rows):
    found = pq.read_table(left[0] / "meds")
    assert found.schema.field("prediction_time").type == pa.timestamp("us")
    assert found.column_names == meds.MEDS.arrow.names == PREDICTIONS.arrow.names
    assert found.column(RISK).to_pylist() == [row[RISK] for row in rows]


def test_omop_has_an_observation_a_prediction_and_a_cohort_of_those_above(left, bundle, rows):
    found = pq.read_table(left[0] / "omop" / "observation.parquet").to_pylist()
    assert [row["observation_id"] for row in found] == list(range(7, 7 + len(rows)))
    assert [(r["person_id"], r["value_as_number"]) for r in found] == [
        (row["subject_id"], row[RISK]) for row in rows
    ]
    first = found[0]
    assert first["observation_type_concept_id"] == 32880 and first["observation_concept_id"] == 0
    assert first["observation_source_value"] == f"gradient_boosting/ward@{bundle.hash[:12]}"
    assert first["observation_date"] == rows[0]["prediction_time"].date()
    cohort = pq.read_table(left[0] / "omop" / "cohort.parquet").to_pylist()
    above = {row["subject_id"]: row for row in rows if row[ABOVE]}
    assert {row["subject_id"] for row in cohort} == set(above) and 0 < len(above) < len(rows)
    assert {row["cohort_definition_id"] for row in cohort} == {3}
    for row in cohort:
        assert row["cohort_start_date"] == above[row["subject_id"]]["prediction_time"].date()
        assert row["cohort_end_date"] - row["cohort_start_date"] == dt.timedelta(days=30)


def test_omop_has_a_note_that_says_each_observation_in_words(left, bundle, rows):
    observed = pq.read_table(left[0] / "omop" / "observation.parquet").to_pylist()
    found = pq.read_table(left[0] / "omop" / "note.parquet").to_pylist()
    assert [row["note_id"] for row in found] == list(range(4, 4 + len(rows)))
    pairs = {"event_id": "observation_id", "datetime": "observation_datetime"}
    for row, about in zip(found, observed, strict=True):
        assert row["person_id"] == about["person_id"]
        assert all(row[f"note_{one}"] == about[other] for one, other in pairs.items())
        assert f"a risk of {about['value_as_number']:.1%}, " in row["note_text"]
    required = {column.name: column.nullable for column in omop.NOTE.columns}
    assert not [name for name, free in required.items() if not free and found[0][name] is None]
    concepts = ("note_type", "encoding", "language", "note_event_field")
    told = [found[0][f"{name}_concept_id"] for name in concepts]
    assert told == [32880, 32678, 4180186, 1147165]
    above = rows[0] | {ABOVE: True, "reasons": [{"text": "sodium low"}, {"text": "age 81"}]}
    table = pa.Table.from_pylist([above])
    [text] = omop.texts(table, fhir.Assessor.of(bundle))
    assert "at or above the threshold of 40.0%, by gradient_boosting of study ward" in text
    assert text.splitlines()[1:] == ["- sodium low", "- age 81"]


def test_spells_of_a_cohort_do_not_overlap():
    day = 86_400_000_000
    who, at = (pa.array(values).to_numpy() for values in ([1, 1, 1, 2], [0, 20, 60, 61]))
    found = [part.tolist() for part in omop.spells(who, at * day, 30 * day)]
    assert found == [[1, 1, 2], [0, 60 * day, 61 * day], [50 * day, 90 * day, 91 * day]]
    assert [part.tolist() for part in omop.spells(who[:0], at[:0], day)] == [[], [], []]


def test_a_person_is_a_whole_number():
    table = pa.table({"patient": ["12", "0003"]})
    assert omop.persons(table).tolist() == [12, 3]
    with pytest.raises(DataError, match="whole numbers") as caught:
        omop.persons(pa.table({"patient": ["12", "canary"]}))
    assert "canary" not in str(caught.value)


def test_a_database_holds_the_rows_once_however_often_they_come(spark, left, rows):
    read = spark.read.format("jdbc").options(url=DERBY[0][4:], dbtable="risk").load()
    found = [tuple(row) for row in read.select("subject_id", RISK, "patient").collect()]
    assert sorted(found) == sorted((r["subject_id"], r[RISK], r["patient"]) for r in rows)
    catalogue = {"url": DERBY[0][4:], "dbtable": "SYS.SYSTABLES"}
    held = spark.read.format("jdbc").options(**catalogue).load()
    names = [row[0] for row in held.select("TABLENAME").where("TABLETYPE = 'T'").collect()]
    assert [name for name in names if name.upper().startswith("RISK")] == ["RISK"]
    assert json.loads((left[0] / "jdbc").read_text())["rows"] == len(rows)


def test_a_database_that_refuses_changes_nothing_and_its_words_are_not_repeated(spark, left, rows):
    from clinloom.spark import database

    frame = spark.createDataFrame([(1, "canary")], "subject_id long, patient string")
    told = {"url": DERBY[0][4:], "table": "risk", "properties": {}}
    with pytest.raises(StoreError, match="cannot be written") as caught:
        database.replace(spark, frame.withColumnRenamed("patient", "other"), **told, rows=1)
    assert "canary" not in str(caught.value)
    some = spark.read.format("jdbc").options(url=told["url"], dbtable="risk").load().limit(5)
    with pytest.raises(StoreError, match=f"of {len(rows):,} rows arrived"):
        database.replace(spark, some, **told, rows=len(rows))
    assert spark.read.format("jdbc").options(url=told["url"], dbtable="risk").load().count() == len(
        rows
    )


@pytest.mark.parametrize(
    ("form", "options", "told"),
    [
        ("parquett", [], "did you mean 'parquet'?"),
        ("omop", ["frist=2"], "did you mean 'first'?"),
        ("omop", ["first=0"], "greater than or equal to 1"),
        ("omop", ["first"], "is no NAME=VALUE"),
        ("omop", ["first=1", "first=2"], "is told twice"),
        ("jdbc", ["table=risk"], "url: is required"),
        ("jdbc", ["url=jdbc:h2:x", "table=a;b"], "table: is written like clinic.risk"),
        ("jdbc", ["url=jdbc:h2:x", "table=a", "password=hunter2"], "write env:NAME"),
        ("jdbc", ["url=jdbc:postgresql://me:hunter2@db/x", "table=a"], "carries a secret"),
    ],
)
def test_a_form_or_option_that_is_none_is_told_with_the_nearest(form, options, told, tmp_path):
    with pytest.raises(UsageError) as caught:
        scoring.score("nowhere", out=str(tmp_path / "risk"), form=form, options=options)
    assert told in str(caught.value) and "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_stood_there_stays_where_a_storage_refuses(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StoreError, match="cannot be written"):
        outputs.copied(PREDICTIONS, [], files.address(tmp_path / "file" / "below"))
    assert (tmp_path / "file").read_text() == "kept"

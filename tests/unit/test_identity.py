"""Who is who: identifiers with their systems, what links them, and names that stay."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clinloom import plugins
from clinloom.cohort.split import uniform
from clinloom.files import Given
from clinloom.identity import crosswalk, linkage, names, placeholders, sharing
from clinloom.run import acquire
from clinloom.run.score import _identifiers
from clinloom.sources._images.measured import Measured
from clinloom.tables import ACQUIRED, CROSSWALK, EVENTS, LINKS, REJECTED, conform

A, B = "https://a.example/mrn", "https://b.example/mrn"


def table(text: str, **more):
    """A source of rows "who,value", and its bytes."""
    said = {"type": "table", "path": "x", "patient": "who", "time": {"at": "2024-01-01"}}
    said |= {"events": [{"code": "X", "value": "value"}], **more}
    return said, Given("rows.csv", text.encode())


def fhir(*people, **more):
    """A source of Patients, each with an Observation, and its bytes."""
    lines = []
    for person in people:
        about = {"reference": f"Patient/{person['id']}"}
        lines.append({"resourceType": "Patient", "gender": "female", **person})
        code = {"coding": [{"system": "http://loinc.org", "code": "1-1"}]}
        lines.append(
            {"resourceType": "Observation", "id": f"o{person['id']}", "subject": about}
            | {"effectiveDateTime": "2024-01-01", "code": code, "valueInteger": 1}
        )
    data = "\n".join(map(json.dumps, lines)).encode()
    return {"type": "fhir", "path": "x", **more}, Given("all.ndjson", data)


def number(value: str, system: str | None = A) -> dict:
    given = {"type": {"coding": [{"code": "MR"}]}, "value": value}
    return given | ({"system": system} if system else {})


class Acquired:
    """What acquisition makes of some sources, without Spark."""

    def __init__(self, before: pa.Table | None = None, **sources):
        options = {
            name: plugins.options("sources", said["type"]).model_validate(said)
            for name, (said, _) in sources.items()
        }
        parts = defaultdict(list)
        for name, (_, given) in sources.items():
            for made in acquire.read({"source": name, "units": [given]}, sources=options):
                for kind, rows in made.items():
                    parts[kind].append(rows)
        self.parts = parts
        self.ledger = [row for rows in parts["ledger"] for row in rows.to_pylist()]
        told = pa.concat_tables(parts["ledger"])
        self.notes = sharing.apart(acquire._systems(options, told), told)
        self.mingled = list(sharing.mingled(told))
        self.walked, self.shared = crosswalk.few(
            [rows.cast(LINKS.arrow) for rows in parts["links"]], [before] if before else []
        )
        self.known = self.walked.drop_columns(["own"])
        true = dict(
            zip(*(self.walked.column(n).to_pylist() for n in ("own", "subject_id")), strict=True)
        )
        events = [conform(rows, ACQUIRED).to_pylist() for rows in parts["events"]]
        self.events = [
            {**row, "subject_id": true[row["subject_id"]]} for some in events for row in some
        ]

    @property
    def subjects(self) -> set[int]:
        return {row["subject_id"] for row in self.events}

    def of(self, system: str, identifier: str) -> int:
        found = [
            row["subject_id"]
            for row in self.known.to_pylist()
            if (row["system"], row["identifier"]) == (system, identifier)
        ]
        assert len(found) == 1
        return found[0]

    def count(self, rule: str) -> int:
        return sum(row["count"] for row in self.ledger if row["rule"] == rule)


def test_a_number_of_two_hospitals_is_two_patients():
    people = [
        {"id": "a", "identifier": [number("12345", A)]},
        {"id": "b", "identifier": [number("12345", B)]},
        {"id": "c", "identifier": [number("12345", A)]},
    ]
    found = Acquired(ehr=fhir(*people))
    assert len(found.subjects) == 2
    assert found.of("#ehr", "Patient/a") == found.of("#ehr", "Patient/c") == found.of(A, "12345")
    assert found.of("#ehr", "Patient/b") == found.of(B, "12345")


def test_patients_of_two_servers_and_two_tables_are_apart_until_the_study_says_so():
    person = {"id": "1"}
    assert len(Acquired(a=fhir(person), b=fhir(person)).subjects) == 2
    server = {"server": "https://ehr.example/fhir"}
    assert len(Acquired(a=fhir(person, **server), b=fhir(person, **server)).subjects) == 1
    rows = "who,value\n0,1\n1,2\n 2 ,3\n"
    apart = Acquired(a=table(rows), b=table(rows))
    assert len(apart.subjects) == 6 and set(apart.notes) == {"a", "b"}
    assert "identifiers" in apart.notes["a"]
    rows = rows.replace("0,1\n", "")
    one = Acquired(a=table(rows, identifiers="mrn"), b=table(rows, identifiers="mrn"))
    assert len(one.subjects) == 2 and not one.notes


@pytest.mark.parametrize(
    "record, lab",
    [({}, A), ({"identifiers": A}, A), ({"identifiers": {A: "mrn", B: "other"}}, "mrn")],
)
def test_records_and_rows_share_patients_by_a_system_of_one_name(record, lab):
    person = {"id": "a", "identifier": [number("7"), number("8", B)]}
    rows = "who,value\n7,1\n8,1\n"
    found = Acquired(ehr=fhir(person, **record), lab=table(rows, identifiers=lab))
    assert found.of(lab, "7") == found.of("#ehr", "Patient/a") != found.of(lab, "8")
    assert not found.notes
    missed = Acquired(ehr=fhir(person), lab=table(rows, identifiers="mrn"))
    assert A in missed.notes["lab"]  # which the study may map to that name
    missed = Acquired(ehr=fhir(person, identifiers="mrn"), lab=table(rows, identifiers="mrn"))
    assert A in missed.notes["lab"] and len(missed.subjects) == 3  # no data name it "mrn"


def test_references_to_several_servers_are_told():
    said, given = fhir({"id": "1"})
    one, other = (
        given.data.replace(b"Patient/1", f"https://{name}.example/Patient/1".encode())
        for name in "ab"
    )
    assert not Acquired(ehr=(said, Given("f", one))).mingled
    both = said, Given("f", one + b"\n" + other)
    [line] = Acquired(ehr=both).mingled
    assert line.startswith("sources.ehr:") and "`server`" in line
    apart = {**said, "server": "https://a.example"}, both[1]
    found = Acquired(ehr=apart)
    assert not found.mingled and len(found.subjects) == 2


def test_an_identifier_without_a_system_is_its_sources_own():
    people = [{"id": "a", "identifier": [number("7", None)]}, {"id": "7"}]
    found = Acquired(a=fhir(*people), b=fhir(people[0]))
    assert len(found.subjects) == 3
    told = {"": "mrn"}
    told = {"identifiers": told}
    found = Acquired(a=fhir(people[0], **told), b=fhir(people[0], **told))
    assert len(found.subjects) == 1 and found.of("mrn", "7")


def test_a_bar_in_a_system_or_a_value_joins_nobody():
    people = [
        {"id": "a", "identifier": [number("b|c", "a")]},
        {"id": "b", "identifier": [number("c", "a|b")]},
        {"id": "c", "identifier": [number("c", "a%7Cb")]},
    ]
    found = Acquired(ehr=fhir(*people))
    assert len(found.subjects) == 3
    assert found.of("a|b", "c") != found.of("a", "b|c")


PLACEHOLDERS = [
    "UNKNOWN",
    "unknown ",
    "N/A",
    "(none)",
    "000000",
    "XXX",
    "Test",
    "test patient",
    "??",
]


@pytest.mark.parametrize("text", [*PLACEHOLDERS, "-", "999999999"])
def test_a_placeholder_links_nobody_and_is_nobody(text):
    people = [{"id": n, "identifier": [number(text)]} for n in "ab"]
    found = Acquired(ehr=fhir(*people), lab=table(f"who,value\n{text},1\n5,1\n", identifiers=A))
    assert len(found.subjects) == 3
    assert found.count("placeholder_identifier") == 2
    [refusal] = [r for rows in found.parts["rejected"] for r in rows.to_pylist()]
    assert (refusal["reason"], refusal["subject_id"]) == ("placeholder_patient", None)
    assert refusal["record_id"] == "rows.csv@10" and refusal["code"] == "X"
    assert text.strip() not in found.known.column("identifier").to_pylist()


def test_what_only_looks_like_a_placeholder_is_a_patient():
    fine = pa.array(["10", "0001", "TEST-77", "X1", "NAOMI", "7", "99", "A"])
    assert not any(placeholders.nobody(fine).to_pylist())
    assert placeholders.nobody(pa.array(["0"])).to_pylist() == [True]
    assert placeholders.nobody(pa.array(["0", "00"]), counted=True).to_pylist() == [False, True]


def test_an_image_of_a_placeholder_is_refused_once_and_its_issuer_is_its_system():
    measured = Measured("cxr")
    for patient, system in (("7", A), ("7", B), ("UNKNOWN", A)):
        image = {"patient": patient, "system": system, "sop_uid": f"u{patient}", "file": "f"}
        measured.add({**image, "modality": "CR", "body_part": "CHEST"}, {"mean": 1.0, "sd": 2.0})
    measured.reject("g", "no_time", record="u", patient="7", system=A)
    naming = names.namings({"cxr": (None, False)})["cxr"]
    made = names.named(measured.parcel(), naming)
    assert made["images"].num_rows == 2 and made["events"].num_rows == 4
    known = crosswalk.themselves(made["links"])
    assert sorted(known.column("system").to_pylist()) == [A, B]
    of = dict(
        zip(known.column("system").to_pylist(), known.column("subject_id").to_pylist(), strict=True)
    )
    assert made["events"].column("subject_id").to_pylist() == [of[A]] * 2 + [of[B]] * 2
    refused = made["rejected"]
    assert refused.schema == REJECTED.arrow
    told = zip(*(refused.column(n).to_pylist() for n in ("reason", "subject_id")), strict=True)
    assert list(told) == [("no_time", of[A]), ("placeholder_patient", None)]


def test_an_identifier_of_implausibly_many_records_links_none_of_them():
    several = crosswalk.HOLDERS
    for count, subjects in ((several, 1), (several + 1, several + 1)):
        people = [{"id": f"{n}", "identifier": [number("777")]} for n in range(count)]
        found = Acquired(ehr=fhir(*people), lab=table("who,value\n777,1\n", identifiers=A))
        assert len(found.subjects) == (1 if subjects == 1 else subjects + 1)
        assert found.shared == (0 if subjects == 1 else count)


def sides(found: Acquired, people) -> list[bool]:
    subject = np.array([found.of("#ehr", f"Patient/{p['id']}") for p in people])
    return (uniform(subject, seed=0) < 0.7).tolist()


def test_one_more_identifier_or_source_renames_nobody():
    people = [{"id": f"p{n}", "identifier": [number(f"M{n}")]} for n in range(200)]
    before = Acquired(ehr=fhir(*people))
    rows = "who,value\n" + "".join(f"A{n},1\n" for n in range(200))
    more = [{**p, "identifier": [*p["identifier"], number(f"A{p['id'][1:]}")]} for p in people]
    after = Acquired(cxr=table(rows, identifiers=A), ehr=fhir(*more))
    assert after.subjects == before.subjects
    assert sides(after, people) == sides(before, people)


@pytest.mark.parametrize("id", ["a", "z"])
def test_another_record_of_a_patient_takes_the_name_that_an_earlier_run_gave(id):
    first = {"id": "m", "identifier": [number("5")]}
    other = {"id": id, "link": [{"other": {"reference": "Patient/m"}}]}
    before = Acquired(ehr=fhir(first))
    [name] = before.subjects
    after = Acquired(before.known, ehr=fhir(first, other))
    assert after.subjects == {name}
    again = Acquired(after.known, ehr=fhir({"id": "0", "identifier": [number("5")]}, first, other))
    assert again.subjects == {name}


def test_who_was_known_by_an_image_alone_keeps_that_name_when_a_record_comes():
    rows = table("who,value\n5,1\n", identifiers=A)
    [name] = Acquired(cxr=rows).subjects
    before = Acquired(cxr=rows).known
    person = {"id": "m", "identifier": [number("5")]}
    assert Acquired(before, ehr=fhir(person), cxr=rows).subjects == {name}


def test_a_link_that_was_taken_back_parts_the_records_and_one_keeps_the_name():
    people = [{"id": n, "identifier": [number("5")]} for n in "ab"]
    together = Acquired(ehr=fhir(*people))
    [name] = together.subjects
    people[1]["identifier"] = [number("6")]
    apart = Acquired(together.known, ehr=fhir(*people))
    assert len(apart.subjects) == 2 and apart.of("#ehr", "Patient/a") == name


def test_a_patients_own_record_does_not_tell_its_identifier_beside_the_subject():
    found = Acquired(ehr=fhir({"id": "secret", "birthDate": "1950-01-01"}))
    records = {row["record_id"] for row in found.events if row["code"] != "LOINC//1-1"}
    [subject] = found.subjects
    assert records == {f"patient#{subject}"}
    assert "Observation/osecret" in {row["record_id"] for row in found.events}
    undated = Acquired(ehr=fhir({"id": "secret", "deceasedBoolean": True}))
    [refusal] = undated.parts["rejected"][0].to_pylist()
    assert refusal["reason"] == "no_time" and "secret" not in str(refusal["record_id"])


def test_contradictory_births_and_sexes_are_flagged():
    def row(subject, code, time=None, source="a"):
        return {"subject_id": subject, "code": code, "time": time, "source": source}

    day = 86_400_000_000
    events = EVENTS.rows(
        [
            row(1, "MEDS_BIRTH", 0),
            row(1, "MEDS_BIRTH", 40 * day, "b"),
            row(1, "GENDER//male"),
            row(1, "GENDER//F", source="b"),
            row(2, "MEDS_BIRTH", 0),
            row(2, "MEDS_BIRTH", day // 2, "b"),
            row(2, "GENDER//female"),
            row(2, "SEX//f"),
            row(2, "GENDER//unknown"),
            row(3, "LOINC//1-1", 0),
        ]
    )
    found = linkage.contradictions(events)
    assert found.to_pylist() == [
        {"subject_id": 1, "fact": "birth", "values": 2, "sources": 2},
        {"subject_id": 1, "fact": "sex", "values": 2, "sources": 2},
    ]
    told = linkage.counted(found).to_pylist()
    assert {(t["rule"], t["action"], t["count"]) for t in told} == {
        ("contradictory_birth", "flagged", 1),
        ("contradictory_sex", "flagged", 1),
    }
    assert linkage.contradictions(events.slice(9)).num_rows == 0
    assert linkage.contradictions(EVENTS.empty).num_rows == 0


def test_a_score_bears_a_number_with_its_system_before_a_record():
    known = CROSSWALK.rows(
        [
            {"system": "#ehr", "identifier": "Patient/a", "subject_id": 1},
            {"system": B, "identifier": "12345", "subject_id": 1},
            {"system": A, "identifier": "12345", "subject_id": 2},
            {"system": "#ehr", "identifier": "Patient?identifier=x|1", "subject_id": 3},
        ]
    )
    assert _identifiers(known).to_pylist() == [
        {"subject_id": 1, "patient": "12345", "system": B},
        {"subject_id": 2, "patient": "12345", "system": A},
        {"subject_id": 3, "patient": "Patient?identifier=x|1", "system": "#ehr"},
    ]


def test_names_come_apart_as_they_were_put_together():
    systems, values = ["a|b", "a%7Cb", "#s"], ["x|y", "|", "é\n"]
    found = names.pairs(names.texts(pa.array(systems), pa.array(values)))
    assert [part.to_pylist() for part in found] == [systems, values]
    assert pc.equal(names.texts("a|b", pa.array(["x"])), "a%7Cb|x").to_pylist() == [True]

"""Subjects that are named by a number keep that name in a fresh output when records are added."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.unit.test_identity import A, Acquired, fhir, number, sides, table

PEOPLE = [{"id": f"m{n}", "identifier": [number(f"M{n}")]} for n in range(100)]
EARLIER = [{"id": f"a{n}", "identifier": [number(f"M{n}")]} for n in range(100)]  # sorts first
TOLD = {"identifiers": A, "named_by": "number"}


def test_a_second_record_of_a_patient_renames_nobody():
    before = Acquired(ehr=fhir(*PEOPLE, **TOLD))
    after = Acquired(ehr=fhir(*EARLIER, *PEOPLE, **TOLD))
    assert after.subjects == before.subjects and len(after.subjects) == 100
    assert sides(after, PEOPLE) == sides(before, PEOPLE)
    by_record = Acquired(ehr=fhir(*PEOPLE, identifiers=A))
    assert Acquired(ehr=fhir(*EARLIER, *PEOPLE, identifiers=A)).subjects != by_record.subjects


def test_a_source_of_numbers_alone_gives_the_same_names():
    rows = table("who,value\n" + "".join(f"M{n},1\n" for n in range(100)), identifiers=A)
    assert Acquired(lab=rows, ehr=fhir(*PEOPLE, **TOLD)).subjects == Acquired(lab=rows).subjects


def test_a_system_that_the_study_renames_is_meant_by_its_name():
    mapped = {"identifiers": {A: "mrn"}, "named_by": "number"}
    rows = table("who,value\nM5,1\n", identifiers="mrn")
    [name] = Acquired(lab=rows).subjects
    assert name in Acquired(ehr=fhir(*PEOPLE, **mapped)).subjects


def test_who_has_no_number_is_named_by_the_record_and_an_earlier_name_stays():
    nobody = {"id": "x"}
    found = Acquired(ehr=fhir(nobody, **TOLD))
    assert found.subjects == Acquired(ehr=fhir(nobody)).subjects
    numbered = {**nobody, "identifier": [number("5")]}
    assert Acquired(found.known, ehr=fhir(numbered, **TOLD)).subjects == found.subjects


def test_a_number_is_of_a_system_that_the_study_names():
    with pytest.raises(ValidationError, match="`identifiers`"):
        Acquired(ehr=fhir(*PEOPLE, named_by="number"))

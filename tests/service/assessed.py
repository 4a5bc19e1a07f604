"""What `score --as fhir` leaves of the ward's patients, without Spark."""

from __future__ import annotations

from tests.service import made

from clinloom.deploy.assessment import Assessor
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.outputs import fhir
from clinloom.tables import CROSSWALK, SCORES


def lines(bundle: Bundle, patients: int) -> list[str]:
    """A line a patient."""
    door, told = Door(bundle), []
    about = {"assessor": Assessor.of(bundle), "bundle": bundle.hash, "leans": door.leans}
    for number in range(patients):
        answer = door.score(door.fhir(made.body(number)))
        names = {"patient": f"M{number:05}", "system": "urn:mrn"}
        rows = SCORES.rows({**row, **names} for row in answer.rows)
        [subject] = answer.patients
        own = {"system": "#ehr", "identifier": f"Patient/p{number}", "subject_id": subject}
        made_ = fhir.lines(answer.events, rows, CROSSWALK.rows([own]), **about)
        told += made_["lines"].column("line").to_pylist()
    assert len(told) == patients
    return told

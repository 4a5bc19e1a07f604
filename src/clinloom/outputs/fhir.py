"""One NDJSON file of FHIR R4 RiskAssessments, a line a prediction, as `POST /fhir/$predict` says.

Each has an identifier of its own, made of the bundle's hash, the subject and the moment, and names
its model by that hash: the same scoring gives the same lines, and `clinloom send` can tell what a
server holds. Where the study says `deploy.identifier`, the patient is named by record and number,
with the records that were known; else by `subject_id` alone, with none. (FHIR R4 9.8, Bulk Data)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events as ev
from clinloom import files
from clinloom.deploy.assessment import REFERENCE, Assessor, bases
from clinloom.deploy.door import Door
from clinloom.deploy.writeback import identified, prediction
from clinloom.files import Address
from clinloom.outputs import AT_ONCE, Scores, writing
from clinloom.store.stored import stream
from clinloom.study import Model
from clinloom.tables import Column, Table

REQUIRES: str | None = None
CONDITION = "Patient?identifier="  # who is known by an identifier alone
LINES = Table("lines", "resources as JSON", (Column("line", pa.string(), "with its end", False),))
BASES = ("subject_id", "time", "code", "record_id")


class Options(Model):
    """Nothing is to be set."""


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave the resources."""
    made = scores.turned(
        lines,
        [LINES],
        events=BASES if scores.known is not None else BASES[:1],
        assessor=Assessor.of(scores.bundle),
        bundle=scores.bundle.hash,
        leans=Door(scores.bundle).leans,
    )
    with writing(target):
        files.folder(target.parent)
        with files.building(target) as path, path.open("wb") as file:
            for part in made["lines"]:
                for rows in stream(str(part), None, AT_ONCE, coded=False):
                    for text in rows.column("line").chunks:
                        file.write("".join(text.to_pylist()).encode())
    return scores.predictions.rows or 0


def lines(
    events: pa.Table,
    predictions: pa.Table,
    known: pa.Table | None = None,
    *,
    assessor: Assessor,
    bundle: str,
    leans: frozenset[str],
) -> dict[str, pa.Table]:
    """The kernel: a line (LINES) for each prediction of whole patients.

    ``known``: the patients' rows of the crosswalk, where identifiers may leave.
    """
    own = records(known) if known is not None else {}
    found = bases(events, predictions, leans, own) if known is not None else None
    made = []
    for row in predictions.to_pylist():
        number = row["subject_id"]
        resource = assessor.assessment(
            row,
            subject=subject(row, own) if known is not None else pseudonym(number),
            basis=next(found) if found is not None else [],
            rationale="; ".join(reason["text"] for reason in row.get("reasons") or ()),
        )
        named = [prediction(bundle, number, row["prediction_time"])]
        resource = {**resource, "identifier": named, "performer": identified(bundle)}
        made.append(msgspec.json.encode(resource).decode() + "\n")
    return {"lines": pa.table([pa.array(made, pa.string())], schema=LINES.arrow)}


def records(known: pa.Table) -> dict[int, str | None]:
    """The least record, such as ``Patient/1``, of each subject in the crosswalk's rows."""
    text = known.column("identifier").cast(pa.string())
    record = pc.match_substring_regex(text, r"^Patient/[A-Za-z0-9\-.]{1,64}$")
    listed = known.filter(record).sort_by([("identifier", "descending")])
    named = listed.column("identifier").to_pylist()
    return dict(zip(ev.subjects(listed).tolist(), named, strict=True))


def subject(row: Mapping[str, Any], own: Mapping[int, str | None]) -> dict[str, Any]:
    """A Reference to the patient of a row of SCORES: the record, the number, or both."""
    found: dict[str, Any] = {}
    if record := own.get(row["subject_id"]):
        found["reference"] = record
    system, value = row["system"], row["patient"]
    if value and value.startswith(CONDITION):
        system, _, value = value.removeprefix(CONDITION).rpartition("|")
    if value and not REFERENCE.fullmatch(value) and "/Patient/" not in value:
        uri = system if system and ":" in system and not system.startswith("#") else None
        found["identifier"] = {**({"system": uri} if uri else {}), "value": value}
    return found or pseudonym(row["subject_id"])


def pseudonym(number: int) -> dict[str, Any]:
    """A Reference to who may not be named."""
    return {"identifier": {"system": "urn:clinloom:subject", "value": str(number)}}

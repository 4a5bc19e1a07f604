"""Of a source that tells mostly days a run says first that they count from their end."""

from __future__ import annotations

import json

import pytest
from tests.unit.test_fhir_source import concept, observation, resource

from clinloom.files import Given
from clinloom.run import acquire, tallies
from clinloom.run.record import doubtful
from clinloom.sources import fhir, table
from clinloom.tables import LEDGER

ROWS = b"""who,what,when
1,MEDS_BIRTH,1950-01-01
1,A,2024-03-05
1,A,2024-03
1,B,2024-03-06
1,B,2024-03-06T08:00:00Z
"""
HERE = {"path": "/x", "zone": "America/New_York"}
TABLE = table.Options(
    path="/x", patient="who", time={"column": "when", "zone": HERE["zone"]}, code={"column": "what"}
)
DAY = {"recordedDate": "2024-03-05", "code": concept()}
RECORDS = [
    *(resource("Condition", **DAY, onsetDateTime=onset) for onset in (None, "2019", "2019")),
    observation(issued="2024-03-05T08:00:00Z", effectiveDateTime="2024-03-05T08:00:00Z"),
]
LINES = b"\n".join(json.dumps(each).encode() for each in RECORDS)


def told(options, data: bytes):
    """The ledger of a source of one file."""
    unit = {"source": "lab", "units": [Given("t.csv" if options is TABLE else "t.ndjson", data)]}
    found = [p["ledger"] for p in acquire.read(unit, sources={"lab": options}) if "ledger" in p]
    return LEDGER.rows(row for part in found for row in part.to_pylist())


@pytest.mark.parametrize(("options", "data"), [(TABLE, ROWS), (fhir.Options(**HERE), LINES)])
def test_most_events_of_a_day_are_said_to_count_from_its_end(options, data):
    ledger = told(options, data)
    [line] = tallies.moved(["lab"], ledger)
    assert line == (
        "sources.lab: most events (3) tell a day, a month or a year and no hour: they count from"
        " its end"
    )
    given = [{"name": "lab", "events": 5, "images": 0}]
    assert list(doubtful(given, [], ledger.to_pylist())) == [line]
    assert not list(doubtful([{**given[0], "events": 6}], [], ledger.to_pylist()))

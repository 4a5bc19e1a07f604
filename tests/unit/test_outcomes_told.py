"""Scored on other stays, an example whose data tell every ending tells every outcome."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from clinloom.cohort import due
from clinloom.events import microseconds
from clinloom.run import api
from clinloom.tables import EVENTS

EXAMPLES = Path(__file__).parents[2] / "examples"
ADMITTED, DIED = dt.datetime(2012, 1, 1, tzinfo=dt.UTC), dt.datetime(2012, 3, 1, tzinfo=dt.UTC)
OUTCOME = "OUTCOME//IN_HOSPITAL_DEATH"


def stays(*died: int):
    """Ten stays of 48 measured hours, and the deaths in them: nothing else is ever told."""
    facts = [(n, ADMITTED, "PHYSIONET//RecordID") for n in range(10)]
    facts += [(n, ADMITTED + dt.timedelta(hours=n), "PHYSIONET//HR") for n in range(10)]
    facts += [(n, DIED, OUTCOME) for n in died]
    return EVENTS.rows({"subject_id": s, "time": t, "code": c} for s, t, c in sorted(facts))


@pytest.mark.parametrize("died", [(), (3, 7)])
def test_all_outcomes_of_other_stays_are_told(died):
    cohort = api.read_study(EXAMPLES / "physionet2012.yaml").cohort
    events = stays(*died)
    last = microseconds(DIED if died else ADMITTED + dt.timedelta(hours=9))
    now = microseconds(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    told = due(events, cohort, data_end=last, now=now)["index"]["boolean_value"].to_pylist()
    assert told == [n in died for n in range(10)]
    # Until the time at risk has passed it is not known who will die of those who did not.
    early = due(events, cohort, data_end=last, now=microseconds(DIED))["index"]["boolean_value"]
    assert early.to_pylist() == [True if n in died else None for n in range(10)]

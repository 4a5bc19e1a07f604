"""What acquisition says of its sources before anything is made of them."""

from __future__ import annotations

import pytest

from clinloom.errors import SourceError
from clinloom.run import tallies
from clinloom.tables import LEDGER


def ledger(**counts: dict[str, int]):
    """Events (by "") and refusals (by reason) of each source."""
    told = {"rule": tallies.EVENTS_OF}
    return LEDGER.rows(
        [
            {**told, "source": source, "action": action, "count": count}
            for source, actions in counts.items()
            for action, count in actions.items()
        ]
    )


def test_a_source_of_which_most_is_refused_is_told_with_the_reason():
    found = ledger(
        good={"": 100, "no_time": 100},
        bad={"": 25, "no_patient": 75, "invalid_date": 900},
    )
    (text,) = tallies.refused(["good", "bad"], found)
    assert text.startswith("sources.bad: 975 of 1,000 records were refused, mostly as invalid_date")


def test_a_source_without_any_event_ends_the_run():
    with pytest.raises(SourceError, match="no event was found in this source") as caught:
        tallies.tell_empty(["a", "b"], ledger(a={"": 1}, b={"no_time": 3}))
    assert "3 records were refused, mostly as no_time" in str(caught.value)

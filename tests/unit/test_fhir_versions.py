"""A withdrawal is told after the facts of its time, whatever stands beside in the same chunk."""

from __future__ import annotations

import pyarrow as pa
import pytest

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.versions import RANKS, WITHDRAWN, edition, of_refusal, versions

STAMPS = ["2020-03-01T10:00:00Z", "2020-03-01T10:00:00.5+02:00", "2020-03-01", "2020-03", "2020",
          "2020-03-01 10:00:00Z", "soon", "", None]  # fmt: skip


def facts(*stamps, number=None):
    kept = [r4.Observation(meta=r4.Meta(number, stamp), status="final") for stamp in stamps]
    told = [pa.array(stamps, pa.string()), pa.array([edition(one) for one in kept], pa.int64())]
    return [n or 0 for n in versions(*told, "UTC").to_pylist()]


@pytest.mark.parametrize("number", [None, "3"])
@pytest.mark.parametrize("stamp", STAMPS)
def test_what_is_withdrawn_at_the_time_of_a_fact_follows_it(stamp, number):
    meta = r4.Meta(number, stamp)
    refused = of_refusal(r4.Observation(meta=meta), "entered_in_error", "UTC")
    alone = facts(stamp, number=number)
    assert refused == alone[0] + WITHDRAWN
    for other in STAMPS:
        assert facts(stamp, other, number=number)[:1] == alone


def test_a_later_version_follows_what_was_withdrawn():
    withdrawn = r4.Observation(meta=r4.Meta("3", "2020-03-01T10:00:00Z"))
    (later,) = facts("2020-03-01T10:00:00.000001Z", number="4")
    assert later == of_refusal(withdrawn, "entered_in_error", "UTC") + RANKS - WITHDRAWN

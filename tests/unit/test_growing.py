"""Links that come one after another name the same subjects as all of them at once."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from clinloom.identity import growing
from clinloom.identity.few import HOLDERS, few
from clinloom.tables import LINKS


class Kept:
    """What a stream keeps of links, in memory."""

    def __init__(self):
        self.tables = {t.name: [t.empty] for t in (growing.KNOWN, growing.STANDING)}
        self.version = 0

    def asked(self, name, subjects):
        whole = pa.concat_tables(self.tables[name])
        return [whole.filter(pa.compute.is_in(whole.column("subject_id"), pa.array(subjects)))]

    def take(self, edges):
        self.version += 1
        found = growing.resolve([links(edges)], self.asked, version=self.version)
        self.tables["crosswalk"].append(found.known)
        self.tables["standing"].append(found.standing)
        return found


def links(edges):
    both = {*edges, *((one, one) for one, _ in edges)}
    return pa.table([list(side) for side in zip(*sorted(both), strict=True)], schema=LINKS.arrow)


def names(edges):
    """The subject of each identifier by its hash, of all links at once."""
    walked, _ = few([links(edges)])
    return dict(zip(*(walked.column(n).to_pylist() for n in ("own", "subject_id")), strict=True))


def graph(random, crowded):
    records = [f"100#ehr|Patient/{n}" for n in range(60)]
    numbers = [f"101urn:mrn|{n}" for n in range(40)]
    found = [(random.choice(records), random.choice(numbers)) for _ in range(70)]
    found += [(record, "101urn:mrn|none") for record in records[: HOLDERS + 5] if crowded]
    random.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_links_come_the_subjects_are_those_of_all_at_once(seed):
    random = Random(seed)
    edges, kept, held = graph(random, crowded=seed % 2), Kept(), {}
    for begin in range(0, len(edges), 7):
        found = kept.take(edges[begin : begin + 7])
        for own, (old, _) in found.moved.items():  # as a stream moves what it keeps
            assert held[own] == old
        rows = found.standing.to_pylist()
        assert found.moved.keys() == {r["subject_id"] for r in rows} & held.keys()
        held |= {row["subject_id"]: row["true"] for row in rows}
        expected = names(edges[: begin + 7])
        assert {own: held.get(own, own) for own in expected} == expected
    again = kept.take(edges)
    assert not again.moved and not again.known.num_rows + again.standing.num_rows
    assert {own: again.true.get(own, own) for own in expected} == expected


def test_of_an_identifier_that_too_many_have_few_links_are_kept():
    kept = Kept()
    for n in range(5 * HOLDERS):
        kept.take([(f"100#ehr|Patient/{n}", "101urn:mrn|none")])
    whole = pa.concat_tables(kept.tables["crosswalk"]).to_pylist()
    assert len({(row["patient"], row["other"]) for row in whole}) <= 2 * HOLDERS + 2
    standing = pa.concat_tables(kept.tables["standing"][-HOLDERS:]).to_pylist()
    assert all(row["true"] == row["subject_id"] for row in standing)

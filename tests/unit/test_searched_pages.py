"""Pages of searches, among resources whose own elements bear the names of a Bundle's."""

from __future__ import annotations

import json

import msgspec

from clinloom.deploy import _prefetch, _searches

LINKED = {
    "resourceType": "Patient",
    "id": "1",
    "link": [{"other": {"reference": "Patient/2"}, "type": "seealso"}],
}
STAY = {"resourceType": "Encounter", "id": "s", "type": [{"text": "ward"}]}
FIRST = {
    "resourceType": "Bundle",
    "type": "searchset",
    "link": [{"relation": "next", "url": "https://ehr.example/2"}],
}


def test_a_patient_who_is_linked_to_another_was_prefetched():
    wanted = {_prefetch.READ: f"Patient/{_prefetch.PATIENT}"}
    for given in (LINKED, {"resourceType": "Bundle", "entry": [{"resource": LINKED}]}):
        prefetch = {_prefetch.READ: msgspec.Raw(json.dumps(given).encode())}
        found, asking = _prefetch.taken(wanted, prefetch, "1", server=None)
        assert not asking
        assert [json.loads(bytes(resource)) for resource in found] == [LINKED]


def test_a_first_page_among_resources_is_not_the_whole_search():
    for others in ([], [LINKED], [STAY, {}, 3]):
        assert not _searches.whole(json.dumps([*others, FIRST]).encode())
        assert _searches.whole(json.dumps([*others, FIRST, {**FIRST, "link": []}]).encode())

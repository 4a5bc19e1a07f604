"""Bad resources: each is an event, counted as not read, or refused with its place; the only fault
is one that names the file and its mend; no value is shown."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mutations import (
    CANARY,
    CSV,
    LONG,
    LONGEST,
    SOON,
    SOUND,
    WRONG,
    begins,
    changed,
    mutated,
    places,
    read,
    written,
)

from clinloom.sources import fhir, table


def unaccounted(
    lines: list[bytes],
    found: dict[str, list[dict[str, Any]]],
    *,
    file: str = "all.ndjson",
    at: list[int] | None = None,
) -> list[bytes]:
    """The lines of an NDJSON file, or the resources of a Bundle that begin ``at`` these bytes, of
    which nothing is told."""
    refused = {row["position"] for row in found["rejected"]}
    told = {event["record_id"] for event in found["events"]}
    told |= {row["patient"] for row in found["links"]}
    told_of = [row for row in found["ledger"] if row["rule"] == "not_read"]
    unread = sum(row["count"] for row in told_of if "." not in row["code"])
    left = []
    for line, begin in zip(lines, begins(lines) if at is None else at, strict=True):
        if not line.strip() or begin in refused or f"{file}@{begin}" in told:
            continue
        try:
            made = json.loads(line.decode(errors="replace"), strict=False)
            name = f"{made['resourceType']}/{made['id']}"
        except (ValueError, KeyError, TypeError, RecursionError):
            name = ""
        if name not in told:
            left.append(line)
    return left if len(left) > unread else []


def lines_of(kinds: list[dict[str, Any]]) -> list[bytes]:
    """Each place of each resource, wrong in each way."""
    out = []
    for sound in kinds:
        for way in places(sound):
            for value in WRONG:
                if value == LONGEST and way[-1] == "valueInteger":
                    continue  # below, alone
                out.append(written({**changed(sound, way, value), "id": f"r{len(out)}"}))
    return out


@pytest.mark.parametrize("kind", sorted({str(sound["resourceType"]) for sound in SOUND}))
def test_every_field_of_a_resource_may_be_of_any_type(tmp_path, kind):
    lines = lines_of([sound for sound in SOUND if sound["resourceType"] == kind])
    (tmp_path / "all.ndjson").write_bytes(b"\n".join(lines))
    found = read(fhir, tmp_path)
    assert found is not None
    assert not unaccounted(lines, found)


def test_a_whole_number_that_no_float_holds_is_refused_or_a_text(tmp_path):
    sound = next(s for s in SOUND if "valueInteger" in s)
    lines = [written({**sound, "id": "r", "valueInteger": LONGEST})]
    (tmp_path / "all.ndjson").write_bytes(lines[0])
    found = read(fhir, tmp_path)
    assert found is not None
    assert not unaccounted(lines, found)


@SOON
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_broken_line_costs_itself_alone(tmp_path_factory, rng, times):
    """Bytes lost, added and changed: NULs, broken UTF-8, keys told twice, lines cut and joined."""
    folder = tmp_path_factory.mktemp("ndjson")
    lines = [written({**sound, "id": f"r{n}"}) for n, sound in enumerate(SOUND)]
    for _ in range(times):
        at = rng.randrange(len(lines))
        lines[at] = mutated(lines[at], rng)
    lines = b"\n".join(lines).split(b"\n")
    (folder / "all.ndjson").write_bytes(b"\n".join(lines))
    found = read(fhir, folder)
    assert found is not None
    assert not unaccounted(lines, found)


@pytest.mark.parametrize("name", ["b.json", "b.json.gz", "b.zip"])
def test_a_broken_bundle_is_refused_at_its_place(tmp_path, name):
    entry = [{"fullUrl": f"urn:uuid:{n}", "resource": r} for n, r in enumerate(SOUND)]
    data = written({"resourceType": "Bundle", "type": "batch", "entry": entry})
    rng = random.Random(7)  # noqa: S311 - the same mutations each time
    for number in range(40):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        broken = data if number == 0 else mutated(data, rng)
        if name.endswith(".gz"):
            broken = gzip.compress(broken)
        elif name.endswith(".zip"):
            held = io.BytesIO()
            with zipfile.ZipFile(held, "w", 8) as made:
                made.writestr("b.json", broken)
            broken = held.getvalue()
        (folder / name).write_bytes(broken)
        found = read(fhir, folder)
        assert found is not None
        assert found["events"] or found["rejected"]
        if number == 0:
            assert not found["rejected"] and len(found["events"]) > 20


ENDLESS = ("@deep@", "@nan@", "@half@")  # no JSON, or deeper than any: the whole Bundle is refused


def test_every_entry_of_a_bundle_is_an_event_not_read_or_refused_at_its_place(tmp_path):
    """Each place of each resource, wrong in some way: no entry is lost, and none costs another."""
    wrong = [value for value in WRONG if value not in (*ENDLESS, LONGEST)]
    made = [(sound, way) for sound in SOUND for way in places(sound)]
    lines = [
        written({**changed(sound, way, wrong[n % len(wrong)]), "id": f"r{n}"})
        for n, (sound, way) in enumerate(made)
    ]
    data, at = b'{"resourceType": "Bundle", "type": "batch", "entry": [', []
    for line in lines:
        data += b'{"resource": '
        at.append(len(data))
        data += line + b"}, "
    (tmp_path / "b.json").write_bytes(data + b"{}]}")
    found = read(fhir, tmp_path)
    assert found is not None
    assert not unaccounted(lines, found, file="b.json", at=at)
    assert {row["position"] for row in found["rejected"]} < set(at)
    assert all(row["file"] == "b.json" and row["reason"] for row in found["rejected"])
    assert len(found["events"]) > 20


STRANGE = {
    "deep": (b'{"resourceType":"Patient","id":"a","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "deep document": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep contained": b'{"resourceType":"MedicationRequest","id":"a","contained":['
    + b'{"contained":[' * 10_000
    + b"]}" * 10_000
    + b"]}",
    "NULs": bytes(10_000),
    "not JSON": b"%PDF-1.4 " + CANARY.encode(),
    "a number": b"12",
    "a text": b'"' + CANARY.encode() + b'"',
    "null": b"null",
    "brackets": b"[]",
    "mixed": b'[{"resourceType":"Patient"},1,null,[],{}]',
    "no type": b'{"a":1}',
    "a type of no type": b'{"resourceType":1}',
    "a Bundle of nothing": b'{"resourceType":"Bundle","entry":[null,{},{"resource":null}]}',
    "a Bundle in itself": b'{"resourceType":"Bundle","entry":[{"resource":' * 400
    + b'{"resourceType":"Bundle"}'
    + b"}]}" * 400,
}


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "a.json.gz"])
@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_resource_is_refused(tmp_path, what, name):
    data = STRANGE[what]
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (tmp_path / "sound.ndjson").write_bytes(written({**SOUND[0], "id": "sound"}))
    found = read(fhir, tmp_path)
    assert found is not None
    assert {e["patient"] for e in found["events"]} == {"Patient/sound"}


@pytest.mark.parametrize("form", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_another_encoding_is_told(tmp_path, form):
    lines = [written({**SOUND[1], "id": f"r{n}"}).decode() for n in range(3)]
    (tmp_path / "all.ndjson").write_bytes("\n".join(lines).encode(form))
    found = read(fhir, tmp_path)
    assert found is not None
    assert len(found["events"]) == 3 if form == "utf-8-sig" else len(found["rejected"]) >= 1
    (tmp_path / "t.csv").write_bytes("\n".join(CSV).encode(form))
    made = read(table, tmp_path, include="*.csv", **LONG)
    assert (made is None) == (form != "utf-8-sig")


def test_a_very_long_line_is_read_or_refused(tmp_path):
    long = {**SOUND[1], "note": [{"text": "x" * (20 << 20)}], "id": "long"}
    lines = [written(long), written({**long, "status": 1}), b"x" * (20 << 20)]
    lines += [written({**SOUND[1], "id": "short"})]
    (tmp_path / "all.ndjson").write_bytes(b"\n".join(lines))
    found = read(fhir, tmp_path)
    assert found is not None
    assert {e["record_id"] for e in found["events"]} == {"Observation/long", "Observation/short"}
    assert sorted(r["position"] for r in found["rejected"]) == begins(lines)[1:3]


@pytest.mark.parametrize("where", ["synthea_r4/bundles.zip", "conformance/fhir_r4_examples.zip"])
def test_real_resources_mutated(data, tmp_path, where):
    rng = random.Random(11)  # noqa: S311 - the same mutations each time
    with zipfile.ZipFile(data / where) as archive:
        infos = sorted(archive.infolist(), key=lambda info: (info.file_size, info.filename))
        chosen = [i for i in infos if i.filename.endswith((".json", ".json.gz")) and i.file_size]
        for number, info in enumerate(chosen[:: max(1, len(chosen) // 60)][:40]):
            content = archive.read(info)
            content = gzip.decompress(content) if info.filename.endswith(".gz") else content
            content = content[: 1 << 20]
            (tmp_path / f"{number}.json").write_bytes(mutated(content, rng))
            deep = deeply(content, rng)
            if deep is not None:
                (tmp_path / f"{number}d.json").write_bytes(deep)
    found = read(fhir, tmp_path)
    assert found is not None
    assert found["rejected"]


def deeply(content: bytes, rng: random.Random) -> bytes | None:
    """A document in which some values are of another kind."""
    try:
        made = json.loads(content)
        ways = list(places(made))
        for way in rng.sample(ways, min(3, len(ways))):
            made = changed(made, way, rng.choice(WRONG))
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return written(made)

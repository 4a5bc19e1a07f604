"""Packed and large files are read in parts: the same answer, flat memory, and a stated bound."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from clinloom import files
from clinloom.sources import fhir, table
from clinloom.sources._rows import csv, parquet
from clinloom.tables import PARCELS, conform

LONG = {
    "patient": "pid",
    "time": {"column": "when"},
    "code": {"column": "what"},
    "value": "value",
}
OF_ROW = {
    "patient": {"row": "RecordID"},
    "time": {"static": True},
    "code": {"column": "what"},
    "value": "value",
}
HEADER = "pid,what,value,when"


def told(kind, path, units=None, **options):
    """All parcels of a source together, each group of units read as a task reads it."""
    chosen = kind.Options.model_validate({"path": str(path), **options})
    found = [list(kind.plan(chosen, "sources.x"))] if units is None else units(chosen)
    parts: dict[str, list[pa.Table]] = {name: [] for name in PARCELS}
    for group in found:
        for parcel in kind.read(group, chosen, "x"):
            for name, rows in parcel.items():
                parts[name].append(conform(rows, PARCELS[name]))
    return {n: pa.concat_tables([PARCELS[n].empty, *p]).to_pylist() for n, p in parts.items()}


def each(chosen):
    """Every unit in a task of its own."""
    return [[unit] for unit in table.plan(chosen, "sources.x")]


@pytest.fixture
def small(monkeypatch):
    """Parts, ranges and batches of a few rows."""
    monkeypatch.setattr("clinloom.files.parts.PART", 300)
    monkeypatch.setattr("clinloom.files.pieces.RANGE", 400)
    monkeypatch.setattr("clinloom.files.parts.BLOCK", 64)
    monkeypatch.setattr("clinloom.files.unpacked.BLOCK", 64)
    monkeypatch.setattr("clinloom.files.archives.FETCHED", 50)
    monkeypatch.setattr(csv, "BATCH", 120)
    monkeypatch.setattr(parquet, "BATCH", 16)


def packed(folder: Path, name: str, data: bytes, how: str) -> Path:
    """The file, packed in one of the ways that exports are."""
    if how == "gz":
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    elif how == "gz of several":
        cut = len(data) // 2
        both = gzip.compress(data[:cut]) + gzip.compress(data[cut:])
        (folder / f"{name}.gz").write_bytes(both + b"\0" * 9)
    elif how == "gz in a zip":
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr(f"{name}.gz", gzip.compress(data))
    elif how == "gz by content":
        (folder / name).write_bytes(gzip.compress(data))
    else:
        kind = {"stored": 0, "deflated": 8, "bzip2": 12, "lzma": 14}[how]
        with zipfile.ZipFile(folder / "a.zip", "w", kind) as made:
            made.writestr(name, data)
    return folder


WAYS = [
    "gz",
    "gz of several",
    "gz in a zip",
    "gz by content",
    "stored",
    "deflated",
    "bzip2",
    "lzma",
]


def plain(found):
    """The answer without the names of files."""
    for row in [*found["events"], *found["rejected"]]:
        row.pop("file", None)
        row["record_id"] = (row["record_id"] or "").split("@")[-1]
    return found


@pytest.mark.parametrize("how", WAYS)
def test_a_packed_table_is_read_in_parts_as_the_plain_one(tmp_path, small, how):
    notes = ["short", 'said ""no""', "two\nlines", "\n".join(f"line {n}" for n in range(30))]
    kinds = np.random.default_rng(3).integers(0, 4, 200)
    rows = [f'{n % 5},"{notes[k]}",{n},2024-01-02' for n, k in enumerate(kinds)]
    rows[50], rows[60] = "broken", ",K,1,2024-01-02"
    data = "\n".join([HEADER, *rows]).encode()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/t.csv").write_bytes(data)
    (tmp_path / "packed").mkdir()
    folder = packed(tmp_path / "packed", "t.csv", data, how)
    units = list(files.parted(next(files.listing(str(folder)))))
    if how != "gz in a zip":
        assert len(units) > 10
    wanted = plain(told(table, tmp_path / "plain", **LONG))
    assert plain(told(table, folder, **LONG)) == wanted
    assert len(wanted["events"]) == 198 and len(wanted["rejected"]) == 2


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_last_rows_of_a_file_are_whole_wherever_it_is_cut(tmp_path, monkeypatch, end):
    rows = [f'{n},"first\nsecond",{n},2024-01-02' for n in range(4)]
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *rows]) + end)
    for size in range(20, 130):
        monkeypatch.setattr("clinloom.files.pieces.RANGE", size)
        found = told(table, tmp_path, **LONG)
        assert not found["rejected"], size
        assert [e["numeric_value"] for e in found["events"]] == [0, 1, 2, 3], size


@pytest.mark.parametrize("bad", ['9,"a,9,2024', "9,a\rb,9,2024"])
def test_a_row_that_cannot_be_told_from_others_costs_itself_alone(tmp_path, bad):
    """In a file whose sound cells hold line breaks, too."""
    rows = [f'{n},"first\nsecond",{n},2024-01-02' for n in range(200)]
    rows.insert(120, bad)
    text = "\n".join([HEADER, *rows, ""])
    (tmp_path / "t.csv").write_bytes(text.encode())
    found = told(table, tmp_path, **LONG)
    assert {e["numeric_value"] for e in found["events"]} == set(range(200))
    (refusal,) = found["rejected"]
    assert (refusal["reason"], refusal["position"]) == ("malformed_row", text.index(bad))


def observation(number: int) -> bytes:
    fields = {"id": f"o{number}", "status": "final", "valueInteger": number}
    fields |= {"subject": {"reference": f"Patient/{number % 7}"}, "issued": "2024-03-01"}
    coding = [{"system": "http://loinc.org", "code": "2160-0"}]
    return json.dumps(
        {"resourceType": "Observation", "code": {"coding": coding}, **fields}
    ).encode()


@pytest.mark.parametrize("name", ["all.ndjson", "all.json"])
@pytest.mark.parametrize("how", ["gz", "gz in a zip", "deflated"])
def test_a_packed_bulk_export_is_read_in_parts(tmp_path, small, name, how):
    lines = [observation(n) for n in range(60)]
    lines[20] = b'{"resourceType": "Observ'
    folder = packed(tmp_path, name, b"\n".join(lines), how)
    found = told(fhir, folder)
    assert sorted(e["numeric_value"] for e in found["events"]) == [n for n in range(60) if n != 20]
    (refusal,) = found["rejected"]
    assert refusal["reason"] == "malformed_json"
    assert refusal["position"] == sum(len(line) + 1 for line in lines[:20])


def test_a_packed_file_is_read_whole_or_not_at_all(tmp_path, small):
    """Of a file whose check sum is wrong at its end, no row is taken for true."""
    data = "\n".join([HEADER, *(f"{n},K,{n},2024-01-02" for n in range(300))]).encode()
    sound = gzip.compress(data)
    (tmp_path / "cut.csv.gz").write_bytes(sound[:-20])
    (tmp_path / "sum.csv.gz").write_bytes(sound[:-8] + b"\0\0\0\0" + sound[-4:])
    (tmp_path / "tail.csv.gz").write_bytes(sound + b"what is this?")
    (tmp_path / "sound.csv.gz").write_bytes(sound)
    for kind in (0, 8, 12, 14):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", kind) as made:
            made.writestr("t.csv", data)
        made = bytearray(held.getvalue())
        made[200] ^= 0xFF
        (tmp_path / f"{kind}.zip").write_bytes(made)
    found = told(table, tmp_path, **LONG)
    assert [e["numeric_value"] for e in found["events"]] == list(range(300))
    assert {(r["file"], r["reason"]) for r in found["rejected"]} == {
        (name, "unreadable_file")
        for name in (
            "cut.csv.gz",
            "sum.csv.gz",
            "tail.csv.gz",
            *(f"{kind}.zip!/t.csv" for kind in (0, 8, 12, 14)),
        )
    }


@pytest.mark.parametrize("how", ["gz", "deflated", "gz in a zip"])
def test_what_unpacks_to_more_than_the_study_allows_is_refused(tmp_path, how):
    rows = "\n".join([HEADER, *(f"{n},K,{n},2024-01-02" for n in range(100_000))]).encode()
    packed(tmp_path, "t.csv", rows, how)
    told_of = {"path": str(tmp_path), **LONG}
    (refusal,) = told(table, **told_of, unpacked_at_most="1m")["rejected"]
    assert refusal["reason"] == "too_large" and refusal["file"].removesuffix(".gz").endswith(
        "t.csv"
    )
    assert len(told(table, **told_of, unpacked_at_most="4m")["events"]) == 100_000
    held = told(table, **told_of, whole_at_most="1m")
    assert len(held["events"]) == 100_000  # rows are not held


@pytest.mark.parametrize("how", ["gz", "deflated", "gz in a zip"])
def test_what_must_be_held_whole_has_a_bound(tmp_path, how):
    """A JSON document, and a line without an end: 3 MB here, whatever 3 kB unpack to."""
    entry = [{"resource": json.loads(observation(n))} for n in range(12_000)]
    document = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entry}).encode()
    packed(tmp_path, "b.json", document, how)
    (refusal,) = told(fhir, tmp_path, whole_at_most="1m")["rejected"]
    assert refusal["reason"] == "too_large"
    assert len(told(fhir, tmp_path)["events"]) == 12_000
    bomb = tmp_path / "bomb"
    bomb.mkdir()
    packed(bomb, "t.csv", b"pid,what,value,when\n" + bytes(40 << 20), how)
    (refusal,) = told(table, bomb, whole_at_most="1m", **LONG)["rejected"]
    assert refusal["reason"] == "too_large"


def test_the_bounds_are_written_as_memory_is():
    for wrong in ("12", "1.5g", "g", "64gb", 5):
        with pytest.raises(ValidationError):
            table.Options.model_validate({"path": "x", **LONG, "unpacked_at_most": wrong})


MEMORY = """
import resource, sys
from clinloom.sources import fhir, table
from tests.unit.test_unpacking import LONG

kind, path = sys.argv[1:]
source = {"table": table, "fhir": fhir}[kind]
said = LONG if kind == "table" else {}

def read(path):
    options = source.Options.model_validate({"path": path, **said})
    parcels = source.read(list(source.plan(options, "x")), options, "x")
    return sum(p["events"].num_rows for p in parcels if "events" in p)

read(path + "/few")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(read(path + "/many"), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("how", ["gz", "deflated"])
@pytest.mark.parametrize("kind", ["table", "fhir"])
def test_memory_is_flat_however_far_a_file_inflates(tmp_path, kind, how):
    """400 MB, packed to less than one: a worker needs no more than some parts of it."""
    filler = "x" * 20_000
    if kind == "table":
        lead, line = f"{HEADER},note\n", f"1,K,4,2024-01-02,{filler}\n"
    else:
        made = json.loads(observation(1)) | {"text": {"div": filler}}
        lead, line = "", json.dumps(made) + "\n"
    for folder, count in (("few", 10), ("many", 20_000)):
        (tmp_path / folder).mkdir()
        name = "t.csv" if kind == "table" else "all.ndjson"
        path = tmp_path / folder / f"{name}.gz"
        if how == "gz":
            with gzip.open(path, "wb", compresslevel=1) as file:
                file.write(lead.encode())
                for _ in range(count // 10):
                    file.write(line.encode() * 10)
        else:
            with zipfile.ZipFile(tmp_path / folder / "a.zip", "w", 8, compresslevel=1) as made:
                with made.open(name, "w") as file:
                    file.write(lead.encode())
                    for _ in range(count // 10):
                        file.write(line.encode() * 10)
    command = [sys.executable, "-c", MEMORY, kind, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    events, grown = map(int, done.stdout.split())
    assert events == 20_000
    assert grown < 200, f"{grown} MB"


ICU = "Time,what,value\n"


def stays(folder: Path, how: str) -> dict[str, int]:
    """Files of one patient each, whose name stands early, late, or in the middle."""
    counts = {}
    for name, place in (("early", 0), ("late", 199), ("middle", 90), ("short", 1)):
        rows = [("HR", str(n)) for n in range(200 if name != "short" else 3)]
        rows.insert(place, ("RecordID", name))
        counts[name] = len(rows)
        text = "what,value\n" + "".join(f"{what},{value}\n" for what, value in rows)
        if how == "parquet":
            columns = {"what": [r[0] for r in rows], "value": [r[1] for r in rows]}
            pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=30)
        elif how == "gz":
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        elif how == "zip":
            with zipfile.ZipFile(folder / f"{name}.zip", "w", 8) as made:
                made.writestr(f"{name}.csv", text)
        else:
            (folder / f"{name}.csv").write_text(text)
    return counts


@pytest.mark.parametrize("how", ["csv", "gz", "zip", "parquet"])
def test_a_row_tells_whose_a_file_is_however_large_the_file(tmp_path, small, how):
    counts = stays(tmp_path, how)
    found = told(table, tmp_path, each, **OF_ROW)
    assert not found["rejected"]
    for event in found["events"]:
        assert event["record_id"].startswith(event["patient"])
    held = [event["patient"] for event in found["events"]]
    assert {name: held.count(name) for name in counts} == counts
    own = [e for e in found["events"] if e["code"] == "RecordID"]
    assert len(own) == 4 and all(e["numeric_value"] is e["text_value"] is None for e in own)


def test_a_large_file_that_tells_no_patient_is_refused_row_by_row(tmp_path, small):
    text = "what,value\n" + "".join(f"HR,{n}\n" for n in range(300))
    (tmp_path / "nobody.csv").write_text(text)
    found = told(table, tmp_path, **OF_ROW)
    assert not found["events"]
    assert [r["reason"] for r in found["rejected"]] == ["no_patient"] * 300


@pytest.mark.parametrize("how", ["csv", "gz", "zip", "parquet"])
def test_each_row_is_a_patient_of_its_own_however_large_the_file(tmp_path, small, how):
    counts = stays(tmp_path, how)
    chosen = {**OF_ROW, "patient": {"each_row": True}}
    found = told(table, tmp_path, each, **chosen)
    patients = [event["patient"] for event in found["events"]]
    assert len(set(patients)) == len(patients) == sum(counts.values())
    assert all(event["patient"] == event["record_id"] for event in found["events"])
    assert {row["patient"] for row in found["links"]} == set(patients)


@pytest.mark.parametrize("name", ["t.dat", "t.parq", "t", "t.csv", "t.PARQUET"])
@pytest.mark.parametrize("large", [True, False])
def test_parquet_is_known_by_its_content(tmp_path, monkeypatch, name, large):
    """It has no lines to be cut at: one unit, whose rows are read once."""
    rows = pa.table({"pid": ["a"] * 500, "value": list(range(500))})
    pq.write_table(rows, tmp_path / name, row_group_size=100)
    if large:
        monkeypatch.setattr("clinloom.files.pieces.RANGE", 256)
    chosen = {"patient": "pid", "time": {"static": True}}
    chosen["events"] = [{"code": "V", "value": "value"}]
    units = each(table.Options.model_validate({"path": str(tmp_path), **chosen}))
    assert len(units) == 1
    found = told(table, tmp_path, each, **chosen)
    assert [e["numeric_value"] for e in found["events"]] == list(range(500))
    assert [e["record_id"] for e in found["events"][:2]] == [f"{name}#0", f"{name}#1"]


@pytest.mark.parametrize("name", ["t.parquet", "t.dat"])
@pytest.mark.parametrize("how", ["gz", "gz by content", "gz in a zip", "deflated", "stored"])
def test_packed_parquet_is_read(tmp_path, name, how):
    held = io.BytesIO()
    pq.write_table(pa.table({"pid": ["a"] * 50, "value": list(range(50))}), held)
    packed(tmp_path, name, held.getvalue(), how)
    chosen = {"patient": "pid", "time": {"static": True}}
    chosen["events"] = [{"code": "V", "value": "value"}]
    found = told(table, tmp_path, **chosen)
    assert [e["numeric_value"] for e in found["events"]] == list(range(50))


def test_a_large_file_is_cut_by_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("clinloom.files.pieces.RANGE", 100)
    document = json.dumps({"resourceType": "Bundle", "entry": [1] * 200}, indent=1).encode()
    lines = b"\n".join(observation(n) for n in range(5))
    whole = {"a.fhir": document, "b.txt": b"[" + lines.replace(b"\n", b",") + b"]"}
    whole |= {"c.dat": gzip.compress(np.random.default_rng(0).bytes(500))}
    cut = {"d.json": lines, "e.ndjson": lines, "f.csv": b"\xef\xbb\xbfa,b\n" + b"1,2\n" * 99}
    for name, data in {**whole, **cut}.items():
        (tmp_path / name).write_bytes(data)
    units = list(files.cut(files.listing(str(tmp_path))))
    for name in whole:
        assert [unit.start for unit in units if unit.name == name] == [None]
    for name, data in cut.items():
        found = [unit.read() for unit in units if unit.name == name]
        assert len(found) > 2 and b"".join(found) == data

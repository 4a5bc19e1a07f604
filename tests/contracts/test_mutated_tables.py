"""Bad tables: each row is an event or refused with its place; the only fault is one that names the
file and its mend; no cell is shown."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mutations import (
    CANARY,
    CSV,
    LONG,
    SOON,
    SOUND,
    begins,
    mutated,
    read,
    written,
)

from clinloom.errors import SourceError
from clinloom.sources import fhir, table
from clinloom.sources._declared import TimeSpec
from clinloom.sources._images.manifest import Manifest

CELLS = ["1", "", " ", "K", CANARY, "1e400", "9" * 400, "-0", "nan", "inf", "\0", "ä", "2024-01-02"]
CELLS += ["99999-12-31", "0000-00-00", "-1", "1,5", "\ufeff", "\u2028", "=1+1", "0x10", "1_000"]


@SOON
@given(st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=7), max_size=30))
def test_each_row_is_an_event_or_refused_however_many_cells_it_has(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("ragged")
    lines = [CSV[0], *("\t".join(row) for row in rows)]
    data = "\n".join(lines).replace(",", "\t").encode()
    (folder / "t.tsv").write_bytes(data)
    found = read(table, folder, delimiter="\t", **LONG)
    assert found is not None
    places = [int(e["record_id"].split("@")[1]) for e in found["events"]]
    places += [row["position"] for row in found["rejected"] if row["position"] is not None]
    texts = [line.encode().replace(b",", b"\t") for line in lines]
    at = begins(texts)
    filled = [at[n] for n, text in enumerate(texts) if n and text not in (b"", b"\r")]
    assert sorted(places) == filled


@SOON
@given(st.randoms(use_true_random=False), st.integers(1, 5), st.booleans())
def test_broken_bytes_in_a_table_cost_rows_and_nothing_else(tmp_path_factory, rng, times, quoted):
    folder = tmp_path_factory.mktemp("bytes")
    lines = [line.replace("K", '"K, a\nb"') if quoted else line for line in CSV]
    data = "\n".join(lines).encode()
    head = len(lines[0]) + 1 if rng.random() < 0.7 else 0
    for _ in range(times):
        data = data[:head] + mutated(data[head:], rng)
    (folder / "t.csv").write_bytes(data)
    found = read(table, folder, **LONG)
    if found is None:
        assert not head
        return
    told = [(int(e["record_id"].split("@")[1]), "event") for e in found["events"]]
    told += [(row["position"], row["reason"]) for row in found["rejected"]]
    told = [(place, what) for place, what in told if place is not None]
    assert len(set(told)) == len(told)  # a line in a broken encoding may break its row, too
    assert all(place == 0 or data[place - 1 : place] == b"\n" for place, _ in told)
    if data[head:].strip():
        assert found["events"] or found["rejected"]


@pytest.mark.parametrize("column", ["person_id", "concept_id", "at"])
def test_a_table_without_a_column_is_told_and_shows_no_cell(tmp_path, column):
    header = ["person_id", "concept_id", "at", "value"]
    header.remove(column)
    (tmp_path / "measurement.csv").write_text(
        ",".join(header) + "\n" + ",".join([CANARY] * 3) + "\n"
    )
    said = {"value": "value", "time": {"column": "at"}, "code": {"column": "concept_id"}}
    with pytest.raises(SourceError) as caught:
        chosen = table.Options.model_validate(
            {
                "path": str(tmp_path),
                "patient": "person_id",
                **said,
                "code": {"column": "concept_id"},
            }
        )
        list(table.read(list(table.plan(chosen, "x")), chosen, "x"))
    text = str(caught.value)
    assert f"no column '{column}'" in text and "measurement.csv" in text and CANARY not in text
    assert caught.value.mend


@pytest.mark.parametrize("cells", ["Nate,Vale,K,mg,1950", "pidd,whit,vale,unitt,wheb"])
def test_a_first_line_of_a_patients_cells_is_never_shown(tmp_path, cells):
    """Even where one looks like a column's name: what is near is told of a header alone."""
    (tmp_path / "t.csv").write_text(f"{cells}\n{cells}\n")
    for options in (LONG, {**LONG, "patient": "name"}):
        with pytest.raises(SourceError) as caught:
            chosen = table.Options.model_validate({"path": str(tmp_path), **options})
            list(table.read(list(table.plan(chosen, "x")), chosen, "x"))
        assert not [cell for cell in cells.split(",") if f"'{cell}'" in str(caught.value)]


def test_a_column_that_is_there_twice_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("pid,what,value,value,unit,when\na,K,1,2,mg,2024\n")
    with pytest.raises(SourceError, match="columns 3, 4"):
        chosen = table.Options.model_validate({"path": str(tmp_path), **LONG})
        list(table.read(list(table.plan(chosen, "x")), chosen, "x"))


TYPES: dict[str, pa.Array] = {
    "int8": pa.array([1, None, 3], pa.int8()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "half": pa.array(np.array([1, 2, 3], np.float16)),
    "float": pa.array([float("inf"), float("nan"), 1e308]),
    "decimal": pa.array([1, None, 3], pa.decimal128(38, 5)),
    "decimal256": pa.array([1, None, 3], pa.decimal256(70, 5)),
    "bool": pa.array([True, None, False]),
    "date32": pa.array([0, None, 2_932_897], pa.date32()),
    "date64": pa.array([0, None, 86_400_000], pa.date64()),
    "time32": pa.array([0, None, 2], pa.time32("s")),
    "time64": pa.array([0, None, 2], pa.time64("us")),
    "timestamp": pa.array([2**62, None, -(2**62)], pa.timestamp("us")),
    "timestamp ns": pa.array([2**62, None, 0], pa.timestamp("ns", "Europe/Berlin")),
    "timestamp ms": pa.array([2**53, None, -(2**53)], pa.timestamp("ms")),
    "duration": pa.array([2**62, None, 0], pa.duration("us")),
    "null": pa.nulls(3),
    "string": pa.array([CANARY, None, ""]),
    "large string": pa.array([CANARY, None, ""], pa.large_string()),
    "string view": pa.array([CANARY, None, ""], pa.string_view()),
    "dictionary": pa.array([CANARY, None, ""]).dictionary_encode(),
    "binary": pa.array([b"a", None, b"\xff"], pa.binary()),
    "large binary": pa.array([b"a", None, b"\xff"], pa.large_binary()),
    "fixed binary": pa.array([b"aa", None, b"\xff\xff"], pa.binary(2)),
    "broken text": pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"a", None, b"\xff"], pa.binary()).buffers()
    ),
    "list": pa.array([[CANARY], None, []]),
    "struct": pa.array([{"a": CANARY}, None, {}]),
    "map": pa.array([[("a", CANARY)], None, []], pa.map_(pa.string(), pa.string())),
}


@pytest.mark.parametrize("time", ["iso", "format", "offset", "clock"])
@pytest.mark.parametrize("kind", TYPES)
def test_a_column_of_parquet_may_be_of_any_type(tmp_path, kind, time):
    spec: dict[str, Any] = {"column": "when"}
    spec |= {"format": "%Y"} if time == "format" else {}
    if time in ("offset", "clock"):
        form = "days" if time == "offset" else "HH:MM"
        spec |= {"offset": form, "origin": "2024-01-01", "zone": "Europe/Berlin"}
    for number, column in enumerate(["pid", "what", "value", "unit", "when"]):
        rows = {name: pa.array(["1", "2", "3"]) for name in ("pid", "what", "value", "unit")}
        rows |= {"when": pa.array(["2024-01-02"] * 3), column: TYPES[kind]}
        folder = tmp_path / str(number)
        folder.mkdir()
        pq.write_table(pa.table(rows), folder / "t.parquet")
        found = read(table, folder, **{**LONG, "time": spec})
        if found is None:
            assert kind in ("list", "struct", "map")
            continue
        places = [int(e["record_id"].split("#")[1]) for e in found["events"]]
        places += [row["position"] for row in found["rejected"]]
        assert sorted(places) == [0, 1, 2], column


def parquet_bytes() -> bytes:
    held = io.BytesIO()
    rows = {"pid": [f"{CANARY}{n}" for n in range(400)], "what": ["K"] * 400}
    rows |= {"value": [str(n) for n in range(400)], "unit": ["mg"] * 400, "when": ["2024"] * 400}
    made = pa.table(rows)
    pq.write_table(made, held, row_group_size=100, write_page_checksum=True)
    return held.getvalue()


@pytest.mark.parametrize("how", ["plain", "gz", "zip"])
def test_damaged_parquet_is_refused_with_its_place(tmp_path, how):
    """Cut anywhere, or a byte changed anywhere: what check sums cover is never taken for true."""
    data = parquet_bytes()
    rng = random.Random(3)  # noqa: S311 - the same damage each time
    damaged = [data[: rng.randrange(len(data))] for _ in range(15)]
    for _ in range(60 if how == "plain" else 10):
        at = rng.randrange(len(data))
        damaged.append(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
    for number, broken in enumerate(damaged):
        folder = tmp_path / str(number)
        folder.mkdir()
        if how == "zip":
            with zipfile.ZipFile(folder / "a.zip", "w") as made:
                made.writestr("t.parquet", broken)
        elif how == "gz":
            (folder / "t.parquet.gz").write_bytes(gzip.compress(broken))
        else:
            (folder / "t.parquet").write_bytes(broken)
        found = read(table, folder, **LONG)
        if found is None:
            continue
        assert len(found["events"]) == 400 or found["rejected"], number


@pytest.mark.parametrize("kind", ["fhir", "table"])
@pytest.mark.parametrize("how", ["gz", "zip", "many in a zip"])
def test_a_packed_file_that_breaks_off_is_refused(tmp_path, kind, how):
    lines = [written({**SOUND[1], "id": f"r{n}"}) for n in range(20)]
    name, data = ("t.csv", "\n".join(CSV).encode())
    if kind == "fhir":
        name, data = "all.ndjson", b"\n".join(lines)
    source, said = {"fhir": (fhir, {}), "table": (table, LONG)}[kind]
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", 8) as made:
        for number in range(3 if how == "many in a zip" else 1):
            made.writestr(f"{number}/{name}", data)
    whole = gzip.compress(data) if how == "gz" else held.getvalue()
    rng = random.Random(5)  # noqa: S311 - the same damage each time
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        at = rng.randrange(1, len(whole))
        broken = whole[:at] if number % 2 else whole[:at] + b"\xa5" + whole[at + 1 :]
        (folder / ("a.zip" if how != "gz" else f"{name}.gz")).write_bytes(broken)
        (folder / name).write_bytes(data)
        found = read(source, folder, **said)
        assert found is not None
        told = len(found["events"]) // 20
        reasons = {row["reason"] for row in found["rejected"]}
        assert told >= 1 and reasons <= {"unreadable_file", "malformed_json", "empty_file"}
        assert told == (4 if how == "many in a zip" else 2) or reasons


def test_an_empty_or_blank_file_is_refused(tmp_path):
    for name, data in {"a": b"", "b": b"\n\n", "c": b"\xef\xbb\xbf", "d": b" \r\n"}.items():
        (tmp_path / f"{name}.csv").write_bytes(data)
        (tmp_path / f"{name}.ndjson").write_bytes(data)
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(data))
        (tmp_path / f"{name}.parquet").write_bytes(data)
    found = read(table, tmp_path, include="*.csv*", **LONG)
    assert found is not None
    assert [row["reason"] for row in found["rejected"]] == ["empty_file"] * 8
    found = read(table, tmp_path, include="*.parquet", **LONG)
    assert found is not None
    assert [row["reason"] for row in found["rejected"]] == ["unreadable_file"] * 4
    found = read(fhir, tmp_path, include="*.ndjson")
    assert found is not None
    assert [row["reason"] for row in found["rejected"]] == ["empty_file"] * 4


def test_a_very_long_line_of_a_table_is_read_or_refused(tmp_path):
    lines = [*CSV[:3], CSV[3] + "," + "x" * (20 << 20), CSV[4], "y" * (20 << 20), CSV[5]]
    for name, data in {"t.csv": "\n".join(lines), "h.csv": "z" * (20 << 20) + "\n1\n"}.items():
        (tmp_path / name).write_text(data)
    found = read(table, tmp_path, include="t.csv", **LONG)
    assert found is not None
    at = begins([line.encode() for line in lines])
    assert len(found["events"]) == 4
    assert [row["position"] for row in found["rejected"]] == [at[3], at[5]]
    assert read(table, tmp_path, include="h.csv", **LONG) is None


MANIFESTS = {
    "cells": "who,image,taken\n"
    + "".join(f"{cell},{cell},{cell}\n" for cell in CELLS if cell != "1,5"),
    "ragged": f"who,image,taken\na\nb,c,d,e,{CANARY}\n",
    "quotes": f'who,image,taken\na,"b,c\n{CANARY},e,f\n',
    "no column": f"who,taken\n{CANARY},2024\n",
    "no header": f"{CANARY},b,c\n",
    "twice": f"who,who,image,taken\na,{CANARY},c,2024\n",
    "empty": "",
}


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
@pytest.mark.parametrize("what", [*MANIFESTS, "utf-16", "latin-1", "NULs", "truncated"])
def test_a_broken_manifest_is_a_fault_that_names_it(tmp_path, what, name):
    data = MANIFESTS.get(what, MANIFESTS["cells"]).encode()
    if what in ("utf-16", "latin-1"):
        data = f"who,image,taken\n{CANARY},ä,2024\n".encode(what)
    elif what == "NULs":
        data = bytes(1000)
    elif what == "truncated":
        data = parquet_bytes()[:-9]
    (tmp_path / name).write_bytes(data)
    time = TimeSpec(column="taken")
    manifest = Manifest(str(tmp_path / name), "{image}.png", "who", time, ())
    try:
        count = sum(batch.num_rows for _, batch in manifest.batches())
        manifest.rows(range(count))
    except SourceError as error:
        assert name in str(error) and CANARY not in str(error)


def test_real_tables_mutated(data, tmp_path):
    rng = random.Random(13)  # noqa: S311 - the same mutations each time
    with zipfile.ZipFile(data / "physionet2012/set-a.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")][:60]
        for name in names:
            text = archive.read(name)
            head = text.find(b"\n") + 1
            made = text[:head] + mutated(text[head:], rng)
            (tmp_path / name.rsplit("/", 1)[-1]).write_bytes(made)
    options = {
        "patient": {"row": "RecordID"},
        "time": {"column": "Time", "offset": "HH:MM", "origin": "2012-01-01"},
        "code": {"column": "Parameter"},
        "value": "Value",
    }
    found = read(table, tmp_path, **options)
    assert found is not None
    assert len(found["events"]) > 1000 and found["rejected"]

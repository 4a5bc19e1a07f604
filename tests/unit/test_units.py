"""Units of sources: files, ranges, bytes of a request; how they are told apart and travel."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom import files, plugins
from clinloom.errors import SourceError, UsageError
from clinloom.files import Given
from clinloom.sources import load
from clinloom.spark.units import Spool
from clinloom.study import SourceModel
from clinloom.tables import PARCELS, conform

PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "birthDate": "1950-02-03",
    "identifier": [{"value": "7", "type": {"coding": [{"code": "MR"}]}}],
}
SEEN = {
    "resourceType": "Observation",
    "id": "o",
    "status": "final",
    "subject": {"reference": "Patient/p"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
    "issued": "2024-01-02T03:04:05Z",
    "valueQuantity": {"value": 1.5, "code": "mg/dL"},
}
BUNDLE = {
    "resourceType": "Bundle",
    "type": "batch",
    "entry": [{"resource": PATIENT}, {"resource": SEEN}, {"resource": {**SEEN, "subject": None}}],
}
LINES = "".join(json.dumps(r) + "\n" for r in (PATIENT, SEEN, {"resourceType": "Observation"}))
TABLE = {
    "patient": "who",
    "time": {"column": "when"},
    "events": [{"code": "X", "value": "value"}],
}
CSV = b"who,when,value\n1,2024-01-01,2.5\n2,2024-01-02,\n,2024-01-03,3\n"


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"who": [1, 2], "when": ["2024-01-01", "soon"], "value": [1, 2]}), out)
    return out.getvalue()


def told(kind: str, units: Sequence[files.FileUnit], options: SourceModel) -> dict[str, pa.Table]:
    parts: dict[str, list[pa.Table]] = {name: [table.empty] for name, table in PARCELS.items()}
    for parcel in load(kind).read(units, options, "here"):
        for name, rows in parcel.items():
            parts[name].append(conform(rows, PARCELS[name]))
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


@pytest.mark.parametrize(
    ("kind", "name", "data", "more"),
    [
        ("fhir", "lines.ndjson", LINES.encode(), {}),
        ("fhir", "lines.ndjson.gz", gzip.compress(LINES.encode()), {}),
        ("fhir", "bundle.json", json.dumps(BUNDLE).encode(), {}),
        ("fhir", "empty.json", b"", {}),
        ("fhir", "cut.ndjson.gz", gzip.compress(LINES.encode())[:40], {}),
        ("table", "rows.csv", CSV, TABLE),
        ("table", "rows.parquet", parquet(), TABLE),
        ("table", "rows.parquet", b"no parquet", TABLE),
    ],
)
def test_given_bytes_are_read_as_the_file_is(tmp_path: Path, kind, name, data, more):
    (tmp_path / name).write_bytes(data)
    options = plugins.options("sources", kind)
    chosen = options.model_validate({"type": kind, "path": str(tmp_path), **more})
    of_file = told(kind, list(load(kind).plan(chosen, "sources.here")), chosen)
    given = told(kind, [Given(name, data)], chosen)
    assert given == of_file
    assert given["events"].num_rows or given["rejected"].num_rows


def test_a_plan_is_a_stream_in_an_order_that_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("clinloom.files.pieces.RANGE", 20)
    for n in range(30):
        (tmp_path / f"{n:02d}.csv").write_bytes(CSV)
    chosen = plugins.options("sources", "table").model_validate(
        {"type": "table", "path": str(tmp_path), **TABLE}
    )
    plan = load("table").plan(chosen, "sources.here")
    assert isinstance(plan, Iterator)
    units = list(plan)
    assert units == list(load("table").plan(chosen, "sources.here"))
    assert len(units) == 30 * -(-len(CSV) // 20)
    assert len({files.fingerprint(units), files.fingerprint(units[1:])}) == 2
    with pytest.raises(SourceError) as fault:
        missing = chosen.model_copy(update={"path": str(tmp_path / "no")})
        next(load("table").plan(missing, "sources.here"))
    assert fault.value.where == "sources.here.path"


@dataclass(frozen=True)
class Inner:
    """A part of a unit."""

    number: int


@dataclass(frozen=True)
class Query:
    """A unit of a kind that this house does not know."""

    name: str
    body: bytes
    inner: Inner
    more: tuple[float, ...] = ()


@dataclass(frozen=True)
class Open:
    """A unit that holds something open."""

    handle: object


def test_a_spool_carries_units_of_any_kind(tmp_path: Path):
    query = Query("q", b"\0\xff", Inner(1 << 40), (0.5, 1e300))
    (tmp_path / "a.csv").write_bytes(CSV)
    (piece,) = files.listing(str(tmp_path / "a.csv"))
    units = [{"source": "s", "units": [query, piece]}, {"source": "t", "units": [Given("g", b"x")]}]
    spool = Spool(files.address(tmp_path / "units"), iter(units))
    sent = pickle.loads(pickle.dumps(spool))  # noqa: S301 - as Spark sends it to workers
    assert [sent.unit(n) for n in range(len(sent))] == units
    assert sent.unit(0)["units"][1].stamp == piece.stamp
    assert b"Query" not in (tmp_path / "units").read_bytes()  # data alone, no code is named


def test_a_unit_that_holds_something_open_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="frozen dataclasses of plain data"), open(__file__) as f:
        try:
            Spool(files.address(tmp_path / "units"), [Open(f)])
        except UsageError as error:
            raise UsageError(f"{error.message} {error.mend}") from None
    assert not (tmp_path / "units").exists()

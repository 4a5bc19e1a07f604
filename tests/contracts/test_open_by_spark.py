"""Files that Spark opens (`open: spark`) give the very tables that workers make of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clinloom import plugins
from clinloom import study as studies
from clinloom.errors import SourceError
from clinloom.files import listing
from clinloom.run import acquire
from clinloom.run.work import Work
from clinloom.sources import load
from clinloom.sources._given import handed, opened
from clinloom.store import Store
from clinloom.store.stored import stream
from clinloom.synth import synthesise

STUDY = {
    "name": "tiny",
    "cohort": {"index": {"at": "A"}, "outcome": {"codes": "B", "within": "30d"}},
    "features": ["demographics"],
    "models": ["logistic_regression"],
}
TABLES = ("acquired", "images", "acquisition_rejected", "crosswalk", "acquisition_ledger")


@pytest.fixture(scope="module")
def hospital(spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records and images; names with blanks and letters of all kinds; a file that is none."""
    folder = tmp_path_factory.mktemp("made") / "hospital"
    synthesise(spark, folder, patients=60, seed=3, images=20)
    first = sorted((folder / "fhir").glob("Observation*"))[0]
    data = first.read_bytes()
    first.unlink()
    (folder / "fhir" / "wärd 7%20").mkdir()
    place = folder / "fhir" / "wärd 7%20" / "some results.ndjson.gz"
    place.write_bytes(gzip.compress(data + b'{"resourceType": \n'))
    (folder / "lab").mkdir()
    rows = "who,when,value\n1,2024-01-01,2.5\n,2024-01-02,3\n2,2024-01-02,x\n"
    (folder / "lab" / "rows.csv").write_text(rows)
    (folder / "dicom" / "notes.txt").write_text("no image")
    return folder


def tables(spark: Any, out: Path, sources: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    made = studies.parse({**STUDY, "sources": sources}, rooms=plugins)
    work = Work(made, Store(str(out)), spark=spark)
    try:
        found = acquire.acquire(work, made)
        rows = {}
        for name in TABLES:
            parts = [t for f in found[name].files() for t in stream(str(f), None, 1 << 20)]
            plain = pa.concat_tables(parts).to_pylist() if parts else []
            rows[name] = sorted(json.dumps(r, sort_keys=True, default=str) for r in plain)
        return rows, bool(work.stages[-1]["reused"])
    finally:
        work.close()


def test_records_and_images_are_the_same(spark, hospital: Path, tmp_path: Path):
    sources = {
        "ehr": {"type": "fhir", "path": str(hospital / "fhir")},
        "cxr": {"type": "dicom", "path": str(hospital / "dicom")},
        "lab": {
            "type": "table",
            "path": str(hospital / "lab"),
            "patient": "who",
            "time": {"column": "when"},
            "events": [{"code": "X", "value": "value"}],
        },
    }
    wanted, _ = tables(spark, tmp_path / "workers", sources)
    assert wanted["images"] and wanted["acquisition_rejected"]
    by_spark = {name: {**given, "open": "spark"} for name, given in sources.items()}
    found, _ = tables(spark, tmp_path / "spark", by_spark)
    for name in TABLES:
        assert found[name] == wanted[name], name
    assert tables(spark, tmp_path / "spark", by_spark)[1]  # nothing changed: nothing is read
    (hospital / "dicom" / "more.txt").write_text("no image")
    assert not tables(spark, tmp_path / "spark", by_spark)[1]
    (hospital / "dicom" / "more.txt").unlink()


def test_files_bear_the_names_that_workers_see(spark, hospital: Path):
    chosen = plugins.options("sources", "fhir").model_validate(
        {"type": "fhir", "path": str(hospital / "fhir"), "include": "*.gz", "open": "spark"}
    )
    frame = opened(spark, chosen, "sources.ehr")
    table = pa.table({n: [r[n] for r in frame.collect()] for n in ("path", "content")})
    (piece,) = listing(chosen.path, include="*.gz")
    (given,) = handed([table], chosen)
    assert (given.name, given.data) == (piece.name, Path(piece.path).read_bytes())


def test_what_spark_cannot_open_is_refused_with_its_key(spark, tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    options = plugins.options("sources", "dicom")
    for path, include in ((tmp_path / "no", "*"), (tmp_path, "*.dcm")):
        chosen = options.model_validate(
            {"type": "dicom", "path": str(path), "include": include, "open": "spark"}
        )
        with pytest.raises(SourceError) as fault:
            list(load("dicom").plan(chosen, "sources.cxr"))
        assert fault.value.where == "sources.cxr.path"

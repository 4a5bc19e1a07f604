"""A table that Spark reads gives the events that the same files give as a `table` source."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from clinloom import plugins
from clinloom import study as studies
from clinloom.errors import SourceError
from clinloom.run import acquire
from clinloom.run.work import Work
from clinloom.sources import load
from clinloom.sources import spark as source
from clinloom.store import Store
from clinloom.store.stored import stream

STUDY = {
    "name": "tiny",
    "cohort": {"index": {"at": "A"}, "outcome": {"codes": "B", "within": "30d"}},
    "features": ["demographics"],
    "models": ["logistic_regression"],
}
MAPPING = {
    "patient": "who",
    "time": {"column": "when"},
    "events": [
        {"code": "SITE//{site}", "value": "value", "unit": "mg/dL"},
        {"code": "NOTE", "text": "note", "when": {"column": "site", "equals": "b"}},
    ],
}
COLUMNS = ["subject_id", "time", "code", "numeric_value", "text_value", "unit"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid(tmp_path_factory.mktemp("tables"))


def laid(place: Path) -> Path:
    """The same rows as Parquet and as CSV."""
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    rows = 600
    table = pa.table(
        {
            "who": pa.array([None if n % 50 == 0 else n % 37 for n in range(rows)], pa.int64()),
            "when": pa.array(
                [start + dt.timedelta(minutes=n) for n in range(rows)], pa.timestamp("us", "UTC")
            ),
            "site": ["a" if n % 3 else "b" for n in range(rows)],
            "value": [None if n % 7 == 0 else n / 4 for n in range(rows)],
            "note": [f" text {n} " for n in range(rows)],
            "row": list(range(rows)),
            "unread": ["x"] * rows,
        }
    )
    (place / "parquet").mkdir()
    pq.write_table(table, place / "parquet" / "rows.parquet", row_group_size=100)
    (place / "csv").mkdir()
    lines = ["who,when,site,value,note,row"]
    for r in table.to_pylist():
        cells = [r["who"], r["when"].isoformat(), r["site"], r["value"], r["note"], r["row"]]
        lines.append(",".join("" if c is None else str(c) for c in cells))
    (place / "csv" / "rows.csv").write_text("\n".join([*lines, ""]))
    return place


def acquired(spark: Any, out: Path, **options: Any) -> tuple[list[Any], list[str], bool]:
    made = studies.parse({**STUDY, "sources": {"lab": {**MAPPING, **options}}}, rooms=plugins)
    work = Work(made, Store(str(out)), spark=spark)
    try:
        tables = acquire.acquire(work, made)

        def rows(table: str, columns: list[str]) -> list[Any]:
            found = [t for f in tables[table].files() for t in stream(str(f), columns, 1 << 20)]
            return sorted(tuple(map(str, r.values())) for t in found for r in t.to_pylist())

        refused = rows("acquisition_rejected", ["reason", "file", "record_id"])
        return rows("acquired", COLUMNS), refused, bool(work.stages[-1]["reused"])
    finally:
        work.close()


def files_of(out: Path, column: str) -> set[str]:
    """The values of a column of the events that were acquired."""
    parts = (out / "tables" / "acquired").glob("*.parquet")
    return {str(v) for part in parts for v in pq.read_table(part).column(column).to_pylist()}


def test_the_same_events_from_files_a_path_and_the_catalogue(spark, folder: Path, tmp_path: Path):
    place = str(folder / "parquet")
    wanted, refused, _ = acquired(spark, tmp_path / "table", type="table", path=place)
    assert len(wanted) > 700 and len(refused) == 16
    of_path = {"type": "spark", "path": place, "format": "parquet", "record": "row"}
    found, told, reused = acquired(spark, tmp_path / "path", **of_path)
    assert found == wanted and not reused
    assert {row[0] for row in told} == {"no_patient"} and len(told) == len(refused)
    assert {row[1] for row in told} == {"parquet"} and told[0][2] == "parquet#0"

    records = files_of(tmp_path / "path", "record_id")
    assert "parquet#1" in records and len(records) > 500

    assert acquired(spark, tmp_path / "path", **of_path)[2]  # nothing changed: nothing is read
    spark.read.parquet(f"file://{place}").createOrReplaceTempView("lab_rows")
    by_name = {"type": "spark", "table": "lab_rows", "stamp": "1"}
    assert acquired(spark, tmp_path / "view", **by_name)[0] == wanted
    assert acquired(spark, tmp_path / "view", **by_name)[2]
    assert not acquired(spark, tmp_path / "view", **{**by_name, "stamp": "2"})[2]


def test_the_same_events_from_csv(spark, folder: Path, tmp_path: Path):
    place = str(folder / "csv")
    wanted, _, _ = acquired(spark, tmp_path / "table", type="table", path=place)
    options = {"header": "true"}
    found, _, _ = acquired(
        spark, tmp_path / "spark", type="spark", path=place, format="csv", options=options
    )
    assert found == wanted


def test_files_that_change_change_the_stamp(spark, folder: Path, tmp_path: Path):
    (tmp_path / "rows").mkdir()
    table = pq.read_table(folder / "parquet" / "rows.parquet")
    pq.write_table(table, tmp_path / "rows" / "a.parquet")
    chosen = source.Options(**MAPPING, path=str(tmp_path / "rows"), format="parquet")
    (before,) = source.plan(chosen, "sources.lab")
    assert [before] == list(source.plan(chosen, "sources.lab"))
    assert before.size == (tmp_path / "rows" / "a.parquet").stat().st_size
    pq.write_table(table.slice(1), tmp_path / "rows" / "b.parquet")
    (after,) = source.plan(chosen, "sources.lab")
    assert after.stamp != before.stamp


def test_what_cannot_be_told_or_read_is_refused_by_name(spark, folder: Path):
    spark.range(3).selectExpr(
        "id who", "current_timestamp() `when`", "'a' site", "id value", "'' note"
    ).createOrReplaceTempView("counted")
    chosen = source.Options(**MAPPING, table="counted")
    with pytest.raises(SourceError, match="cannot tell whether 'counted' changed"):
        list(source.plan(chosen, "sources.lab"))
    anew = chosen.model_copy(update={"stamp": "anew"})
    (one,), (two,) = source.plan(anew, "sources.lab"), source.plan(anew, "sources.lab")
    assert one.stamp != two.stamp
    gone = chosen.model_copy(update={"table": "no_such_table"})
    with pytest.raises(SourceError, match="cannot read 'no_such_table'") as fault:
        list(source.plan(gone, "sources.lab"))
    assert fault.value.where == "sources.lab"
    wrong = chosen.model_copy(update={"patient": "whom"})
    with pytest.raises(SourceError, match="no column 'whom'") as fault:
        load("spark").frame(spark, wrong, "sources.lab")
    assert fault.value.where == "counted" and "'who'" in str(fault.value.mend)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "give `table`"),
        ({"table": "a", "format": "csv"}, "give `table`"),
        ({"table": "a", "options": {"x": "y"}}, "neither"),
        ({"format": "jdbc", "options": {"password": "hunter2"}}, "is a secret"),
        ({"format": "jdbc", "options": {"url": "jdbc:x://u:p@host/db"}}, "carries a secret"),
        ({"format": "jdbc", "options": {"url": "jdbc:x://h/db?password=p"}}, "carries a secret"),
        ({"table": "a", "patient": {"file_name": True}}, "is a column"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], told: str):
    with pytest.raises(ValidationError, match=told):
        source.Options(**{**MAPPING, **wrong})


def test_a_secret_is_resolved_where_spark_reads_and_stands_nowhere(monkeypatch):
    monkeypatch.setenv("LAB_PASSWORD", "canary-7f3a")
    monkeypatch.setenv("LAB_URL", "jdbc:x://h/lab?token=canary")
    given: dict[str, str] = {}

    class Reader:
        def format(self, name: str) -> Reader:
            return self

        def option(self, name: str, value: str) -> Reader:
            given[name] = value
            return self

        def load(self) -> Any:
            raise RuntimeError(f"refused: {given['password']}")

    class Session:
        read = Reader()

    chosen = source.Options(
        **MAPPING,
        format="jdbc",
        options={"password": "env:LAB_PASSWORD", "dbtable": "lab", "url": "env:LAB_URL"},
    )
    with pytest.raises(SourceError) as fault:
        source.frame(Session(), chosen, "sources.lab")
    assert given["password"] == "canary-7f3a"
    assert "canary" not in str(fault.value) and "canary" not in chosen.model_dump_json()

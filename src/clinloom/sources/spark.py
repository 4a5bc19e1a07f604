"""A table that Spark reads: of its catalogue, or at a path in any format that its readers know.

The columns mean what they do in a `table` source. Spark's own connectors and credentials reach the
data; the rows go from Spark to the kernel, so there is no byte position: a row is known by its
`record` column, where the study names one. (Spark SQL, Generic Load/Save Functions)
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from clinloom import files
from clinloom.errors import ClinloomError, SourceError
from clinloom.sources._frames import State, of_files
from clinloom.sources._parcel import Refusals
from clinloom.sources._rows.csv import Rows, check
from clinloom.sources._rows.events import parcels
from clinloom.sources._rows.mapping import Mapping
from clinloom.study import StudyPath

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REQUIRES: str | None = None
LINKS = False  # whether it tells which identifiers belong together
SECRET = re.compile(r"pass|secret|token|key$|credential|signature|sas", re.IGNORECASE)
REFERENCE = re.compile(r"env:[A-Za-z_]\w*|file:/.+")
ANEW = "anew"  # the stamp of a table that is read in every run


class Options(Mapping):
    """What Spark reads, and what its columns mean."""

    type: Literal["spark"] = Field(default="spark", description="which kind of source")
    table: str | None = Field(default=None, description="a table or view of Spark's catalogue")
    path: StudyPath | None = Field(default=None, description="a file or folder, with `format`")
    format: str | None = Field(
        default=None, description="Spark's reader: parquet, delta, orc, csv, json, jdbc …"
    )
    options: dict[str, str] = Field(
        default={},
        description="the reader's options; a secret, or a url that holds one, as env:NAME or"
        " file:/PATH",
    )
    record: str | None = Field(
        default=None, description="the column that identifies a row: record_id is `table#value`"
    )
    stamp: str | None = Field(
        default=None,
        description="where Spark cannot tell whether the data changed: a text that you change with"
        " them, or `anew` to read them in every run",
    )

    @model_validator(mode="after")
    def _one_table(self) -> Options:
        if (self.table is None) == (self.format is None):
            raise ValueError("give `table`, or `format` (with `path`, or with `options` alone)")
        if self.table is not None and (self.path or self.options):
            raise ValueError("a table of the catalogue has neither `path` nor `options`")
        if not isinstance(self.patient, str):
            raise ValueError("`patient` is a column: a table of Spark's is not one patient's")
        for name, value in self.options.items():
            if SECRET.search(name) and not REFERENCE.fullmatch(value):
                raise ValueError(f"`options.{name}` is a secret: write env:NAME or file:/PATH")
            if re.search(r"://[^/\s]*:[^/\s]*@|(password|token|sig)=", value, re.IGNORECASE):
                raise ValueError(f"`options.{name}` carries a secret: give it as an option")
        return self

    @property
    def name(self) -> str:
        """What refusals and record identifiers call it."""
        if self.table is not None:
            return self.table
        place = self.path or self.options.get("dbtable") or ""
        return place.rsplit("/", 1)[-1] or str(self.format)


def plan(options: Options, where: str) -> Iterator[State]:
    """One unit, whose stamp changes when the data do.

    In this order: the study's `stamp`; the version of a Delta table; the names, sizes and times of
    files that Spark reads. Raises SourceError where Spark cannot read the table, or where none of
    these tells whether it changed.
    """
    from clinloom.spark.session import session

    if options.stamp is not None:
        anew = options.stamp == ANEW
        yield State(options.name, 0, uuid.uuid4().hex if anew else options.stamp)
        return
    spark = session()
    table = _opened(spark, options, where)
    told = _version(spark, options) or _files(table)
    if told is None:
        raise SourceError(
            f"Spark cannot tell whether '{options.name}' changed since the last run",
            where=f"{where}.stamp",
            mend=f"write a text that you change with the data, or `{ANEW}` to read it in each run",
        )
    yield State(options.name, *told)


def frame(spark: SparkSession, options: Options, where: str) -> DataFrame:
    """The columns that the mapping names. Raises SourceError where it lacks one of them."""
    from pyspark.sql import functions as F

    table = _opened(spark, options, where)
    return table.select([F.col(_quoted(name)) for name in _wanted(options, table.columns)])


def read(units: Iterable[pa.Table], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, links and rejected for some rows of the table, as Spark hands them on.

    ``units``: tables with the columns of ``frame``. ``record_id`` is the table's name and, after
    ``#``, the row's `record`. Reasons of refusal: ``no_patient``, ``no_code``, ``no_time``.
    """
    refused = Refusals(source)
    seen: set[str] = set()
    for table in units:
        if not table.num_rows:
            continue
        [batch] = table.combine_chunks().to_batches()
        cells = {name: batch.column(name) for name in batch.schema.names}
        if options.record is None:
            key = pa.nulls(table.num_rows, pa.string())
        else:
            key = cells[options.record].cast(pa.string())
        zeros = np.zeros(table.num_rows, np.int64)
        rows = Rows(cells, [options.name], zeros.astype(np.int32), zeros, key)
        yield from parcels(rows, "#", options, refused, seen)
    left = refused.last()
    if left:
        yield left


def _wanted(options: Options, header: Sequence[str] = ()) -> list[str]:
    named = [*options.needed(header), *([options.record] if options.record else ())]
    return list(dict.fromkeys(named))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _opened(spark: SparkSession, options: Options, where: str) -> DataFrame:
    """The table, all that the mapping names in it."""
    try:
        table = _table(spark, options, where)
        held = table.columns
    except ClinloomError:
        raise
    except Exception as error:  # a connector may fail in any way, and quote secrets
        kind = getattr(error, "getErrorClass", lambda: None)() or type(error).__name__
        raise SourceError(
            f"Spark cannot read '{options.name}' ({kind})",
            where=where,
            mend="is it in the catalogue, or at the path in that format, and its connector here?",
        ) from None
    check(held, _wanted(options), options.name)
    return table


def _table(spark: SparkSession, options: Options, where: str) -> DataFrame:
    if options.table is not None:
        return spark.table(options.table)
    reader = spark.read.format(str(options.format))
    for name, value in options.options.items():
        secret = SECRET.search(name) or name == "url" or value.startswith("env:")
        if secret and REFERENCE.fullmatch(value):
            value = files.named(value, where=f"{where}.options.{name}")
        reader = reader.option(name, value)
    return reader.load(files.address(options.path).uri) if options.path else reader.load()


def _version(spark: SparkSession, options: Options) -> tuple[int, str] | None:
    """The size and version of a Delta table; None of anything else."""
    if options.table is not None:
        named = ".".join(_quoted(part) for part in options.table.replace("`", "").split("."))
    elif str(options.format).lower() == "delta" and options.path:
        named = f"delta.{_quoted(files.address(options.path).uri)}"
    else:
        return None
    try:
        held = spark.sql(f"DESCRIBE HISTORY {named} LIMIT 1").collect()[0]
        size = spark.sql(f"DESCRIBE DETAIL {named}").collect()[0]["sizeInBytes"]
    except Exception:  # no Delta here, or no Delta table
        return None
    return int(size or 0), f"delta {held['version']} {held['timestamp']}"


def _files(table: DataFrame) -> tuple[int, str] | None:
    """The size and a hash of the files that Spark reads; None where it reads no files."""
    from pyspark.sql import functions as F

    parts = [F.col(f"_metadata.file_{part}") for part in ("path", "size", "modification_time")]
    try:
        return of_files(table.select(*parts).distinct())
    except Exception:  # a query, a view or a source without files
        return None

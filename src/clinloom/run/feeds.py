"""Where a stream's events come from, and how a batch of them becomes slices of tables.

A feed is one source of the bundle's study, or ``events``: rows as the events table has them. Its
records come as files of a folder, which workers open as a run does, or as rows of a Kafka topic or
a Delta table. Whatever they come by, the source's own kernel reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom import files
from clinloom.deploy import lines
from clinloom.errors import ClinloomError, SourceError, UsageError, instead
from clinloom.files import Address, Given, Piece
from clinloom.run import acquire, kept
from clinloom.run.kept import HISTORY, OWN, REFUSALS
from clinloom.sources import load
from clinloom.spark import shuffle
from clinloom.spark.session import cores
from clinloom.spark.units import Spool
from clinloom.study import SourceModel
from clinloom.tables import ACQUIRED, BIRTH, EXTENT, LINKS, REJECTED, conform

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

EVENTS = "events"
STAGE = "stream"
REST = (("position", "bigint"), ("value", "binary"))  # of a record, after its feed and place
SLICED = {"events": HISTORY, "rejected": REFUSALS, "told": REJECTED, "links": LINKS}
SLICED |= {"extent": EXTENT}
FILE = "path string, modificationTime timestamp, length bigint, content binary"
ALWAYS = "36500d"  # of a folder: however old a file is, it is read
KAFKA, DELTA = "kafka://", "delta:"
OPENED = ("fhir", "table", "dicom")  # sources that are files, each of which tells all by itself
TIMES = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"
JSON_NAME = "message.ndjson"


@dataclass(frozen=True)
class Feed:
    """A source by its name in the study, or ``events``, and where its records come from."""

    name: str
    place: str

    @property
    def folder(self) -> Address | None:
        """The folder, where it is one."""
        return None if self.place.startswith((KAFKA, DELTA)) else files.address(self.place)


def read(told: Sequence[str], sources: Mapping[str, SourceModel]) -> list[Feed]:
    """The feeds that ``[NAME=]ADDRESS`` name; none told: the study's own sources.

    Raises UsageError for a source that the study does not have, or that cannot be streamed so.
    """
    found = []
    for one in told or [f"{name}={getattr(o, 'path', '')}" for name, o in sources.items()]:
        name, equals, place = one.partition("=")
        if not equals or "/" in name or ":" in name:
            name, place = _only(sources), one
        if name != EVENTS and name not in sources:
            mend = instead(name, [*sources, EVENTS])
            raise UsageError(f"the study has no source '{name}'", where="--from", mend=mend)
        found.append(_checked(Feed(name, place), sources))
    names = [feed.name for feed in found if feed.folder is not None]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"the source '{twice}' comes by two folders, in which files may have the same names",
            where="--from",
            mend="give one folder that holds both",
        )
    return found


def _only(sources: Mapping[str, SourceModel]) -> str:
    if len(sources) != 1:
        raise UsageError(
            f"the study has {len(sources)} sources: which of them is it?",
            where="--from",
            mend=f"write NAME=ADDRESS with one of {', '.join([*sources, EVENTS])}",
        )
    return next(iter(sources))


def _checked(feed: Feed, sources: Mapping[str, SourceModel]) -> Feed:
    kind = EVENTS if feed.name == EVENTS else sources[feed.name].type
    if feed.folder is None and kind in (EVENTS, "fhir"):
        return feed
    if feed.folder is not None and kind in (EVENTS, *OPENED):
        if kind == EVENTS or getattr(sources[feed.name], "open", "workers") == "workers":
            return Feed(feed.name, str(feed.folder))
    raise UsageError(
        f"the source '{feed.name}' ({kind}) cannot come by {feed.place.partition(':')[0]}",
        where="--from",
        mend="folders bring fhir, table and dicom, Kafka and Delta fhir; every one brings `events`."
        " Leave a source out with --set sources.NAME=null",
    )


def opened(
    spark: SparkSession, feeds: Sequence[Feed], *, most: int, options: Mapping[str, str]
) -> DataFrame:
    """The records of all feeds as they come, with the columns feed, place, position and value.

    Of a folder Spark only finds the files, which its checkpoint tells: nobody reads these rows, in
    which the last two are null. Raises SourceError.

    ``most``: files, or records of Kafka a thousandfold, of a step; ``options``: the readers' own.
    """
    frames = []
    for feed in feeds:
        try:
            frames.append(_opened(spark, feed, most, options))
        except ClinloomError:
            raise
        except Exception as error:  # a connector may fail in any way, and quote secrets
            kind = getattr(error, "getErrorClass", lambda: None)() or type(error).__name__
            raise SourceError(
                f"Spark cannot read what comes by {feed.place.partition(':')[0]} ({kind})",
                where=f"--from {feed.name}",
                mend="is it there, and is Spark's connector here? See docs/streaming.md",
            ) from None
    return reduce(lambda one, other: one.union(other), frames)


def _opened(spark: SparkSession, feed: Feed, most: int, options: Mapping[str, str]) -> DataFrame:
    from pyspark.sql import functions as F

    name = F.lit(feed.name).alias("feed")
    if feed.folder is not None:
        files.folder(feed.folder)
        reader = spark.readStream.format("binaryFile").option("recursiveFileLookup", "true")
        reader = reader.option("maxFilesPerTrigger", most).option("maxFileAge", ALWAYS)
        reader = reader.option("ignoreMissingFiles", "true")  # which the sources tell
        without = [F.lit(None).cast(kind).alias(column) for column, kind in REST]
        found = reader.schema(FILE).load(feed.folder.uri)
        return found.select(name, F.col("path").alias("place"), *without)
    if feed.place.startswith(KAFKA):
        servers, _, topic = feed.place.removeprefix(KAFKA).partition("/")
        reader = spark.readStream.format("kafka").options(**options)
        reader = reader.option("kafka.bootstrap.servers", servers).option("subscribe", topic)
        reader = reader.option("startingOffsets", options.get("startingOffsets", "earliest"))
        reader = reader.option("maxOffsetsPerTrigger", most * 1000)
        where = F.concat_ws("/", "topic", F.col("partition").cast("string")).alias("place")
        return reader.load().select(name, where, F.col("offset").alias("position"), "value")
    reader = spark.readStream.format("delta").options(**options)
    place = files.address(feed.place.removeprefix(DELTA))
    table = reader.option("maxFilesPerTrigger", most).load(place.uri)
    value = F.col("value")
    if feed.name == EVENTS:
        held = [column for column in table.columns if column in ACQUIRED.arrow.names]
        value = F.to_json(F.struct(*held), {"timestampFormat": TIMES})
    nowhere = F.lit(None).cast("bigint").alias("position")
    value = value.cast("binary").alias("value")
    return table.select(name, F.lit(place.name).alias("place"), nowhere, value)


@dataclass(frozen=True)
class Reading:
    """How records are read: the study's sources; what is too late, and until when times are told,
    in microseconds."""

    sources: Mapping[str, SourceModel]
    late: int
    now: int


def sliced(
    frame: DataFrame,
    feeds: Sequence[Feed],
    brought: Sequence[tuple[str, str]],
    reading: Reading,
    spool: Address,
    *,
    buckets: int,
) -> DataFrame | None:
    """A batch of records, as they come, as slices of SLICED; None where it is empty.

    ``brought``: its files, as names of feeds and URIs.
    """
    spark, parts = frame.sparkSession, []
    folders = {feed.name: feed.folder for feed in feeds if feed.folder is not None}
    if folders:
        units = Spool(spool / "units", _units(brought, folders, reading.sources, cores(spark)))
        if len(units):
            kernel = partial(_of_files, reading=reading)
            parts.append(shuffle.by_unit(spark, units, kernel, tables=SLICED, buckets=buckets))
    if len(folders) < len(feeds):
        records = frame.where("value IS NOT NULL")
        kernel_of_rows = partial(_of_rows, reading=reading)
        parts.append(shuffle.by_table(records, kernel_of_rows, tables=SLICED, buckets=buckets))
    return reduce(lambda one, other: one.union(other), parts) if parts else None


def _units(
    found: Sequence[tuple[str, str]],
    folders: Mapping[str, Address],
    sources: Mapping[str, SourceModel],
    lanes: int,
) -> Iterator[dict[str, Any]]:
    """New files as units of their sources, called as a run on the whole folder calls them."""
    for name, root in folders.items():
        places = sorted(_address(uri, root) for feed, uri in found if feed == name)
        if name == EVENTS:
            yield from ({"source": name, "units": [str(place)]} for place in places)
            continue
        planned = [unit for at in places for unit in _planned(name, at, root, sources[name])]
        for group in files.groups(planned, cores=lanes):
            yield {"source": name, "units": group}


def _address(uri: str, root: Address) -> Address:
    """A file as Clinloom calls it, which Spark calls by its own scheme and name node."""
    return root / unquote(urlsplit(uri).path).removeprefix(f"/{root.key}").lstrip("/")


def _planned(name: str, at: Address, root: Address, options: SourceModel) -> Iterator[Piece]:
    """A new file's units; what is gone, or an archive that cannot be opened, cannot be read.

    What is not named as the source says is passed over; but of such an archive that is not known.
    """
    packed = at.name.lower().endswith(".zip")
    above = at.relative_to(root).rpartition("/")[0]
    alone = options.model_copy(update={"path": str(at), "include": "*"})
    include = str(getattr(options, "include", "*"))
    try:
        units = list(cast(Iterator[Piece], load(options.type).plan(alone, f"sources.{name}")))
    except SourceError as error:
        try:
            files.read(at, 0, 1)
        except FileNotFoundError:
            pass
        except OSError:  # that may be mended, and the step be done again
            raise error from None
        units = [Piece(at.name, str(at), 0, files.BROKEN)]
    for unit in units:
        unknown = packed and unit.member == files.BROKEN
        if unknown or fnmatchcase(unit.name.rpartition("/")[2], include):
            yield replace(unit, name=f"{above}/{unit.name}" if above else unit.name)


def _of_files(unit: Mapping[str, Any], *, reading: Reading) -> Iterator[dict[str, pa.Table]]:
    """Parcels of new files."""
    if unit["source"] != EVENTS:
        yield from _told(acquire.read(unit, sources=reading.sources), reading)
        return
    for place in unit["units"]:
        try:
            events, refused = lines.of_file(files.read(place))
        except FileNotFoundError:
            events, refused = ACQUIRED.empty, [(0, "unreadable_file")]
        name = files.address(place).name
        told = _refused(EVENTS, [(name, at, reason) for at, reason in refused])
        yield from _told([{"events": events, "rejected": told}], reading)


def _of_rows(tables: Iterator[pa.Table], *, reading: Reading) -> Iterator[dict[str, pa.Table]]:
    """Parcels of records that are rows, of one feed and place after another."""
    for table in tables:
        keys = table.select(["feed", "place"]).to_pylist()
        values = table.column("value").to_pylist()
        at = table.column("position").fill_null(0).to_numpy()
        begin = 0
        for end in range(1, len(keys) + 1):
            if end < len(keys) and keys[end] == keys[begin]:
                continue
            some = values[begin:end], at[begin:end]
            yield from _of_messages(keys[begin]["feed"], keys[begin]["place"], *some, reading)
            begin = end


def _of_messages(
    feed: str, place: str, values: list[bytes], at: np.ndarray, reading: Reading
) -> Iterator[dict[str, pa.Table]]:
    """Parcels of messages, each a JSON value; what is refused is told by a message's position."""
    if feed == EVENTS:
        events, refused = lines.of_lines(values)
        told = _refused(feed, [(place, int(at[n]), reason) for n, reason in refused])
        yield from _told([{"events": events, "rejected": told}], reading)
        return
    plain = [value.replace(b"\n", b" ").replace(b"\r", b" ") for value in values]
    starts = np.cumsum([0, *(len(value) + 1 for value in plain)])[:-1]
    unit = {"source": feed, "units": [Given(JSON_NAME, b"\n".join(plain))]}
    for made in acquire.read(unit, sources=reading.sources):
        if "rejected" in made:
            made["rejected"] = _placed(made["rejected"], place, starts, at)
        yield from _told([made], reading)


def _placed(refused: pa.Table, place: str, starts: np.ndarray, at: np.ndarray) -> pa.Table:
    """Refusals by topic and offset, where they are told by bytes of what was read together."""
    byte = refused.column("position").fill_null(0).to_numpy()
    offset = at[np.maximum(np.searchsorted(starts, byte, "right") - 1, 0)]
    cells = {name: refused.column(name) for name in refused.column_names}
    cells |= {"file": pa.repeat(place, len(byte)), "position": pa.array(offset, pa.int64())}
    return pa.table(cells)


def _refused(source: str, rows: Sequence[tuple[str, int, str]]) -> pa.Table:
    told = {"source": source, "stage": "acquire"}
    return REJECTED.rows(
        {**told, "file": file, "position": at, "reason": reason} for file, at, reason in rows
    )


def _told(parcels: Any, reading: Reading) -> Iterator[dict[str, pa.Table]]:
    """Parcels as a stream keeps them: with their own identifiers' hashes, and what is too late."""
    for parcel in parcels:
        out: dict[str, pa.Table] = {}
        told = []
        if "rejected" in parcel and parcel["rejected"].num_rows:
            refused = parcel["rejected"]
            told.append(conform(refused, REJECTED))
            kept_ = refused.filter(refused.column("subject_id").is_valid())
            out["rejected"] = kept_.append_column(OWN.name, kept_.column("subject_id"))
        if "events" in parcel and parcel["events"].num_rows:
            events = parcel["events"]
            passed = kept.passed(events, reading.late)
            if passed.any():
                told.append(_late(conform(events.filter(pa.array(passed)), ACQUIRED)))
                events = events.filter(pa.array(~passed))
            out["events"] = events.append_column(OWN.name, events.column("subject_id"))
            out["extent"] = _extent(events, reading.now)
        if told:
            out["told"] = pa.concat_tables(told)
        if "links" in parcel:
            out["links"] = parcel["links"]
        yield {name: rows for name, rows in out.items() if rows.num_rows}


def _late(rows: pa.Table) -> pa.Table:
    told = {"stage": pa.repeat(STAGE, rows.num_rows), "reason": pa.repeat(kept.LATE, rows.num_rows)}
    held = {n: rows.column(n) for n in ("subject_id", "source", "record_id", "code")}
    return conform(pa.table({**held, **told}), REJECTED)


def _extent(events: pa.Table, now: int) -> pa.Table:
    """The latest time of what has happened by now (EXTENT); a birth tells nothing."""
    time = ev.times(ev.column(events, "time"))
    born = ev.column(events, "code").cast(pa.string()).to_numpy(zero_copy_only=False) == BIRTH
    time = time[(time <= now) & (time != ev.STATIC) & ~born]
    return pa.table([ev.timestamps(time.max(keepdims=True) if len(time) else time)], EXTENT.arrow)

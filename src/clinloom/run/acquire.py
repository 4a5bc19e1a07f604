"""The first step: every source through its kernel, who is who, events clustered by patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from clinloom import files, plugins
from clinloom.errors import SourceError
from clinloom.files import Piece
from clinloom.identity import crosswalk
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.spark.session import cores
from clinloom.store import Pending
from clinloom.study import Model, Study, digest, without_places
from clinloom.tables import ACQUIRED, IMAGES, LEDGER, LINKS, REJECTED

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STAGED = {"events": ACQUIRED, "images": IMAGES, "rejected": REJECTED} | {
    table.name: table for table in (LINKS, LEDGER)
}
CLUSTERED = {"events": "acquired", "images": "images", "rejected": "acquisition_rejected"}


def acquire(work: Work, study: Study) -> Tables:
    """Read every source into events clustered by patient."""
    found = pieces(study.sources)
    return work.step(
        "acquire",
        lambda out: read_all(work.spark, study.sources, found, out),
        options=what(study.sources),
        inputs={"files": fingerprint(found, study.sources)},
        counts="acquired",
    )


def pieces(sources: Mapping[str, Model]) -> dict[str, list[Piece]]:
    """The files of every source. Raises SourceError where one is not there."""
    return {
        name: files.listing(
            options.path, include=getattr(options, "include", "*"), where=f"sources.{name}.path"
        )
        for name, options in sources.items()
    }


def fingerprint(found: Mapping[str, Sequence[Piece]], sources: Mapping[str, Model]) -> str:
    """What acquisition depends on besides its options: the files, a manifest included."""
    stamps = []
    for name, listed in sorted(found.items()):
        stamps.append([name, files.fingerprint(listed)])
        manifest = getattr(sources[name], "manifest", None)
        if manifest:
            listed = files.listing(manifest, where=f"sources.{name}.manifest")
            stamps.append([f"{name}.manifest", files.fingerprint(listed)])
    return digest(stamps)


def what(sources: Mapping[str, Model]) -> Any:
    """The sources' options without the places of their files."""
    return without_places({name: o.model_dump(mode="json") for name, o in sources.items()})


def read(
    group: Sequence[Piece], *, kind: str, options: Model, source: str
) -> Iterator[Mapping[str, pa.Table]]:
    """Run one source's kernel on a group of files, each patient as the subject of an identifier."""
    for parcel in plugins.load("sources", kind).read(list(group), options, source):
        yield crosswalk.named(parcel)


def read_all(
    spark: SparkSession,
    sources: Mapping[str, Model],
    found: Mapping[str, list[Piece]],
    out: Pending,
) -> None:
    """Read every source and write acquired, images, rejected, ledger and the crosswalk.

    Raises SourceError where a source held no event at all.
    """
    staged = {name: out.scratch(f"staged-{name}") for name in STAGED}
    size = sum(piece.size for listed in found.values() for piece in listed)
    buckets = workers.bucket_count(size, spark)
    for number, (name, options) in enumerate(sources.items()):
        kind = options.type  # type: ignore[attr-defined]
        module = plugins.load("sources", kind)
        cut = files.groups(
            found[name], splittable=getattr(module, "SPLITTABLE", False), cores=cores(spark)
        )
        places = {table: folder / f"source={number}" for table, folder in staged.items()}
        for place in places.values():
            place.mkdir()
        kernel = partial(read, kind=kind, options=options, source=name)
        spread = dict.fromkeys(CLUSTERED, buckets)
        workers.by_file(spark, cut, kernel, out=out, places=places, tables=STAGED, spread=spread)
        if not any(places["events"].iterdir()):
            raise SourceError(
                "no event was found in this source",
                where=f"sources.{name}",
                mend=_why(places["rejected"]) or "does the mapping fit the files?",
            )
    who = crosswalk.resolve(spark, staged["links"], out)
    places = {table: out.place(name) for table, name in CLUSTERED.items()}
    workers.cluster(
        spark,
        {table: staged[table] for table in CLUSTERED},
        places=places,
        tables=STAGED,
        buckets=buckets,
        moved=who.moved,
    )
    for table, place in places.items():
        if not any(place.iterdir()):
            workers.pq.write_table(STAGED[table].empty, place / "part-00000.parquet")
    _ledger(staged["ledger"], who.merged, out)


def _why(folder: Any) -> str | None:
    """The commonest reason of refusal, where a source gave nothing else."""
    parts = [pa.ipc.open_file(str(f)).read_all().select(["reason"]) for f in folder.glob("*.arrow")]
    if not parts:
        return None
    reasons = pa.concat_tables(parts).column("reason").cast(pa.string())
    counts = reasons.value_counts().to_pylist()
    top = max(counts, key=lambda c: c["counts"])
    return f"{sum(c['counts'] for c in counts):,} records were refused, mostly as {top['values']}"


def _ledger(folder: Any, merged: int, out: Pending) -> None:
    parts = [workers.pq.read_table(f, schema=LEDGER.arrow) for f in folder.rglob("*.parquet")]
    rows = pa.concat_tables(parts) if parts else LEDGER.empty
    if merged:
        extra = {
            "rule": "two_identifiers",
            "action": "merged",
            "count": merged,
        }
        rows = pa.concat_tables([rows, LEDGER.rows([extra])])
    out.write(LEDGER, summed(rows), name="acquisition_ledger")


def summed(ledger: pa.Table) -> pa.Table:
    """A ledger with each (source, code, rule, action) once."""
    keys = ["source", "code", "rule", "action"]
    plain = pa.table(
        [
            c.cast(LEDGER.arrow.field(n).type)
            for n, c in zip(ledger.column_names, ledger.columns, strict=True)
        ],
        names=ledger.column_names,
    )
    grouped = plain.group_by(keys).aggregate([("count", "sum")])
    return (
        grouped.rename_columns({"count_sum": "count"})
        .select(LEDGER.arrow.names)
        .sort_by([(k, "ascending") for k in keys])
    )

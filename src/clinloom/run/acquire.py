"""The first step: every source through its kernel, who is who, events clustered by patient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from clinloom import files
from clinloom.errors import SourceError
from clinloom.files import Unit
from clinloom.identity import corrections, crosswalk, names, sharing
from clinloom.identity.records import RECORDS, claims
from clinloom.report import doubts
from clinloom.run import tallies
from clinloom.run.sums import MEASURED, added, counted, summed
from clinloom.run.tallies import Tally
from clinloom.run.work import Tables, Work
from clinloom.sources import displays, framed, load
from clinloom.spark import shuffle, workers
from clinloom.spark.session import cores
from clinloom.spark.units import Spool
from clinloom.store import Pending, Stored
from clinloom.store.stored import opened
from clinloom.study import SourceModel, Study, without_places
from clinloom.tables import (
    ACQUIRED,
    CALLED,
    COUNTS,
    CROSSWALK,
    DISPLAYS,
    IMAGES,
    LEDGER,
    LINKS,
    REFUSED,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PACKED = {"events": ACQUIRED, "images": IMAGES, "rejected": REFUSED} | {
    table.name: table for table in (LINKS, LEDGER, RECORDS)
}
CLUSTERED = {
    "events": ("acquired", ACQUIRED),
    "images": ("images", IMAGES),
    "rejected": ("acquisition_rejected", REFUSED),
    "crosswalk": ("crosswalk", CROSSWALK),
}
ALONE = {k: t for k, t in PACKED.items() if k not in ("links", "records")}
ALONE |= {"crosswalk": CROSSWALK}
BUCKET = 48 << 20  # bytes of input a bucket: flat memory, and work for every core
MOST_BUCKETS = 1024
FEW = 100_000  # rows of the ledger that the driver adds up by itself


class Planned:
    """A source's units: planned once to be told apart and summed, then streamed to groups."""

    def __init__(self, name: str, options: SourceModel):
        self.name, self.options = name, options
        self.size = 0
        self.stamp = files.fingerprint(self._weighed())

    def _weighed(self) -> Iterator[Unit]:
        for unit in self:
            self.size += unit.size
            yield unit

    def __iter__(self) -> Iterator[Unit]:
        return load(self.options.type).plan(self.options, f"sources.{self.name}")


def acquire(work: Work, study: Study) -> Tables:
    """Read every source into events clustered by patient."""
    found = [Planned(name, options) for name, options in study.sources.items()]
    return work.step(
        "acquire",
        lambda out: _read_all(work, study.sources, found, out),
        options=without_places({n: o.model_dump(mode="json") for n, o in study.sources.items()}),
        inputs={f"units of {source.name}": source.stamp for source in found},
        uses=[("sources", o.type) for o in study.sources.values()],
        counts="acquired",
    )


def _read_all(
    work: Work, sources: Mapping[str, SourceModel], found: Sequence[Planned], out: Pending
) -> None:
    """Read every source and write acquired, images, refusals, ledger and the crosswalk.

    Raises SourceError where a source held no event at all.
    """
    lanes = cores(work.spark)
    size = sum(source.size for source in found)
    buckets = min(MOST_BUCKETS, max(2 * lanes, -(-size // BUCKET)))
    units = Spool(out.scratch("units") / "units", _units(found, lanes))
    if any(load(options.type).LINKS for options in sources.values()):
        made = _linked(work.spark, sources, units, out, buckets, _before(work))
    else:
        made = _alone(work.spark, sources, units, out, buckets)
    ledger = made.get("ledger", LEDGER.empty)
    tallies.tell_empty(sources, ledger)
    out.write(MEASURED, tallies.measured(ledger))
    lines = [*tallies.refused(sources, ledger), *tallies.moved(sources, ledger)]
    lines += doubts.of_ledger(sources, ledger.to_pylist())
    lines += sharing.mingled(ledger)
    for text in (*lines, *sharing.apart(_systems(sources, ledger), ledger).values()):
        work.progress.note(text)
    called = ledger.filter(pc.equal(ledger.column("rule"), CALLED))
    out.write(DISPLAYS, displays(called.to_pylist()))
    told = ledger.filter(pc.invert(pc.is_in(ledger.column("rule"), pa.array(tallies.ON_THEIR_WAY))))
    out.write(LEDGER, summed([told]), name="acquisition_ledger")
    out.write(COUNTS, made.get("counts", COUNTS.empty), name="acquisition_counts")


def _before(work: Work) -> Stored | None:
    """The crosswalk that the output holds, by which its subjects keep their names."""
    entry = work.store.manifest["stages"].get("acquire", {"tables": {}})
    if "crosswalk" not in entry["tables"]:
        return None
    found = work.store.stored("acquire", "crosswalk")
    held = found.files()
    if not held or not all(files.exists(held[n]) for n in (0, -1)):
        return None
    fits = opened(str(held[0]), None, coded=False).schema_arrow.names == CROSSWALK.arrow.names
    return found if fits else None


def _alone(
    spark: SparkSession,
    sources: Mapping[str, SourceModel],
    units: Spool,
    out: Pending,
    buckets: int,
) -> dict[str, pa.Table]:
    """Sources of which none links identifiers: each stands for itself, and one pass is enough."""
    return shuffle.cluster(
        _slices(spark, sources, units, ALONE, buckets, alone=True),
        out=out,
        tables=CLUSTERED,
        buckets=buckets,
        merges={"ledger": (LEDGER, summed)},
        counting=(counted, added),
        checks={"crosswalk": crosswalk.distinct},
    )


def _linked(
    spark: SparkSession,
    sources: Mapping[str, SourceModel],
    units: Spool,
    out: Pending,
    buckets: int,
    before: Stored | None,
) -> dict[str, pa.Table]:
    """Sources that link identifiers: what was read waits, held by Spark, until it is known who is
    who."""
    slices = _slices(spark, sources, units, PACKED, buckets, alone=False)
    slices = slices.persist(shuffle.ON_DISK)
    try:
        rows = shuffle.settle(slices)
        ledger = _ledger(slices, rows.get("ledger", 0), min(max(len(units), 1), workers.TASKS))
        tallies.tell_empty(sources, ledger)
        lanes = 2 * cores(spark)
        links = rows.get("links", 0)
        who = crosswalk.resolve(
            spark, slices, links, out, buckets=buckets, parts=lanes, before=before
        )
        told, doubt = corrections.found(
            slices, rows.get("records", 0), buckets=buckets, moved=who.moved
        )
        taken_back = shuffle.held(spark, told, REFUSED, buckets=buckets) if told.num_rows else None
        kinds = ", ".join(f"'{kind}'" for kind in CLUSTERED)
        made = shuffle.cluster(
            slices.where(f"kind in ({kinds})"),
            out=out,
            tables=CLUSTERED,
            buckets=buckets,
            known=who.known if taken_back is None else who.known.union(taken_back),
            moved=who.moved,
            counting=(counted, added),
        )
    finally:
        slices.unpersist()
    extra = [
        {"rule": "two_identifiers", "action": "merged", "count": who.merged},
        {"rule": "shared_identifier", "action": "not_linked", "count": who.shared},
    ]
    return {**made, "ledger": pa.concat_tables([ledger, doubt, _some(extra)])}


def _some(counts: Iterable[dict[str, Any]]) -> pa.Table:
    return LEDGER.rows(row for row in counts if row["count"])


def _units(found: Iterable[Planned], lanes: int) -> Iterator[dict[str, Any]]:
    for source in found:
        if framed(source.options):
            continue
        for group in files.groups(source, cores=lanes, total=source.size):
            yield {"source": source.name, "units": group}


def _slices(
    spark: SparkSession,
    sources: Mapping[str, SourceModel],
    units: Spool,
    tables: Mapping[str, Table],
    buckets: int,
    *,
    alone: bool,
) -> DataFrame:
    """Everything that the kernels give: of units, which workers open, and of Spark's own tables."""
    kernel = partial(read, sources=dict(sources), alone=alone, versioned=not alone)
    parts = []
    if len(units):
        parts.append(shuffle.by_unit(spark, units, kernel, tables=tables, buckets=buckets))
    for name, options in sources.items():
        kind = framed(options)
        if kind is not None:
            frame = kind.frame(spark, options, f"sources.{name}")
            rows = partial(_rows, name=name, sources=dict(sources), alone=alone)
            parts.append(shuffle.by_table(frame, rows, tables=tables, buckets=buckets))
    if not parts:
        raise SourceError("the sources hold nothing to read", where="sources")
    return reduce(lambda one, other: one.union(other), parts)


def _rows(
    tables: Iterator[pa.Table], *, name: str, sources: Mapping[str, SourceModel], alone: bool
) -> Iterator[dict[str, pa.Table]]:
    """A partition of a table of Spark's through its source's kernel."""
    unit = {"source": name, "units": tables}
    yield from read(unit, sources=sources, alone=alone, versioned=not alone)


def read(
    unit: Mapping[str, Any],
    *,
    sources: Mapping[str, SourceModel],
    alone: bool = False,
    versioned: bool = False,
) -> Iterator[dict[str, pa.Table]]:
    """Run a source's kernel on a group of units, each patient as the subject of an identifier.

    ``alone``: each identifier stands for itself; the crosswalk's rows take the links' place.
    ``versioned``: of whom records tell that have versions (RECORDS) is told, too.
    """
    name = unit["source"]
    options = sources[name]
    naming = _namings(sources)[name]
    tally = Tally()
    for parcel in load(options.type).read(unit["units"], options, name):
        tally.systems |= dict.fromkeys(names.systems(parcel))
        made = names.named(parcel, naming)
        tally.add(made)
        if alone and "links" in made:
            yield {"crosswalk": crosswalk.themselves(made.pop("links"))}
        yield {**made, "records": claims(made)} if versioned else made
    yield {"ledger": tally.ledger(name)}


def _namings(sources: Mapping[str, SourceModel]) -> dict[str, names.Naming]:
    told = {name: (o.own_system, load(o.type).LINKS) for name, o in sources.items()}
    return names.namings(told, [system for o in sources.values() for system in o.anchors])


def _systems(sources: Mapping[str, SourceModel], ledger: pa.Table) -> dict[str, set[str]]:
    """The systems of the identifiers that each source tells, its own among them."""
    found = {name: {naming.own} for name, naming in _namings(sources).items()}
    for row in ledger.filter(pc.equal(ledger.column("rule"), tallies.TOLD_BY)).to_pylist():
        found[row["source"]].add(row["code"])
    return found


def apart(study: Study) -> list[str]:
    """A line for each source of which it is plain before it is read that it shares no patient."""
    namings = _namings(study.sources)
    telling = {name for name, o in study.sources.items() if load(o.type).LINKS}
    return [
        line
        for name, line in sharing.apart(_systems(study.sources, LEDGER.empty)).items()
        if not telling or (name not in telling and namings[name].own.startswith(names.OWN))
    ]


def _ledger(slices: Any, rows: int, parts: int) -> pa.Table:
    """What the sources' kernels counted; where that is much, merged by workers."""
    if rows <= FEW:
        return summed(shuffle.gathered(slices, LEDGER))

    def partial_sum(tables: Iterable[pa.Table]) -> pa.Table | None:
        held = list(tables)
        return summed(held) if held else None

    columns = "source string, code string, rule string, action string, count long"
    plain = shuffle.unpacked(slices, LEDGER, _plain, columns)
    found = workers.summed(plain, partial_sum, summed, parts=parts)
    return found if found is not None else LEDGER.empty


def _plain(ledger: pa.Table) -> pa.Table:
    return pa.table({f.name: ledger.column(f.name).cast(f.type) for f in LEDGER.arrow})

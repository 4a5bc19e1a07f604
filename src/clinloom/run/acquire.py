"""The first step: every source through its kernel, who is who, events clustered by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events as ev
from clinloom import files
from clinloom.errors import SourceError
from clinloom.files import Unit
from clinloom.identity import corrections, crosswalk, names, sharing
from clinloom.identity.records import RECORDS, claims
from clinloom.report import doubts
from clinloom.run.sums import MEASURED, added, counted, measured, summed
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
    KNOWN_AT_END,
    LEDGER,
    LINKS,
    REFUSED,
    Fault,
    Table,
    faults,
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
SECOND = 1_000_000  # microseconds
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
    _tell_empty(sources, ledger)
    out.write(MEASURED, _measured(ledger))
    lines = [*mostly_refused(sources, ledger), *mostly_moved(sources, ledger)]
    lines += doubts.of_ledger(sources, ledger.to_pylist())
    lines += sharing.mingled(ledger)
    for text in (*lines, *sharing.apart(_systems(sources, ledger), ledger).values()):
        work.progress.note(text)
    called = ledger.filter(pc.equal(ledger.column("rule"), CALLED))
    out.write(DISPLAYS, displays(called.to_pylist()))
    told = ledger.filter(pc.invert(pc.is_in(ledger.column("rule"), pa.array(ON_THEIR_WAY))))
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
        _tell_empty(sources, ledger)
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
    yield from read({"source": name, "units": tables}, sources=sources, alone=alone)


# Rows of the ledger on their way, that the driver takes out again.
EVENTS_OF = "events of a source"
IMAGES_OF = "images of a source"
TOLD_BY = "systems that a source tells"
UNIT_OF = "units of a code"  # the unit is the action
MOST_UNITS = 1 << 17  # codes in their units that are kept, the commonest, where a column is garbage
ON_THEIR_WAY = (EVENTS_OF, IMAGES_OF, TOLD_BY, UNIT_OF, CALLED)


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
    count = images = hourless = 0
    refused: Counter[Fault] = Counter()
    units: Counter[tuple[str, str]] = Counter()
    systems: dict[str, None] = {}
    for parcel in load(options.type).read(unit["units"], options, name):
        systems |= dict.fromkeys(names.systems(parcel))
        made = names.named(parcel, naming)
        if "events" in made:
            count += made["events"].num_rows
            hourless += _hourless(made["events"])
            units += measured(made["events"])
        if "images" in made:
            images += made["images"].num_rows
        if "rejected" in made:
            refused += faults(made["rejected"])
        if alone and "links" in made:
            yield {"crosswalk": crosswalk.themselves(made.pop("links"))}
        yield {**made, "records": claims(made)} if versioned else made
    rows = [
        {"source": name, "rule": rule, "action": "", "count": n}
        for rule, n in ((EVENTS_OF, count), (IMAGES_OF, images))
    ]
    rows += [
        {"source": name, "code": field, "rule": EVENTS_OF, "action": reason, "count": n}
        for (reason, field), n in refused.items()
    ]
    if hourless:
        told = {"source": name, "rule": "no_hour", "action": KNOWN_AT_END}
        rows.append({**told, "count": hourless})
    rows += [
        {"source": name, "code": system, "rule": TOLD_BY, "action": "", "count": 1}
        for system in systems
    ]
    rows += [
        {"source": name, "code": code, "rule": UNIT_OF, "action": unit, "count": n}
        for (code, unit), n in units.most_common(MOST_UNITS)
    ]
    yield {"ledger": LEDGER.rows(rows)}


def _hourless(events: pa.Table) -> int:
    """How many events are known at the last microsecond of a day, a month or a year."""
    if "earlier" not in events.column_names:
        return 0
    known = ev.times(ev.column(events, "time").filter(ev.column(events, "earlier").is_valid()))
    return int(np.count_nonzero((known + 1) % SECOND == 0))


def _measured(ledger: pa.Table) -> pa.Table:
    """MEASURED, from what the sources' kernels counted."""
    rows = ledger.filter(pc.equal(ledger.column("rule"), UNIT_OF))
    found = rows.group_by(["code", "action"]).aggregate([("count", "sum")])
    order = [("count_sum", "descending"), ("code", "ascending"), ("action", "ascending")]
    found = found.select(["code", "action", "count_sum"]).sort_by(order)[:MOST_UNITS]
    return found.rename_columns(MEASURED.arrow.names).cast(MEASURED.arrow)


def _namings(sources: Mapping[str, SourceModel]) -> dict[str, names.Naming]:
    told = {name: (o.own_system, load(o.type).LINKS) for name, o in sources.items()}
    return names.namings(told, [system for o in sources.values() for system in o.anchors])


def _systems(sources: Mapping[str, SourceModel], ledger: pa.Table) -> dict[str, set[str]]:
    """The systems of the identifiers that each source tells, its own among them."""
    found = {name: {naming.own} for name, naming in _namings(sources).items()}
    for row in ledger.filter(pc.equal(ledger.column("rule"), TOLD_BY)).to_pylist():
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


def mostly_refused(sources: Iterable[str], ledger: pa.Table) -> Iterator[str]:
    """A line for each source of which more was refused than read."""
    for name in sources:
        events, refused = _counts(name, ledger)
        images, _ = _counts(name, ledger, of=IMAGES_OF)
        yield from doubts.refused(name, images or events, refused)


def mostly_moved(sources: Iterable[str], ledger: pa.Table) -> Iterator[str]:
    """A line for each source of which most events are timed otherwise than by when they were
    known."""
    for name in sources:
        yield from doubts.moved(name, _counts(name, ledger)[0], ledger.to_pylist())


def _counts(name: str, ledger: pa.Table, *, of: str = EVENTS_OF) -> tuple[int, dict[Fault, int]]:
    """How many events a source gave, and how many records it refused, by reason and field."""
    rows = [row for row in ledger.to_pylist() if row["rule"] == of and row["source"] == name]
    found = {(row["action"], row["code"]): row["count"] for row in rows}
    return found.pop(("", None), 0), found


def _tell_empty(sources: Iterable[str], ledger: pa.Table) -> None:
    """Raise SourceError where a source gave no event, with the commonest reason of refusal."""
    for name in sources:
        events, refused = _counts(name, ledger)
        if events:
            continue
        mend = "does the mapping fit the files?"
        if refused:
            mend = f"{sum(refused.values()):,} records were refused, {doubts.mostly(refused)}"
        raise SourceError("no event was found in this source", where=f"sources.{name}", mend=mend)

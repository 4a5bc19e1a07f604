"""A step of a stream: what is new is read, clustered by patient, judged, and kept.

Who turns out to be another takes what is kept along, from bucket to bucket. What a step writes is
in ``out.parts``; whoever commits these has made the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.events import STATIC
from clinloom.files import Address
from clinloom.identity import growing
from clinloom.run import feeds, kept
from clinloom.run.feeds import Feed, Reading
from clinloom.run.kept import HISTORY, REFUSALS, WAITING, Asked, Held
from clinloom.spark import blocks, shuffle, workers
from clinloom.spark.receipts import Batches, Writing
from clinloom.spark.units import Spool
from clinloom.store import Part, Pending, TableWriter
from clinloom.store.stored import of_keys
from clinloom.tables import EXTENT, LINKS, MOVED, REJECTED, STREAMED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Parts = Mapping[str, Sequence[Part]]
KEPT = {t.name: t for t in (HISTORY, REFUSALS, WAITING, growing.KNOWN, growing.STANDING)}
TOLD = {"predictions": STREAMED, "told": REJECTED}  # leave with each step
CLUSTERED = {"events": ("history", HISTORY), "rejected": ("refusals", REFUSALS)}
CLUSTERED |= {"told": ("told", REJECTED)}
SPLIT = ("history", "refusals")  # what moves where a patient turns out to be another
MERGED = tuple(name for name in KEPT if name != WAITING.name)  # grow, and are made fewer files
GONE = pa.schema([("file", pa.string())])
MERGES = {"due": pa.concat_tables, "merged": pa.concat_tables}
DUE = pa.schema([("bucket", pa.int64()), ("due", pa.int64())])


class News:
    """One step's news on their way into what is kept.

    ``parts``: what is kept so far, by table; ``latest``, after :meth:`take`: the latest time told.
    """

    def __init__(self, spark: SparkSession, out: Pending, parts: Parts, *, buckets: int):
        self.spark, self.out, self.kept, self.buckets = spark, out, parts, buckets
        self.latest = STATIC
        self.gone: dict[int, list[tuple[int, int]]] = {}

    def take(
        self,
        frame: DataFrame,
        found: Sequence[Feed],
        brought: Sequence[tuple[str, str]],
        reading: Reading,
        version: int,
    ) -> None:
        """Read a micro-batch, find who is who, and cluster it by patient."""
        place = self.out.scratch("units")
        slices = feeds.sliced(frame, found, brought, reading, place, buckets=self.buckets)
        if slices is None:
            return
        slices = slices.persist(shuffle.ON_DISK)
        try:
            rows = shuffle.settle(slices)
            if "extent" in rows:
                told = pa.concat_tables(shuffle.gathered(slices, EXTENT))
                self.latest = int(ev.times(ev.column(told, "last")).max())
            who = growing.Found()
            if "links" in rows:
                links = shuffle.gathered(slices, LINKS)
                who = growing.resolve(links, self._asked, version=version)
            self._cluster(slices, who)
        finally:
            slices.unpersist()

    def _asked(self, name: str, subjects: np.ndarray) -> list[pa.Table]:
        """What is kept of some subjects in a table, asked of its files side by side."""
        bucket = np.mod(subjects, self.buckets)
        tasks = [
            partial(of_keys, str(self.out.place(name) / part.file), subjects[bucket == part.bucket])
            for part in self.kept.get(name, ())
            if (bucket == part.bucket).any()
        ]
        return growing.side_by_side(tasks)

    def _cluster(self, slices: DataFrame, who: growing.Found) -> None:
        for own, (old, _) in sorted(who.moved.items()):
            self.gone.setdefault(old % self.buckets, []).append((own, old))
        shuffle.cluster(
            slices.where("kind in ('events', 'rejected', 'told')"),
            out=self.out,
            tables=CLUSTERED,
            buckets=self.buckets,
            known=self._relocated(who) if who.moved else None,
            moved=self._moved(who.true),
        )
        for table, rows in ((growing.KNOWN, who.known), (growing.STANDING, who.standing)):
            for bucket, some in blocks.cut(rows.sort_by("subject_id"), self.buckets):
                with Writing({table.name: self.out.place(table.name)}, KEPT, bucket) as writing:
                    writing.write({table.name: some})
                self.out.took(table.name, writing.parts().values())

    def _moved(self, true: Mapping[int, int]) -> tuple[Address, ...]:
        """Files that say for whom identifiers stand, as clustering takes them."""
        if not true:
            return ()
        place = self.out.scratch("moved") / "moved.parquet"
        with TableWriter(place, MOVED) as writer:
            writer.write(
                pa.table(list(zip(*sorted(true.items()), strict=True)), schema=MOVED.arrow)
            )
        return (place,)

    def _relocated(self, who: growing.Found) -> DataFrame:
        """What is kept of identifiers whose subject changed, under the new one, as slices."""
        units = [
            {
                "moved": [(own, old, who.moved[own][1]) for own, old in gone],
                **{name: [file for file, _ in self._held(name, bucket)] for name in SPLIT},
            }
            for bucket, gone in self.gone.items()
        ]
        spool = Spool(self.out.scratch("relocated") / "units", units)
        tables = {kind: table for kind, (_, table) in CLUSTERED.items()}
        return shuffle.by_unit(
            self.spark, spool, kept.relocated, tables=tables, buckets=self.buckets
        )

    def _held(self, name: str, bucket: int) -> tuple[tuple[str, int], ...]:
        """The files of a table's bucket as they are kept, with their rows."""
        return self._files(name, self.kept.get(name, ()), bucket)

    def _files(self, name: str, parts: Iterable[Part], bucket: int) -> tuple[tuple[str, int], ...]:
        place = self.out.place(name)
        return tuple((str(place / p.file), p.rows) for p in parts if p.bucket == bucket)

    def advance(self, asked: Asked, due: Mapping[int, int]) -> dict[int, int]:
        """Hand those who have news to the kernels; when something is next ``due``, by bucket.

        What is kept from now on stands in ``out.parts``.
        """
        out = self.out
        fresh = {name: list(out.parts.get(name, ())) for name in KEPT}
        came = {part.bucket for parts in fresh.values() for part in parts}
        ripe = {bucket for bucket, when in due.items() if when <= asked.now}
        touched = sorted(came | ripe | self.gone.keys())
        plan = [
            kept.Bucket(
                tables={
                    name: Held(self._held(name, bucket), self._files(name, fresh[name], bucket))
                    for name in MERGED
                },
                waiting=next((file for file, _ in self._held(WAITING.name, bucket)), None),
                gone=tuple(self.gone.get(bucket, ())),
            )
            for bucket in touched
        ]
        targets = {name: out.place(name) for name in (*KEPT, *TOLD)}

        def work(number: int) -> Batches:
            with Writing(targets, {**KEPT, **TOLD}, touched[number]) as writing:
                when, merged = kept.advance(plan[number], asked, writing)
            yield from writing.receipts()
            yield workers.partial("due", pa.table([[touched[number]], [when]], schema=DUE))
            yield workers.partial("merged", pa.table([merged], schema=GONE))

        found = workers.tasks(self.spark, len(plan), work, out=out, merges=MERGES)
        merged = set(found["merged"].column("file").to_pylist()) if found else set()
        for name in KEPT:
            again = set(touched) if name == WAITING.name else set()
            old = [p for p in self.kept.get(name, ()) if p.bucket not in again]
            place = out.place(name)
            parts = [*old, *out.parts.get(name, ())]
            out.parts[name] = [p for p in parts if str(place / p.file) not in merged]
        told = found["due"].to_pylist() if found else []
        return {**due, **{row["bucket"]: row["due"] for row in told}}

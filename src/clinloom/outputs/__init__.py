"""Outputs: one file is one form in which `clinloom score` leaves its scores.

A file gives ``REQUIRES``, ``Options`` and one verb, ``write(scores, target, options) -> rows``.
What stands at the address ``target`` afterwards is this scoring, whole, or what stood there before;
doing it again leaves the same. Rows are turned by workers, bucket by bucket; the driver passes on
what they wrote, a little at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow as pa

from clinloom import files, plugins, study
from clinloom.deploy.bundle import Bundle
from clinloom.errors import StoreError
from clinloom.files import Address
from clinloom.store import Pending, Stored, TableWriter
from clinloom.store.stored import stream
from clinloom.study import Model
from clinloom.tables import CROSSWALK, EVENTS, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

AT_ONCE = 1 << 18  # rows that are copied at once


@dataclass(frozen=True)
class Scores:
    """What a scoring left, and by whom it is turned into another form.

    ``table``: PREDICTIONS, or SCORES where the patients' own identifiers may leave; ``known``: the
    crosswalk, then alone.
    """

    spark: SparkSession
    bundle: Bundle
    predictions: Stored
    table: Table
    events: Stored
    known: Stored | None
    pending: Pending

    def turned(
        self,
        kernel: Callable[..., Mapping[str, pa.Table]],
        tables: Sequence[Table],
        *,
        events: Sequence[str] = ("subject_id",),
        **told: Any,
    ) -> dict[str, list[Address]]:
        """Files of each table that ``kernel(events, predictions[, known])`` makes, by bucket.

        ``events``: which of their columns the kernel is handed, of whole patients.
        """
        from clinloom.spark import workers

        inputs = {"events": (self.events, EVENTS), "predictions": (self.predictions, self.table)}
        if self.known is not None:
            inputs["known"] = (self.known, CROSSWALK)
        workers.by_patient(
            self.spark,
            inputs,
            partial(kernel, **told),
            out=self.pending,
            tables={table.name: table for table in tables},
            columns={"events": events},
        )
        found = {}
        for table in tables:
            parts = tuple(self.pending.parts[table.name])
            laid = Stored(table.name, self.pending.place(table.name), "", None, parts).buckets()
            found[table.name] = [file for bucket in laid.values() for file in bucket]
        return found


class Output(Protocol):
    """What a file of this room owes."""

    REQUIRES: str | None

    @property
    def Options(self) -> type[Model]:
        """What ``--option`` may set."""

    def write(self, scores: Scores, target: Address, options: Any) -> int:
        """Leave the scores at ``target``; how many there are. Raises ClinloomError."""


def load(name: str) -> Output:
    """An output by name. Raises UsageError with the nearest where there is none."""
    return cast(Output, plugins.load("outputs", name))


def settled(name: str, told: Sequence[str]) -> Model:
    """The options ``NAME=VALUE`` of an output. Raises UsageError, MissingDependency."""
    load(name)
    plugins.check("outputs", name)
    return study.told(plugins.options("outputs", name), told, where=f"--option of --as {name}")


def copied(
    table: Table, parts: Sequence[Address], target: Address, told: Mapping[str, str] | None = None
) -> int:
    """Files of a table as one, a few rows at a time; how many rows they hold.

    ``told``: its metadata.
    """
    with writing(target):
        files.folder(target.parent)
        with TableWriter(target, table, told) as writer:
            for file in parts:
                for rows in stream(str(file), None, AT_ONCE):
                    writer.write(rows)
    return writer.rows


@contextmanager
def writing(target: Address) -> Iterator[None]:
    """Raise StoreError where a storage refuses what is written there."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot be written ({reason})", where=str(target)) from None

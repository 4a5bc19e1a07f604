"""A bucket's tables as chunks of whole patients, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clinloom.spark.blocks import subjects
from clinloom.store import coded
from clinloom.store.stored import read, stream
from clinloom.tables import Table


@dataclass(frozen=True)
class Input:
    """Where a table's rows of one bucket lie, and what is read of them."""

    files: tuple[str, ...]
    table: Table
    columns: tuple[str, ...] | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns as they are read."""
        whole = coded(self.table)
        return whole if self.columns is None else pa.schema([whole.field(c) for c in self.columns])

    def stream(self, rows: int) -> Iterator[pa.Table]:
        """Its rows, so many at a time. One file holds a bucket: it is sorted as a whole."""
        for file in self.files:
            yield from stream(file, self._names, rows)

    def whole(self) -> pa.Table:
        """All its rows."""
        parts = [read(file, self._names) for file in self.files]
        return pa.concat_tables(parts).combine_chunks() if parts else self.schema.empty_table()

    @property
    def _names(self) -> Sequence[str] | None:
        return None if self.columns is None else list(self.columns)


def patients(inputs: Mapping[str, Input], chunk: int) -> Iterator[dict[str, pa.Table]]:
    """The first input's rows in chunks of whole patients, the others cut to the same patients.

    Patients that only others know come with the chunk that ends beyond them.
    """
    (first, *others) = inputs
    rest = {name: inputs[name].whole() for name in others}
    known = {name: subjects(table) for name, table in rest.items()}
    done = dict.fromkeys(others, 0)

    def upto(subject: int | None) -> dict[str, pa.Table]:
        part = {}
        for name in others:
            end = len(known[name])
            if subject is not None:
                end = int(np.searchsorted(known[name], subject, side="left"))
            part[name] = rest[name].slice(done[name], end - done[name])
            done[name] = end
        return part

    held: list[pa.Table] = []
    for batch in inputs[first].stream(chunk):
        held.append(batch)
        ids = batch.column("subject_id").to_numpy()
        last = int(ids[-1])
        begins = int(np.searchsorted(ids, last, side="left"))
        earlier = held[:-1]
        if not begins and (not earlier or earlier[0].column("subject_id")[0].as_py() == last):
            continue  # one patient fills the whole chunk: read on
        if begins == 0 and earlier[-1].column("subject_id")[-1].as_py() == last:
            whole = pa.concat_tables(held)
            begins = int(np.searchsorted(whole.column("subject_id").to_numpy(), last, side="left"))
            held = [whole.slice(begins)]
            yield {first: _joined([whole.slice(0, begins)]), **upto(last)}
            continue
        yield {first: _joined([*earlier, batch.slice(0, begins)]), **upto(last)}
        held = [batch.slice(begins)]
    if held:
        yield {first: _joined(held), **upto(None)}
    elif any(len(ids) for ids in known.values()):
        yield {first: inputs[first].schema.empty_table(), **upto(None)}


def _joined(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()

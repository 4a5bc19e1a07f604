"""A stage's output while it is being written: nothing of it exists before the manifest names it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from clinloom import files
from clinloom.files import Address
from clinloom.store import layout
from clinloom.store.holding import Check
from clinloom.store.stored import Part
from clinloom.store.writer import TableWriter, attempt
from clinloom.tables import Table


@dataclass
class Pending:
    """What a stage has written so far, by table."""

    root: Address
    check: Check = lambda: None  # raises where another run holds the output by now
    parts: dict[str, list[Part]] = field(default_factory=dict)
    _scratch: Address | None = None

    def place(self, name: str) -> Address:
        """The folder of a table (or other output) of this stage."""
        self.parts.setdefault(name, [])
        return layout.home(self.root, name)

    def took(self, name: str, parts: Iterable[Part]) -> None:
        """What workers wrote of a table."""
        self.place(name)
        self.parts[name] += parts

    def forget(self, name: str) -> None:
        """What was written of a table is none of it: it is done again."""
        self.parts.pop(name, None)

    def write(self, table: Table, rows: pa.Table, *, name: str | None = None) -> None:
        """A small table, in one file; under another name where it is one of several."""
        name = name or table.name
        file = self.place(name) / attempt("part-00000", ".parquet")
        with TableWriter(file, table) as writer:
            writer.write(rows)
        self.took(name, [Part(file.name, 0, writer.rows, writer.bytes)])

    def put(self, output: str, name: str, data: bytes | str) -> None:
        """A small file of an output, which readers will call ``name``."""
        stem, dot, suffix = name.rpartition(".")
        file = attempt(stem or suffix, f".{suffix}" if dot else "")
        data = data.encode() if isinstance(data, str) else data
        files.write(self.place(output) / file, data)
        self.took(output, [Part(file, 0, 0, len(data), name)])

    def folder(self, output: str, name: str) -> Address:
        """An address for Spark to save a model at, which readers will call ``name``."""
        file = attempt(name)
        place = self.place(output) / file
        self.took(output, [Part(file, 0, 0, 0, name)])
        return place

    def scratch(self, name: str) -> Address:
        """A folder that is thrown away when the stage ends."""
        if self._scratch is None:
            self._scratch = self.root / layout.SCRATCH / attempt("stage")
        return files.folder(self._scratch / name)

    def clear(self) -> None:
        """Throw the scratch away."""
        if self._scratch is not None:
            files.remove(self._scratch)
            self._scratch = None

"""The only reader and writer of tables: atomic commit, resume, audit.

A stage writes into a folder of its own under ``.pending``; when it is whole, its tables move into
place and the manifest is replaced in one step. A stage that died leaves nothing behind that
anybody reads. A stage is reused while its key (options, inputs, version) is the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from clinloom.errors import StoreError
from clinloom.guard import audit
from clinloom.store.writer import TableWriter, disk_full
from clinloom.study import digest
from clinloom.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GUARDED = {"crosswalk"}
@dataclass(frozen=True)
class Stored:
    """A committed table (or other folder): where it lies, its rows, and the key it came from."""

    name: str
    path: Path
    key: str
    rows: int | None = None

    def files(self) -> list[Path]:
        """Its Parquet files, one a bucket where it is bucketed."""
        return sorted(self.path.glob("*.parquet"))

    def frame(self, spark: SparkSession) -> DataFrame:
        """The table as a Spark DataFrame."""
        return spark.read.parquet(str(self.path))

    def arrow(self, columns: list[str] | None = None) -> pa.Table:
        """The table in memory: for small ones."""
        return pq.read_table(self.path, columns=columns)


@dataclass
class Pending:
    """A stage's output while it is being written."""

    folder: Path
    names: list[str] = field(default_factory=list)

    def place(self, name: str) -> Path:
        """The folder for a table (or other output) of this stage."""
        if name not in self.names:
            self.names.append(name)
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def scratch(self, name: str) -> Path:
        """A folder that is thrown away when the stage commits."""
        path = self.folder / ".scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, table: Table, rows: pa.Table, *, name: str | None = None) -> None:
        """A small table, in one file; under another name where it is one of several."""
        place = self.place(name or table.name)
        with TableWriter(place / "part-00000.parquet", table) as writer:
            writer.write(rows)


class Store:
    """The tables and the manifest under one output folder. One run at a time may hold it."""

    def __init__(self, root: str | Path):
        self.root = Path(root).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.root / ".lock", "w")  # noqa: SIM115 - held while the store is
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                "another run is writing here", where=str(root), mend="wait for it, or take --out"
            ) from None
        except OSError as error:
            raise StoreError(
                f"cannot write here ({error.strerror})",
                where=str(root),
                mend="choose another --out",
            ) from None
        shutil.rmtree(self.root / ".pending", ignore_errors=True)
        self.manifest: dict[str, Any] = {"stages": {}}
        file = self.root / "manifest.json"
        if file.exists():
            try:
                self.manifest = json.loads(file.read_text())
            except ValueError:
                self.manifest = {"stages": {}}

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.close()

    def stored(self, stage: str, name: str) -> Stored:
        """A committed table. Raises StoreError where the stage was never run."""
        entry = self.manifest["stages"].get(stage, {})
        if name not in entry.get("tables", {}):
            raise StoreError(f"there is no table '{name}' of stage '{stage}'", where=str(self.root))
        rows = entry["tables"][name]["rows"]
        audit.record(self.root, action="read", what=name, rows=rows)
        return Stored(name, self._home(name), entry["key"], rows)

    def current(self, stage: str, key: str) -> bool:
        """Whether the stage is committed with this key and its tables are all there."""
        entry = self.manifest["stages"].get(stage)
        return bool(
            entry and entry["key"] == key and all(self._home(n).exists() for n in entry["tables"])
        )

    @contextmanager
    def writing(self, stage: str, key: str) -> Iterator[Pending]:
        """A folder to write a stage into; committed when the block ends without an error."""
        folder = self.root / ".pending" / f"{stage.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        start = time.monotonic()
        try:
            folder.mkdir(parents=True)
            pending = Pending(folder)
            yield pending
            shutil.rmtree(folder / ".scratch", ignore_errors=True)
            self._commit(stage, key, pending, time.monotonic() - start)
        except Exception as error:
            if disk_full(error):
                raise StoreError(
                    "the disk is full; nothing half-written was kept",
                    where=f"stage '{stage}'",
                    mend="free some space and run again: it goes on after the last whole stage",
                ) from None
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _commit(self, stage: str, key: str, pending: Pending, seconds: float) -> None:
        # the old entry goes first: a crash between the moves must not leave it vouching for them
        if self.manifest["stages"].pop(stage, None):
            self.save()
        tables = {}
        for name in pending.names:
            made, home = pending.folder / name, self._home(name)
            home.parent.mkdir(parents=True, exist_ok=True)
            tables[name] = describe(made)
            if home.exists():
                old = self.root / ".pending" / f"old-{uuid.uuid4().hex}"
                os.replace(home, old)
                shutil.rmtree(old, ignore_errors=True)
            os.replace(made, home)
            audit.record(self.root, action="write", what=name, rows=tables[name]["rows"])
        self.manifest["stages"][stage] = {
            "key": key,
            "seconds": round(seconds, 3),
            "tables": tables,
        }
        self.save()

    def save(self) -> None:
        """Replace the manifest in one step."""
        self.write_text("manifest.json", json.dumps(self.manifest, indent=1))

    def write_text(self, name: str, text: str) -> Path:
        """A text file in the output folder, whole or not at all."""
        path = self.root / name
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"cannot be written ({error.strerror})", where=str(path)) from None
        return path

    def _home(self, name: str) -> Path:
        if name in GUARDED:
            return audit.guarded(self.root) / name
        if name == "bundle":
            return self.root / "bundle"
        room, _, rest = name.partition(".")
        return self.root / room / rest if rest else self.root / "tables" / name


def describe(folder: Path) -> dict[str, Any]:
    """Rows, bytes and a hash of the content of a table's files."""
    files = sorted(
        f for f in folder.rglob("*") if f.is_file() and not f.name.startswith((".", "_"))
    )
    rows = None
    if files and all(f.suffix == ".parquet" for f in files):
        rows = sum(pq.read_metadata(f).num_rows for f in files)
    return {"rows": rows, "bytes": sum(f.stat().st_size for f in files), "files": len(files)}


def key_of(stage: str, options: Any, inputs: Mapping[str, str], version: str) -> str:
    """What a stage's result depends on: its options, the keys of its inputs, the version."""
    return digest([stage, options, dict(sorted(inputs.items())), version])

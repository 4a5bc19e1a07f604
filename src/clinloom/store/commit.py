"""The commit: one manifest that names the files of every table, replaced in one step.

A worker writes its file under a name of its own attempt; what the manifest does not name does not
exist, and is swept. A stage is reused while its key (options, inputs, version) is the same.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address, Entry
from clinloom.guard import audit
from clinloom.store import holding, layout
from clinloom.store.lease import BUSY, MEND, Lease
from clinloom.store.pending import Pending
from clinloom.store.stored import Part, Stored, of_manifest
from clinloom.store.writer import disk_full
from clinloom.study import digest

FORMAT = 2
LINES = 1000  # of a file of the audit trail, about
FENCES = 5  # tries to give a document a new version: an overtaken run replaces it once at most


class Store:
    """The tables and the manifest under one output address. One run at a time may hold it.

    ``trail``: the folder of the audit trail, where the output itself is not to stay.
    """

    def __init__(
        self,
        root: str | Address,
        *,
        note: Callable[[str], None] | None = None,
        trail: Address | None = None,
    ):
        self.root = files.address(root)
        self._trail_room = trail or self.root / layout.GUARDED_ROOM
        try:
            files.folder(self.root)
            for room in (self.root / layout.GUARDED_ROOM, self._trail_room):
                if room.local:
                    room.path.mkdir(mode=0o700, exist_ok=True)
            self._lease = Lease(self.root, note=note)
            self._open()
        except OSError as error:
            raise StoreError(
                f"cannot write here ({error.strerror or type(error).__name__})",
                where=str(root),
                mend="choose another --out",
            ) from None
        self._begin_trail()

    def _open(self) -> None:
        try:
            if self._lease.taken:
                for name in layout.DOCUMENTS:
                    self._fence(self.root / name)
            self._version = files.version(self._place)
            self.manifest = _manifest(self._place) if self._version else _empty()
        except BaseException:
            with suppress(OSError):
                self._lease.close()
            raise

    def _fence(self, place: Address) -> None:
        """Give a document a new version: who was overtaken replaces the one that it knows alone.

        The manifest is made where it is missing, for that too may be what the other waits to do.
        """
        for _ in range(FENCES):
            seen = files.version(place)
            if seen is None and place != self._place:
                return
            held = _document(place) if seen else _empty()
            text = json.dumps({**held, "taken": self._lease.name}, indent=1).encode()
            if files.swap(place, text, seen) is not None:
                return
        raise StoreError(BUSY, where=str(self.root), mend=MEND)

    def close(self) -> None:
        """Keep the audit trail, and let another run have the output."""
        try:
            self.keep_trail()
        finally:
            self._lease.close()

    def stored(self, stage: str, name: str) -> Stored:
        """A committed table. Raises StoreError where the stage was never run."""
        entry = self.manifest["stages"].get(stage, {})
        if name not in entry.get("tables", {}):
            raise StoreError(f"there is no table '{name}' of stage '{stage}'", where=str(self.root))
        self.audit("read", name, entry["tables"][name]["rows"])
        place = layout.home(self.root, name)
        return of_manifest(name, place, entry["key"], entry["tables"][name])

    def current(self, stage: str, key: str) -> bool:
        """Whether the stage is committed with this key and its files are all there."""
        entry = self.manifest["stages"].get(stage)
        if not entry or entry["key"] != key:
            return False
        tables = entry["tables"]
        return all(
            files.exists(layout.home(self.root, name) / part[0])
            for name, table in tables.items()
            for part in table["parts"][:: max(1, len(table["parts"]) - 1)]  # the first and the last
        )

    @contextmanager
    def writing(self, stage: str, key: str) -> Iterator[Pending]:
        """An output to write; committed when the block ends without an error, else swept."""
        start = time.monotonic()
        pending = Pending(self.root, self.check)
        try:
            yield pending
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
            self._tidy(pending)

    def _commit(self, stage: str, key: str, pending: Pending, seconds: float) -> None:
        tables = {name: _described(parts) for name, parts in pending.parts.items()}
        for name, table in tables.items():
            self.audit("write", name, table["rows"])
        entry = {"key": key, "seconds": round(seconds, 3), "tables": tables}
        stages = {n: e for n, e in self.manifest["stages"].items() if n != stage}
        self._replace({**stages, stage: entry})
        self.keep_trail()

    def forget(self, stages: str) -> None:
        """Take away what the stages whose names begin so have committed: nothing needs it more."""
        held = self.manifest["stages"]
        gone = {name: entry for name, entry in held.items() if name.startswith(stages)}
        if not gone:
            return
        self._replace({name: entry for name, entry in held.items() if name not in gone})
        for entry in gone.values():
            for table in entry["tables"]:
                with suppress(OSError):  # it stays for `clinloom sweep`
                    self._sweep(layout.home(self.root, table))

    def _replace(self, stages: Mapping[str, Any]) -> None:
        made = {**self.manifest, "stages": dict(stages)}
        text = json.dumps(made, indent=1).encode()
        self._lease.check()
        version = files.swap(self._place, text, self._version)
        if version is None:
            raise StoreError(BUSY, where=str(self.root), mend=MEND)
        self.manifest, self._version = made, version

    def _tidy(self, pending: Pending) -> None:
        """Take away what the manifest does not name, where this stage wrote."""
        try:
            pending.clear()
            for name in pending.parts.keys() - layout.KEPT:
                self._sweep(layout.home(self.root, name))
        except StoreError:
            self._withdraw(pending)
        except OSError:
            pass  # it stays for `clinloom sweep`; what is committed is committed

    def _withdraw(self, pending: Pending) -> None:
        """Who was overtaken takes away its own files alone, and none that was committed."""
        with suppress(OSError):
            named = self._named(_manifest(self._place)) | self._named(self.manifest)
            for name in pending.parts.keys() - layout.KEPT:
                home = layout.home(self.root, name)
                for place in {home / part.file for part in pending.parts[name]}:
                    if str(place) not in named:
                        files.remove(place)

    def check(self) -> None:
        """Raise StoreError where another run holds the output or has committed to it meanwhile."""
        if not self._lease.held() or files.version(self._place) != self._version:
            raise StoreError(BUSY, where=str(self.root), mend=MEND)

    def _named(self, manifest: Mapping[str, Any]) -> set[str]:
        """Every file, and every folder written by Spark, that a manifest names."""
        return {
            str(layout.home(self.root, name) / part[0])
            for entry in manifest["stages"].values()
            for name, table in entry["tables"].items()
            for part in table["parts"]
        }

    def sweep(self) -> dict[str, int]:
        """Remove what no commit names; how many files that were, and their bytes.

        Raises StoreError where another run has taken over meanwhile.
        """
        self.check()
        places = [self.root / room for room in layout.SWEPT]
        places += [layout.home(self.root, name) for name in layout.GUARDED]
        counts = [self._sweep(place) for place in places]
        return {"files": sum(c[0] for c in counts), "bytes": sum(c[1] for c in counts)}

    def _sweep(self, place: Address) -> tuple[int, int]:
        named = self._named(self.manifest)

        def nameless(found: Entry) -> bool:
            return not any(str(above) in named for above in _upwards(found.address, self.root))

        return holding.sweep(filter(nameless, files.listed(place)), self.check)

    def write_text(self, name: str, text: str) -> Address:
        """A text file in the output, whole or not at all, by who holds it."""
        try:
            holding.replace(self.root / name, text.encode(), self.check)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            where = f"{self.root}/{name}"
            raise StoreError(f"cannot be written ({reason})", where=where) from None
        return self.root / name

    @property
    def _place(self) -> Address:
        return self.root / layout.MANIFEST

    def audit(self, action: str, what: str, rows: int | None = None, **told: Any) -> None:
        """Note who does what, for the trail that is kept with each commit and at the end."""
        self._trail.append(audit.line(action=action, what=what, rows=rows, **told))

    def keep_trail(self) -> None:
        """Write the trail of this run, whole: no store can append. A long one goes on in another
        file."""
        if self._trail:
            place = self._trail_room / self._trail_name
            files.write(place, ("\n".join(self._trail) + "\n").encode())
        if len(self._trail) >= LINES:
            self._begin_trail()

    def _begin_trail(self) -> None:
        self._trail: list[str] = []
        self._trail_name = f"audit-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        self._trail_name += f"-{uuid.uuid4().hex[:8]}.jsonl"


def finished(root: str | Address) -> dict[str, Stored]:
    """Every committed table of an output, read without holding it. Raises StoreError."""
    at = files.address(root)
    try:
        manifest = _manifest(at / layout.MANIFEST)
    except OSError:
        mend = "give the --out of a run"
        raise StoreError("no run is here", where=str(root), mend=mend) from None
    return {
        name: of_manifest(name, layout.home(at, name), entry["key"], table)
        for entry in manifest["stages"].values()
        for name, table in entry["tables"].items()
    }


def _empty() -> dict[str, Any]:
    return {"format": FORMAT, "stages": {}}


def _manifest(place: Address) -> dict[str, Any]:
    """The manifest; an empty one where it is not whole or of another format."""
    found = _document(place)
    return found if found.get("format") == FORMAT else _empty()


def _document(place: Address) -> dict[str, Any]:
    """A document of JSON; nothing where it is not whole."""
    try:
        found = json.loads(files.read(place))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _described(parts: Iterable[Part]) -> dict[str, Any]:
    listed = sorted(parts, key=lambda p: (p.bucket, p.name, p.file))
    rows = None if any(p.name for p in listed) else sum(p.rows for p in listed)
    size = sum(p.bytes for p in listed)
    return {"rows": rows, "bytes": size, "parts": [p.plain() for p in listed]}


def _upwards(place: Address, root: Address) -> Iterator[Address]:
    """The address and every folder above it, below ``root``."""
    while len(place) > len(root):
        yield place
        place = place.parent


def key_of(stage: str, options: Any, inputs: Mapping[str, str], version: str) -> str:
    """What a stage's result depends on: its options, the keys of its inputs, the version."""
    return digest([stage, options, dict(sorted(inputs.items())), version])

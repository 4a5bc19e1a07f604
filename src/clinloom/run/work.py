"""A run at work: its study, store, session and progress; runs a step or keeps what is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clinloom import __version__, plugins
from clinloom.run.progress import Progress
from clinloom.store import Pending, Store, Stored, key_of
from clinloom.study import Study

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Tables = dict[str, Stored]


def plain(part: Any) -> Any:
    """A part of the study as plain data, for a step's key."""
    if isinstance(part, Mapping):
        return {name: plain(value) for name, value in part.items()}
    return part.model_dump(mode="json")


class Work:
    """What every step of a run is given. Spark starts when the first step needs it."""

    def __init__(
        self,
        study: Study,
        store: Store,
        *,
        progress: Progress | None = None,
        spark: SparkSession | None = None,
    ):
        self.study, self.store = study, store
        self.progress = progress or Progress(form="quiet")
        self.keys: dict[str, str] = {}
        self.stages: list[dict[str, Any]] = []
        self._given = spark
        self._held = ExitStack()

    @cached_property
    def spark(self) -> SparkSession:
        """The session: the one given, the platform's, or a new local one; settled for the run."""
        from clinloom.spark import waiting
        from clinloom.spark.session import settled

        note = self.progress.note
        made = self._held.enter_context(waiting.started(note, self._given))
        self._held.enter_context(settled(made, note=note))
        return made

    def close(self) -> None:
        """Give the session its own settings back, and the output to others."""
        try:
            self._held.close()
        finally:
            self.store.close()

    def key(
        self,
        name: str,
        *,
        options: Any = None,
        inputs: Mapping[str, str] | None = None,
        uses: Iterable[tuple[str, str]] = (),
    ) -> str:
        """What a step's result depends on: see :meth:`step`."""
        stamps = {f"{room}.{used}": plugins.stamp(room, used) for room, used in uses}
        return key_of(name, options, {**(inputs or {}), **stamps}, __version__)

    def step(
        self,
        name: str,
        do: Callable[[Pending], None],
        *,
        options: Any = None,
        inputs: Mapping[str, str] | None = None,
        uses: Iterable[tuple[str, str]] = (),
        counts: str | None = None,
    ) -> Tables:
        """Run a step, or keep its committed tables where nothing that it depends on changed.

        ``options``: the part of the study it depends on; ``inputs``: keys of what it reads;
        ``uses``: the plug-ins (room, name) whose code it runs; ``counts``: the table whose rows
        the reader is told.
        """
        key = self.key(name, options=options, inputs=inputs, uses=uses)
        reused = self.store.current(name, key)
        start = time.monotonic()
        if not reused:
            from clinloom.spark import faults

            with self.progress.working(name), self.store.writing(name, key) as pending:
                with faults.told():
                    do(pending)
        entry = self.store.manifest["stages"][name]
        rows = entry["tables"].get(counts, {}).get("rows") if counts else None
        seconds = time.monotonic() - start
        self.progress.done(name, rows=rows, seconds=seconds, reused=reused)
        self.stages.append(
            {"name": name, "seconds": entry["seconds"], "rows": rows, "reused": reused}
        )
        self.keys[name] = key
        return {table: self.store.stored(name, table) for table in entry["tables"]}

"""Streaming: events as they come, and the risks that change by them, as a batch would give them.

Spark's Structured Streaming says what is new and keeps where it stands; each micro-batch, and each
moment that becomes due by time alone, is a step. A step clusters what is new by patient, hands
those who have news to the kernels (``clinloom.run.kept``), writes one file of predictions under
the step's own number, and commits what is kept by the store's one manifest, which names the
micro-batch. A step that was killed is done again and replaces its file; one that was committed is
passed over.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import ClinloomError, StoreError, UsageError
from clinloom.events import NEVER, STATIC
from clinloom.files import Address
from clinloom.outputs import AT_ONCE
from clinloom.run import checkpoint as sparks
from clinloom.run import feeds, score
from clinloom.run.feeds import Feed, Reading
from clinloom.run.kept import Asked
from clinloom.run.news import KEPT, News
from clinloom.run.progress import Progress
from clinloom.run.work import Work
from clinloom.spark import faults
from clinloom.spark.session import cores
from clinloom.store import Part, Pending, Store, TableWriter
from clinloom.store.stored import stream as rows_of
from clinloom.study import Study, duration
from clinloom.tables import REJECTED, STREAMED, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STAGE = "stream"
PREDICTIONS, REFUSED, CHECKPOINT, SPARK = "predictions", "rejected", "checkpoint", "spark"
STATE = "state"
LANES = 4  # buckets a core, at first
PATIENCE = 0.5  # seconds between two looks at the clock
AGAIN = "start it again: the step is done anew, without a file that is gone by then"


@dataclass(frozen=True)
class State:
    """Where a stream stands: what its last committed step was.

    ``batch``: the last micro-batch; ``now``: the present of the last step, ``latest``: the latest
    time of what was told by then, ``due``: by bucket, when time alone will change something; all in
    microseconds.
    """

    bundle: str
    buckets: int
    version: int = 0
    batch: int = -1
    now: int = 0
    latest: int = STATIC
    due: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> State:
        """The inverse of :meth:`text`."""
        told = json.loads(text)
        return cls(**{**told, "due": {int(b): when for b, when in told["due"].items()}})

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))


def stream(
    bundle: str,
    *,
    out: str,
    told: Sequence[str] = (),
    checkpoint: str | None = None,
    every: str = "10s",
    once: bool = False,
    late: str | None = None,
    most: int = 1000,
    options: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    stopped: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Score what comes, until it is stopped; ``once``: what is there, and end.

    ``told``: the feeds, ``[NAME=]ADDRESS`` (see :mod:`clinloom.run.feeds`); ``checkpoint``: where
    the state is kept, ``<out>/checkpoint`` unless told; ``every``: how often it is looked for what
    is new; ``late``: events that are so much older than the latest are refused, and what no later
    moment can see is let go; ``most``: files of a step; ``options``: of Spark's Kafka and Delta
    readers; ``stopped``: asked now and then whether to end after the step at work. Answers how many
    steps and predictions there were.
    """
    files.use({**files.settings(), **score.storage(overrides)})
    loaded = Bundle.load(bundle)
    study = score.study_of(loaded.study, overrides)
    found = feeds.read(told, study.sources)
    lateness = None if late is None else _lateness(duration(late), study, loaded)
    target = files.address(out)
    place = files.address(checkpoint) if checkpoint else target / CHECKPOINT
    store = Store(place / STATE, note=progress.note if progress else None)
    work = Work(study, store, progress=progress, spark=spark)
    try:
        _classic(work.spark)
        steps = Steps(work, study, loaded, found, target, lateness)
        store.audit("stream", str(loaded.place), bundle=loaded.hash, feeds=[f.place for f in found])
        frame = feeds.opened(work.spark, found, most=most, options=_named(options or {}))
        span = f"{duration(every) // 1000} milliseconds"
        trigger: dict[str, Any] = {"availableNow": True} if once else {"processingTime": span}
        writer = frame.writeStream.foreachBatch(steps.take).trigger(**trigger)
        writer = writer.option("checkpointLocation", (place / SPARK).uri)
        steps.begin(place / SPARK)
        steps.follow(writer.start(), once=once, stopped=stopped)
    finally:
        work.close()
    return {"predictions": str(target / PREDICTIONS), **steps.counts, "model": loaded.scorer.model}


def _named(options: Mapping[str, str]) -> dict[str, str]:
    """Options with what ``env:`` and ``file:/`` refer to."""
    return {
        key: files.named(value, where=f"--option {key}")
        if value.startswith(("env:", "file:/"))
        else value
        for key, value in options.items()
    }


def _classic(spark: SparkSession) -> None:
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise UsageError(
            "a stream's steps are this process's own: it cannot be a client of Spark Connect",
            mend="start it where Spark's driver runs, on this machine or by spark-submit",
        )


def _lateness(late: int, study: Study, bundle: Bundle) -> tuple[int, int]:
    """How late an event may be, and how far back a moment looks. Raises UsageError: without end."""
    cohort = study.cohort
    spans: dict[str, int | None] = {"cohort.index.plus": cohort.index.plus}
    if cohort.index.which != "every":
        spans[f"cohort.index.which: {cohort.index.which}"] = None
    if cohort.washout != "none":
        spans["cohort.washout"] = cohort.washout if isinstance(cohort.washout, int) else None
    if cohort.observed is not None or cohort.eligibility.prior_observation is not None:
        spans["cohort.observed, eligibility.prior_observation"] = None
    waiting = [*cohort.eligibility.require, *cohort.eligibility.exclude]
    while waiting:
        criterion = waiting.pop()
        waiting += [*criterion.all_of, *criterion.any_of]
        if criterion.codes:
            spans[f"cohort.eligibility: {criterion.name or criterion.codes[0]}"] = criterion.within
    for feature in bundle.features:
        if feature.family != "demographics":
            spans[f"features: {feature.name}"] = feature.window[0]
    for name, span in spans.items():
        if span is None:
            raise UsageError(
                f"the bundle looks back without end ({name}): no event comes too late for it",
                where="--late",
                mend="leave it out: whatever comes is taken, and all of a patient is kept",
            )
    return late, cohort.index.plus + max(span for span in spans.values() if span is not None)


class Steps:
    """The steps of a stream, one at a time."""

    def __init__(
        self,
        work: Work,
        study: Study,
        bundle: Bundle,
        found: Sequence[Feed],
        out: Address,
        late: tuple[int, int] | None,
    ):
        self.work, self.study, self.bundle = work, study, bundle
        self.feeds, self.out, self.late = found, out, late
        self.counts = {"steps": 0, "rows": 0, "rejected": 0}
        self._turn = threading.Lock()
        self._fault: Exception | None = None
        self._ended = False
        self.parts: dict[str, tuple[Part, ...]] = {}
        self.state = self._stands()

    def _stands(self) -> State:
        store = self.work.store
        if STAGE not in store.manifest["stages"]:
            return State(self.bundle.hash, LANES * cores(self.work.spark))
        self.parts = {name: store.stored(STAGE, name).parts for name in KEPT}
        state = State.parse(store.stored(STAGE, STATE).text("state.json"))
        if state.bundle != self.bundle.hash:
            raise UsageError(
                "the checkpoint is of another bundle, whose risks it goes on from",
                where=str(store.root),
                mend="give that bundle, or another --out, into which everything is read anew",
            )
        return state

    def begin(self, spark: Address) -> None:
        """Take away what killed steps left. Raises StoreError where Spark's part is of another."""
        self.work.store.sweep()
        self.spark = spark
        begun, done = sparks.stands(spark)
        if not self.state.batch - 1 <= done <= self.state.batch <= begun:
            raise StoreError(
                "Spark's checkpoint and what is kept of patients are not of one stream",
                where=str(spark.parent),
                mend="bring both back as they were, or take another --out",
            )

    def follow(
        self, query: Any, *, once: bool, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Until the query ends; meanwhile, what becomes due by time alone is a step of its own."""
        try:
            while query.isActive:
                time.sleep(PATIENCE)  # here, and in no call of Spark's, a signal mostly comes
                if stopped() and query.isActive:
                    self._stop(query)
                    if self._fault is not None:  # of the step at work
                        raise self._fault
                    return
                self.tick()
            query.awaitTermination()
            if once:
                self.tick()
        except KeyboardInterrupt:
            self._stop(query)
        except Exception as error:
            self._stop(query)
            if isinstance(error, ClinloomError):
                raise
            raise self._fault or error from None

    def _stop(self, query: Any) -> None:
        """After the step at work no other is begun."""
        with self._turn:
            self._ended = True
        query.stop()

    def take(self, frame: DataFrame, batch: int) -> None:
        """A micro-batch; what was committed already is passed over."""
        with self._turn:
            if self._ended:
                raise ClinloomError("the stream was stopped")
            if batch > self.state.batch:
                with self._noted():
                    self._step(frame, batch)

    def tick(self) -> None:
        """A step for those of whom time alone changes something by now."""
        with self._turn:
            if min(self.state.due.values(), default=NEVER) <= _present():
                self._step(None, self.state.batch)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._fault = error
            if isinstance(error, ClinloomError):
                error.mend = error.mend or AGAIN
            raise

    def _step(self, frame: DataFrame | None, batch: int) -> None:
        start, store = time.monotonic(), self.work.store
        now, version = max(self.state.now, _present()), self.state.version + 1
        late, back = self.late or (0, 0)
        mark = min(self.state.latest, self.state.now) - late
        known = self.late is not None and self.state.latest != STATIC
        since, horizon = (mark, mark - back) if known else (STATIC, STATIC)
        with store.writing(STAGE, f"version {version}") as out, faults.told():
            spark = self.work.spark if frame is None else frame.sparkSession
            news = News(spark, out, self.parts, buckets=self.state.buckets)
            if frame is not None:
                reading = Reading(self.study.sources, since, now)
                brought = sparks.brought(self.spark, batch, self.feeds)
                news.take(frame, self.feeds, brought, reading, version)
            asked = Asked(
                str(self.bundle.place),
                self.bundle.mark,
                self.study.cohort,
                self.study.clean,
                self.bundle.units,
                version,
                self.state.now,
                now,
                since,
                horizon,
            )
            due = news.advance(asked, self.state.due)
            rows = self._leave(out, "predictions", STREAMED, PREDICTIONS, version)
            refused = self._leave(out, "told", REJECTED, REFUSED, version)
            latest = max(self.state.latest, news.latest)
            state = replace(
                self.state, version=version, batch=batch, now=now, latest=latest, due=due
            )
            out.put(STATE, "state.json", state.text())
            told = {"micro_batch": batch, "rejected": refused}
            store.audit("streamed", str(self.out / _file(PREDICTIONS, version)), rows, **told)
        self.state = state
        self.parts = {name: tuple(out.parts.get(name, ())) for name in KEPT}
        for name, more in (("steps", 1), ("rows", rows), ("rejected", refused)):
            self.counts[name] += more
        seconds = time.monotonic() - start
        self.work.progress.done(f"step {version}", rows=rows, seconds=seconds, reused=False)

    def _leave(self, out: Pending, name: str, table: Table, room: str, version: int) -> int:
        """The parts of a table that leaves as one file of the step; an empty one is none."""
        parts = out.parts.get(name, [])
        target = self.out / _file(room, version)
        rows = sum(part.rows for part in parts)
        if not rows:
            files.remove(target)
        else:
            files.folder(target.parent)
            with TableWriter(target, table) as writer:
                for part in sorted(parts, key=lambda p: (p.bucket, p.file)):
                    for some in rows_of(str(out.place(name) / part.file), None, AT_ONCE):
                        writer.write(some)
        for part in parts:
            files.remove(out.place(name) / part.file)
        out.forget(name)
        return rows


def _file(room: str, version: int) -> str:
    return f"{room}/{version:012}.parquet"


def _present() -> int:
    return time.time_ns() // 1000

"""What a run waits for on a busy cluster: told in one line, where else there is only silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PATIENCE = 15.0  # seconds, as long as Spark itself waits before it writes of it to its log
EVERY = 3.0
Note = Callable[[str], None]


@contextmanager
def started(note: Note, given: SparkSession | None = None) -> Iterator[SparkSession]:
    """The session that is given, else a new one, watched while it is used."""
    from clinloom.spark.session import session

    with begun(note):
        made = given if given is not None else session()
    with watched(made, note=note):
        yield made


@contextmanager
def begun(note: Note) -> Iterator[None]:
    """Around the start of a session: on YARN it begins when the queue has room for its master."""
    seconds = 2 * PATIENCE  # a machine at its limit takes some of them itself
    text = f"Spark has not started for {seconds:.0f} s: on a cluster it waits until there is room"
    timer = threading.Timer(seconds, note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def watched(spark: SparkSession, *, note: Note) -> Iterator[None]:
    """Tell where tasks wait so long that no executor takes one; once, until one has.

    A session on this machine or over Spark Connect is not watched.
    """
    context = getattr(spark, "_sc", None)
    if context is None or str(context.master).startswith("local"):
        yield
        return
    conf = context.getConf()
    memory, each = conf.get("spark.executor.memory", "1g"), conf.get("spark.executor.cores", "1")
    text = (
        f"Spark waits for executors: for {PATIENCE:.0f} s no task has begun. Has the cluster, or"
        f" the queue, room for one of {memory}, {each} cores? The run goes on as soon as it has"
    )
    stop = threading.Event()
    told = [context.statusTracker(), stop, lambda: note(text)]
    thread = threading.Thread(target=_watch, args=told, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(EVERY)


def _watch(tracker: Any, stop: threading.Event, tell: Callable[[], None]) -> None:
    since: float | None = None
    while not stop.wait(EVERY):
        try:
            waits = _waits(tracker)
        except Exception:  # the session has ended, or its JVM
            return
        if not waits:
            since = None
        elif since is None:
            since = time.monotonic()
        elif time.monotonic() - since >= PATIENCE:
            tell()
            since = float("inf")


def _waits(tracker: Any) -> bool:
    """Whether there are tasks and none of them runs."""
    stages = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
    open_ = [stage for stage in stages if stage and stage.numCompletedTasks < stage.numTasks]
    return bool(open_) and not any(stage.numActiveTasks for stage in open_)

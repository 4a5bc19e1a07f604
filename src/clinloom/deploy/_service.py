"""What scores: a few threads, a bounded number of requests at once, a shadow behind."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from fastapi import Request
from opentelemetry import context, propagate, trace

from clinloom.deploy._limits import RETRY
from clinloom.deploy._log import fault, warn
from clinloom.deploy._metrics import Metrics
from clinloom.deploy._options import Options
from clinloom.deploy._problems import Problem, Told
from clinloom.deploy._standing import Served, Standing
from clinloom.deploy.door import Answer, Refusal

SWITCH = 0.001  # seconds after which a thread that scores lets another request's be read
ASIDE = {"token": 8, "keep": 2}  # threads that check tokens, and that keep cards and feedback
Made = TypeVar("Made")
Scoring = Callable[[Served], tuple[Answer, bytes]]
TRACER = trace.get_tracer("clinloom.serve")


class Service:
    """Scores requests with the bundle that stands, in threads of its own."""

    def __init__(self, bundle: str, options: Options, counts: Metrics):
        self.options, self.counts = options, counts
        self.standing = Standing(
            bundle,
            source=options.source,
            shadow=options.shadow,
            every=options.watch,
            counts=counts,
        )
        sys.setswitchinterval(SWITCH)
        self._running = 0
        self._waiting = 0
        self.open()
        self._lock, self._counting = Lock(), Lock()

    @property
    def state(self) -> dict[str, Any]:
        """What becomes of bundles: faults by role, and the shadow's name."""
        shadow = self.standing.shadow
        told: dict[str, Any] = {"shadow": shadow.name["mark"]} if shadow else {}
        faults = self.standing.faults
        return {**told, **({"faults": faults} if faults else {})}

    def open(self) -> None:
        """Have threads ready."""
        self._threads = ThreadPoolExecutor(self.options.threads, "score")
        self._behind = ThreadPoolExecutor(1, "shadow")
        sizes = {**ASIDE, "fetch": self.options.at_once}
        self._aside = {what: ThreadPoolExecutor(size, what) for what, size in sizes.items()}

    async def aside(self, what: str, work: Callable[..., Made], *given: Any) -> Made:
        """Do what waits for others (a server, a disk) in threads of its kind, one of ASIDE or
        ``fetch``: where some are slow, neither scoring nor what is of another kind waits."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside[what], work, *given)

    def close(self) -> None:
        """End the threads, after what they do."""
        self._threads.shutdown(wait=True)
        self._behind.shutdown(wait=True, cancel_futures=True)
        for threads in self._aside.values():
            threads.shutdown(wait=True, cancel_futures=True)

    async def scored(
        self, request: Request, front: str, scoring: Scoring, served: Served | None = None
    ) -> bytes:
        """Score a request and give the bytes that answer it.

        ``scoring`` is run by a thread with the bundle that stands, or with ``served``, which stood
        when the request was read. Raises Problem where there is no room or no time for it, Refusal
        and Problem as it does.
        """
        if self._running >= self.options.at_once:
            raise Problem(503, "busy", retry=RETRY)
        self._running += 1
        self.counts.running.inc()
        served = served or self.standing.current
        parent = propagate.extract(request.headers)
        work = functools.partial(self._traced, served, front, scoring, parent)
        future: Future[tuple[Answer, bytes]] = self._threads.submit(work)
        future.add_done_callback(functools.partial(self._done, asyncio.get_running_loop()))
        waited = asyncio.wrap_future(future)
        waited.add_done_callback(_seen)
        try:
            async with asyncio.timeout(self.options.timeout):
                found, body = await asyncio.shield(waited)
        except TimeoutError:
            future.cancel()  # where it has not begun
            raise Problem(504, "timed_out", retry=RETRY) from None
        self._told(request, found)
        shadow = self.standing.shadow
        if shadow is not None:
            self._cast(shadow, served, scoring, found)
        return body

    def _done(self, loop: asyncio.AbstractEventLoop, _: Any) -> None:
        """A place is free when the thread is, whoever still waits for its answer."""

        def free() -> None:
            self._running -= 1
            self.counts.running.dec()

        if not loop.is_closed():
            loop.call_soon_threadsafe(free)

    def _traced(
        self, served: Served, front: str, scoring: Scoring, parent: context.Context
    ) -> tuple[Answer, bytes]:
        """Score within a span, which tells counts and reasons alone."""
        with TRACER.start_as_current_span(
            "clinloom.score",
            context=parent,
            record_exception=False,  # its message and trace may tell more
            set_status_on_exception=False,
        ) as span:
            span.set_attribute("clinloom.front", front)
            span.set_attribute("clinloom.bundle", served.bundle.mark)
            try:
                found, body = scoring(served)
            except Exception as error:
                told = error.told if isinstance(error, Problem) else None
                told = Told.of(error) if isinstance(error, Refusal) else told
                span.set_attribute("clinloom.reason", told.reason if told else "unexpected")
                span.set_status(trace.StatusCode.ERROR)
                raise
            span.set_attribute("clinloom.events", found.events.num_rows)
            span.set_attribute("clinloom.predictions", found.predictions.num_rows)
            return found, body

    def _told(self, request: Request, found: Answer) -> None:
        rows = found.predictions.num_rows
        refused = sum(found.refused.values())
        counted = {"events": found.events.num_rows, "predictions": rows, "refused": refused}
        request.state.told.update(counted)
        self.counts.predictions.inc(rows)
        for reason, count in found.refused.items():
            self.counts.refused.labels(reason).inc(count)
        for risk in _risks(found):
            self.counts.risk.labels("served").observe(risk)

    def _cast(self, shadow: Served, served: Served, scoring: Scoring, found: Answer) -> None:
        """Have the shadow score the same, behind; where it lags, it leaves some out."""
        if self._waiting >= self.options.at_once:
            self.counts.shadow.labels("left_out").inc()
            return
        with self._counting:  # the shadow's thread counts, too
            self._waiting += 1
        self._behind.submit(self._shadowed, shadow, served, scoring, found)

    def _shadowed(self, shadow: Served, served: Served, scoring: Scoring, found: Answer) -> None:
        try:
            other, _ = scoring(shadow)
        except Exception as error:
            known = isinstance(error, (Refusal, Problem))
            self.counts.shadow.labels("refused" if known else "failed").inc()
            if not known:
                warn("shadow_failed", **fault(error))
            return
        finally:
            with self._counting:
                self._waiting -= 1
        self.counts.shadow.labels("scored").inc()
        for risk in _risks(other):
            self.counts.risk.labels("shadow").observe(risk)
        pairs = _pairs(found, other)
        for mine, its in pairs:
            self.counts.apart.observe(abs(mine - its))
        if self.options.shadow_file and pairs:
            marks = {"served": served.bundle.mark, "shadow": shadow.bundle.mark}
            told = [{**marks, "risk": mine, "shadow_risk": its} for mine, its in pairs]
            self._write(Path(self.options.shadow_file), told)

    def _write(self, file: Path, told: list[dict[str, Any]]) -> None:
        try:
            with self._lock, file.open("a") as lines:
                lines.write("".join(json.dumps(line) + "\n" for line in told))
        except OSError as error:
            warn("shadow_file", **fault(error))


def _seen(future: asyncio.Future[Any]) -> None:
    """Whatever it ended with is no surprise, also where nobody waits for it any more."""
    if not future.cancelled():
        future.exception()


def _risks(found: Answer) -> list[float]:
    risks: list[float] = found.predictions.column("predicted_boolean_probability").to_pylist()
    return risks


def _pairs(found: Answer, other: Answer) -> list[tuple[float, float]]:
    """Both risks of the patients and moments that both scored."""
    keys = ("subject_id", "prediction_time")
    its = {tuple(row[k] for k in keys): row["predicted_boolean_probability"] for row in other.rows}
    mine = ((tuple(row[k] for k in keys), row) for row in found.rows)
    return [(row["predicted_boolean_probability"], its[key]) for key, row in mine if key in its]

"""The service: risks by HTTP, for events and for FHIR, without a JVM.

:func:`application` makes the ASGI application of a bundle; :mod:`clinloom.deploy.serving` runs it.
Every front reads through the one :class:`clinloom.deploy.door.Door`. A router that scores, too
(CDS Hooks), asks for :class:`Service` as ``request.app.state.service``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from clinloom import __version__
from clinloom.deploy import _bodies, _openapi
from clinloom.deploy._assessments import asked, assessments
from clinloom.deploy._limits import FRONTS, RETRY, Gate, Guarded, Limits, answer
from clinloom.deploy._metrics import TYPE, Metrics
from clinloom.deploy._options import Options
from clinloom.deploy._problems import FHIR, JSON, Problem, Told
from clinloom.deploy._service import Service
from clinloom.deploy._standing import Served
from clinloom.deploy.assessment import instant
from clinloom.deploy.door import Answer, Refusal

MOMENT = "an instant with a zone, in place of the study's moments: 2026-11-28T12:00:00Z"
At = Annotated[str | None, Query(description=MOMENT, json_schema_extra={"format": "date-time"})]
Explain = Annotated[bool, Query(description="with what each risk is made of")]
Whose = Annotated[str | None, Query(description="who is meant, as Patient/id: of nobody else")]
_plain = msgspec.json.Encoder().encode


def application(bundle: str, options: Options | None = None) -> FastAPI:
    """The service of the bundle at an address.

    Raises ClinloomError where the bundle, or its shadow, is none that scores.
    """
    chosen, counts = options or Options(), Metrics()
    service = Service(bundle, chosen, counts)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.open()
        watching = asyncio.create_task(service.standing.watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            service.close()

    app = FastAPI(
        title="Clinloom",
        version=__version__,
        summary="Risks of a clinical prediction model",
        lifespan=life,
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    limits = Limits(chosen.max_body, chosen.slow, chosen.bodies, chosen.bearer)
    app.add_middleware(Guarded, limits=limits, counts=counts, gate=_hooked(app, service))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _bad_request)
    _scoring(app, service)
    _telling(app, service, counts)
    if chosen.worklist:
        from clinloom.deploy import worklist

        app.include_router(worklist.router(service, chosen.worklist))
    app.openapi = _openapi.described(app)  # type: ignore[method-assign]
    return app


def _scoring(app: FastAPI, service: Service) -> None:
    """The two fronts that score."""

    @app.post("/predict", **_openapi.PREDICT)
    async def predict(request: Request, at: At = None, explain: Explain = False) -> Response:
        """Score events of one patient or many."""
        body, kind = await request.body(), _kind(request)
        if kind == _bodies.ARROW:
            read = _bodies.of_arrow
        elif kind == JSON:
            read = _bodies.of_json
        else:
            raise Problem(415, "unsupported_media", detail=f"{JSON} or {_bodies.ARROW}")
        moment, most = _moment(at), service.options.max_entries

        def scored(served: Served) -> tuple[Answer, bytes]:
            table = read(body, most)
            if table is None:
                raise Problem(413, "too_large", more={"most_events": most})
            found = served.door.score(served.door.events(table), moment)
            return found, _plain(_own(served, found, explain))

        return Response(await service.scored(request, "events", scored), media_type=JSON)

    @app.post("/fhir/$predict", **_openapi.FHIR_PREDICT)
    async def fhir_predict(
        request: Request, subject: Whose = None, at: At = None, explain: Explain = False
    ) -> Response:
        """Score FHIR resources of one patient: RiskAssessments."""
        body = await request.body()
        if _kind(request) not in (FHIR, JSON):
            raise Problem(415, "unsupported_media", detail=f"{FHIR} or {JSON}")
        most = service.options.max_entries
        if _bodies.larger(body, most):
            raise Problem(413, "too_large", more={"most_resources": most})
        own = _accepted(request) == JSON

        def scored(served: Served) -> tuple[Answer, bytes]:
            question = asked(body)
            whom, when = question.or_else(subject, at)
            facts = served.door.fhir(question.resources, subject=whom)
            found = served.door.score(facts, _moment(when))
            reasons = explain or question.explain
            if own:
                return found, _plain(_own(served, found, reasons))
            rows = found.values if reasons else ()  # an older bundle has none to tell
            told = [[r.text for r in served.explainer.reasons(row)] for row in rows]
            return found, _plain(assessments(served, found, told))

        form = JSON if own else FHIR
        return Response(await service.scored(request, "fhir", scored), media_type=form)


def _hooked(app: FastAPI, service: Service) -> Gate | None:
    """CDS Hooks, where the study has them, and what they ask of who comes."""
    asked = service.standing.current.bundle.resolved.deploy.cds_hooks
    if asked is None:
        return None
    from clinloom.deploy import cds_hooks

    hooks = cds_hooks.Hooks(service, asked)
    app.include_router(hooks.router())
    return hooks


def _telling(app: FastAPI, service: Service, counts: Metrics) -> None:
    """What the service tells of itself."""

    @app.get("/health", **_openapi.HEALTH)
    async def health() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "ok"}

    @app.get("/ready", **_openapi.READY)
    async def ready() -> dict[str, Any]:
        """Whether it can score; what became of the newest bundle at its address."""
        return {"status": "ready", **service.standing.current.name, **service.state}

    @app.get("/model", **_openapi.MODEL)
    async def model() -> Response:
        """The bundle's card: its evidence, its study and its features."""
        return Response(_plain(service.standing.current.card), media_type=JSON)

    @app.get("/metrics", **_openapi.METRICS)
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(counts.text(), media_type=TYPE)


def _own(served: Served, found: Answer, explain: bool) -> dict[str, Any]:
    """An answer in the service's own JSON."""
    predictions = [
        {
            "subject_id": row["subject_id"],
            "patient": found.patients[row["subject_id"]],
            "prediction_time": instant(row["prediction_time"]),
            "probability": row["predicted_boolean_probability"],
            "positive": row["predicted_boolean_value"],
        }
        for row in found.rows
    ]
    if explain:
        added = served.explainer.contributions(found.values)
        for told, row, values in zip(predictions, added, found.values, strict=True):
            told["contributions"] = _contributions(served, row.tolist(), values)
    unscored = [
        {"subject_id": number, "patient": found.patients[number], "reason": refusal.reason}
        for number, refusal in found.unscored.items()
    ]
    told = {"bundle": served.name, "predictions": predictions, "unscored": unscored}
    told |= {"refused": dict(found.refused), "flow": dict(found.flow)}
    if explain:
        told["explained"] = {"base": served.explainer.base, "scale": served.explainer.scale}
    return told


def _contributions(served: Served, added: list[float], values: Any) -> dict[str, Any]:
    """What each feature adds, the five weightiest in words beside."""
    reasons = served.explainer.reasons(values)
    by = {f.name: part for f, part in zip(served.door.features, added, strict=True) if part}
    return {"reasons": [reason.text for reason in reasons], "by_feature": by}


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _accepted(request: Request) -> str:
    """JSON where that is asked for and FHIR is not."""
    accept = request.headers.get("accept", "*/*").lower()
    return JSON if JSON in accept and FHIR not in accept else FHIR


def _moment(at: str | None) -> dt.datetime | None:
    if at is None:
        return None
    try:
        found = dt.datetime.fromisoformat(at.replace(" ", "+"))  # a + that was not escaped
        if found.tzinfo is None:
            raise Refusal("malformed_moment")
        return found.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise Refusal("malformed_moment") from None


Handler = Callable[[Request, Exception], Awaitable[Response]]


def _said(request: Request, told: Told) -> Response:
    request.state.told["reason"] = told.reason
    front = FRONTS.get(request.url.path, "other")
    return _Answered(told, front)


class _Answered(Response):
    """A problem in the form of its front."""

    def __init__(self, told: Told, front: str):
        super().__init__()
        self._told, self._front = told, front

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(self._told, self._front, send)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - by whom it is registered
    return _said(request, Told.of(error))


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101
    return _said(request, error.told)


KINDS = {404: "not_found", 405: "method_not_allowed"}


async def _bad_request(request: Request, error: Exception) -> Response:
    """What the framework refuses, without what was given."""
    status = getattr(error, "status_code", 400)
    allow = (getattr(error, "headers", None) or {}).get("Allow")
    return _said(request, Problem(status, KINDS.get(status, "bad_request"), allow=allow).told)


__all__ = ["RETRY", "Options", "Service", "application"]

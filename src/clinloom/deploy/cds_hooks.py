"""The model in the clinic's record system: CDS Hooks 2.0.1, as a router of the service.

The EHR asks when a chart is opened, an order is chosen or signed, or a patient goes home; the
answer is a card where the risk warns (``deploy.cds_hooks`` of the study), and no card else. A risk
that cannot be told safely is an error, never silence: 412 where data are lacking, 422 where they
cannot be read.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers

from clinloom.deploy import _bodies, _cards, _feedback, _prefetch
from clinloom.deploy._limits import RETRY, Scope
from clinloom.deploy._log import fault, warn
from clinloom.deploy._problems import JSON, Problem
from clinloom.deploy._service import Service
from clinloom.deploy._standing import Served
from clinloom.deploy.auth import Denied, Verifier
from clinloom.deploy.door import Answer
from clinloom.deploy.explain import Reason
from clinloom.errors import ClinloomError, UsageError
from clinloom.study.cds_hooks import LOOPBACK, CdsHooks, Client, Hook

BASE = "/cds-services"
ANYBODY = Client(issuer="anonymous", keys="/")
OWED: Mapping[Hook, Mapping[str, type]] = {  # what a hook's context holds
    "patient-view": {"userId": str, "patientId": str},
    "order-select": {"userId": str, "patientId": str, "selections": list, "draftOrders": dict},
    "order-sign": {"userId": str, "patientId": str, "draftOrders": dict},
    "encounter-discharge": {"userId": str, "patientId": str, "encounterId": str},
}
PREFLIGHT = [  # what a browser may ask
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
]
TOKEN = re.compile(r"[\x21-\x7e]+")
VALUELESS = ("Expected", "Object missing")  # messages that hold nothing of the request


class _Authorization(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float
    scope: str
    subject: str
    patient: str | None = None


class _Call(msgspec.Struct):
    hook: str
    hookInstance: str
    context: dict[str, Any]
    fhirServer: str | None = None
    fhirAuthorization: _Authorization | None = None
    prefetch: dict[str, msgspec.Raw] | None = None


Body = TypeVar("Body", _Call, _feedback.Told)


class Hooks:
    """Discovery, the service on each hook, and feedback, for the bundle that stands.

    Who may ask, from where, and where feedback goes is ``options``' for good; hooks, thresholds
    and words are those of the bundle that stands. Raises UsageError where nobody may ask.
    """

    def __init__(self, service: Service, options: CdsHooks):
        if not options.clients and not options.anonymous:
            raise UsageError(
                "nobody may ask for cards",
                where="deploy.cds_hooks",
                mend="name `clients`, or say `anonymous: true` for a trial on this machine",
            )
        self._service, self._options = service, options
        self._verifier = Verifier(options.clients)
        self._kept = _feedback.Kept(options.feedback) if options.feedback is not None else None
        self._fetching = asyncio.Semaphore(service.options.at_once)

    def router(self) -> APIRouter:
        """The routes."""
        made = APIRouter()
        made.add_api_route(BASE, self.discovery, methods=["GET"])
        made.add_api_route(f"{BASE}/{{name}}", self.call, methods=["POST"])
        paths = [BASE, f"{BASE}/{{name}}"]
        if self._kept is not None:
            made.add_api_route(f"{BASE}/{{name}}/feedback", self.feedback, methods=["POST"])
            paths.append(f"{BASE}/{{name}}/feedback")
        if self._options.origins:
            for path in paths:
                made.add_api_route(
                    path, self.preflight, methods=["OPTIONS"], include_in_schema=False
                )
        return made

    async def admit(self, scope: Scope) -> None:
        """Believe who asks, or raise Problem: before a body is read, which anybody could send."""
        if scope["method"] != "OPTIONS":  # which browsers send without a token
            headers, caller = Headers(scope=scope), scope.get("client")
            found = await self._believed(headers.get("authorization"), caller, scope["path"])
            scope["state"]["caller"] = found

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What lets a browser of an agreed origin read an answer (Fetch standard, CORS)."""
        if not self._options.origins:
            return []
        origin = Headers(scope=scope).get("origin")
        if origin is None or origin not in self._options.origins:
            return [(b"vary", b"Origin")]
        allowed = [(b"access-control-allow-origin", origin.encode())]
        if scope["method"] == "OPTIONS":
            allowed += PREFLIGHT
        return [(b"vary", b"Origin"), *allowed]

    async def discovery(self, request: Request) -> Response:
        """The services: one for each hook, all of one name, with what they need prefetched."""
        served = self._service.standing.current
        study, options = served.bundle.study, self._of(served)
        title = study.get("title") or study["name"]
        about = study.get("description") or title
        told = {"title": title, "description": about, "id": study["name"]}
        services = [{"hook": hook, **told, "prefetch": served.wanted} for hook in options.hooks]
        return _answer({"services": services})

    async def call(self, request: Request, name: str) -> Response:
        """A card where the patient's risk warns. 412 where data are lacking."""
        client, served = _caller(request), self._service.standing.current
        self._named(served, name)
        body = await self._body(request)
        most = self._service.options.max_entries
        if _bodies.larger(body, most):
            raise Problem(413, "too_large", more={"most_resources": most})
        asked = _decoded(body, _Call)
        patient = _patient(asked, self._of(served))
        resources = await self._gathered(served, client, asked, patient)

        def scoring(by: Served) -> tuple[Answer, bytes]:
            if not by.wanted.items() <= served.wanted.items():  # a shadow that asks for more
                raise Problem(412, "not_prefetched")
            found = by.door.score(by.door.fhir(resources, subject=f"Patient/{patient}"))
            cards = _told(by, self._of(by), found, patient)
            return found, msgspec.json.encode({"cards": cards})

        answer = await self._service.scored(request, "cds", scoring, served)
        if self._kept is not None:
            await self._service.aside("keep", self._shown, answer, served, asked.hook, client)
        return _answer(answer)

    async def feedback(self, request: Request, name: str) -> Response:
        """What became of cards; all of it is kept, or nothing."""
        client = _caller(request)
        self._named(self._service.standing.current, name)
        assert self._kept is not None  # noqa: S101 - the route is there where it is
        told = _decoded(await self._body(request), _feedback.Told)
        try:
            await self._service.aside("keep", self._kept.take, told, name, client.issuer)
        except _feedback.Unknown:
            raise Problem(404, "unknown_card") from None
        except _feedback.Malformed as error:
            raise Problem(400, "bad_request", detail=str(error)) from None
        return _answer({})

    async def preflight(self) -> Response:
        """What a browser may ask: see ``headers``."""
        return Response(status_code=204)

    def _of(self, served: Served) -> CdsHooks:
        return served.bundle.resolved.deploy.cds_hooks or self._options

    async def _believed(self, given: str | None, caller: Any, path: str) -> Client:
        """Who asks. Raises Problem for who is not believed."""
        if self._options.anonymous:
            if caller is not None and not _near(caller[0]):
                raise Problem(401, "denied", detail="without a token, from this machine alone")
            return ANYBODY
        check = partial(self._verifier.check, given, f"{self._options.url}{path}")
        try:
            return await self._service.aside("token", check)
        except Denied as error:
            status = 503 if error.reason in ("crowded", "keys_unreachable") else 401
            raise Problem(status, "denied", detail=error.message) from None

    def _named(self, served: Served, name: str) -> None:
        if name != served.bundle.study["name"]:
            raise Problem(404, "not_found")

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            raise Problem(415, "unsupported_media", detail=JSON)
        return await request.body()

    async def _gathered(
        self, served: Served, client: Client, asked: _Call, patient: str
    ) -> list[Any]:
        """What the model needs of the patient. Raises Problem where some of it is not to be had."""
        server, granted = self._server(client, asked), asked.fhirAuthorization
        found, asking = _prefetch.taken(served.wanted, asked.prefetch or {}, patient, server=server)
        fetch = partial(
            _prefetch.fetched,
            asking,
            server=server,
            token=granted.access_token if granted is not None else None,
            seconds=self._options.seconds,
        )
        try:
            if asking:
                if self._fetching.locked():
                    raise Problem(503, "busy", retry=RETRY)
                async with self._fetching:
                    found += await self._service.aside("fetch", fetch)
        except _prefetch.Incomplete as error:
            more = {"lacking": error.lacking}
            raise Problem(412, "not_prefetched", detail=error.why, more=more) from None
        return _prefetch.one(found)

    def _server(self, client: Client, asked: _Call) -> str | None:
        """The FHIR server to be asked; None: there is none that was agreed."""
        named = (asked.fhirServer or "").rstrip("/")
        if self._options.anonymous:
            host = re.fullmatch(r"https?://(\[::1\]|[^/:?#@]+)(:\d+)?(/[^?#]*)?", named)
            near = host is not None and host[1].strip("[]") in LOOPBACK
            return named if near else None
        return named if named in client.servers else None

    def _shown(self, answer: bytes, served: Served, hook: str, client: Client) -> None:
        """Keep which cards were shown; where that fails, they are shown all the same."""
        assert self._kept is not None  # noqa: S101
        told = {"service": served.bundle.study["name"], "hook": hook, "client": client.issuer}
        try:
            for card in msgspec.json.decode(answer)["cards"]:
                self._kept.shown(card, bundle=served.bundle.mark, **told)
        except (OSError, ClinloomError) as error:
            warn("card_not_kept", **fault(error))


def _caller(request: Request) -> Client:
    found: Client = request.state.caller
    return found


def _answer(told: bytes | Mapping[str, Any]) -> Response:
    body = told if isinstance(told, bytes) else msgspec.json.encode(told)
    return Response(body, media_type=JSON)


def _near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def _decoded(body: bytes, kind: type[Body]) -> Body:
    """A body. Raises Problem, in which nothing of it stands."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        said = str(error)
        raise Problem(
            400, "bad_request", detail=said if said.startswith(VALUELESS) else None
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "bad_request", detail="the body is no JSON") from None


def _patient(asked: _Call, options: CdsHooks) -> str:
    """The FHIR id of the patient. Raises Problem where the request is none of its hook."""
    hook = next((hook for hook in options.hooks if hook == asked.hook), None)
    if hook is None:
        raise Problem(400, "bad_request", detail=f"`hook` is one of {', '.join(options.hooks)}")
    if not 0 < len(asked.hookInstance) <= 200:
        raise Problem(400, "bad_request", detail="`hookInstance` is a UUID")
    for key, kind in OWED[hook].items():
        if not isinstance(asked.context.get(key), kind):
            raise Problem(400, "bad_request", detail=f"`context.{key}` of {hook} is lacking")
    patient = str(asked.context["patientId"])
    if not _prefetch.ID.fullmatch(patient):
        raise Problem(400, "bad_request", detail="`context.patientId` is a FHIR id")
    granted = asked.fhirAuthorization
    if granted is not None:
        if asked.fhirServer is None:
            raise Problem(400, "bad_request", detail="`fhirAuthorization` needs `fhirServer`")
        if granted.token_type.lower() != "bearer" or not TOKEN.fullmatch(granted.access_token):
            raise Problem(400, "bad_request", detail="`fhirAuthorization` is no bearer token")
        if granted.patient is not None and granted.patient != patient:
            detail = "`fhirAuthorization` is for another patient than `context`"
            raise Problem(400, "bad_request", detail=detail)
    return patient


def _told(served: Served, options: CdsHooks, found: Answer, patient: str) -> list[dict[str, Any]]:
    """The card of the latest of the patient's moments, or none: also where what it is a risk of
    would have happened by now."""
    rows = found.predictions.to_pylist()
    if not rows:
        return []
    at = max(range(len(rows)), key=lambda n: rows[n]["prediction_time"])
    moment = rows[at]["prediction_time"].replace(tzinfo=dt.UTC)
    within = dt.timedelta(microseconds=served.bundle.resolved.cohort.outcome.within)
    if options.lapsed == "silent" and moment + within <= dt.datetime.now(dt.UTC):
        return []
    reasons = _reasons(served, found.values[at], options.reasons)
    risk = _cards.Risk(
        rows[at]["predicted_boolean_probability"],
        f"{moment:%Y-%m-%d %H:%M} UTC",
        reasons,
        found.refused,
    )
    card = _cards.card(served.bundle, options, risk, patient)
    return [card] if card is not None else []


def _reasons(served: Served, values: Any, most: int) -> list[Reason] | None:
    try:
        return served.explainer.reasons(values, most=most)
    except Problem:  # an older bundle scores all the same
        return None

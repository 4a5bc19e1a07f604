"""What a request may ask of the service before it is read: who asks, how much, how slowly.

One layer around the application: it reads the body whole within its limits, hands it on, turns
whatever fails into a problem that tells no patient's value, and counts and logs the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from clinloom.deploy._log import fault, tell, warn
from clinloom.deploy._metrics import Metrics
from clinloom.deploy._problems import FHIR, PROBLEM, Problem, Told

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/ready")  # asked by those who start and stop the service, without a token
SHELL = ("/worklist", "/worklist/page.css", "/worklist/page.js")  # which holds nothing of a patient
HOOKS = "/cds-services"  # asks for tokens of its own: those of CDS clients
FRONTS = {"/predict": "events", "/fhir/$predict": "fhir"}
RETRY = 1  # seconds


@dataclass(frozen=True)
class Limits:
    """Bounds of requests.

    ``body``: bytes; ``slow``: seconds in which a body has to come; ``bodies``: requests whose
    bodies may come at once; ``token``: what a caller has to bear, none: nothing.
    """

    body: int = 10 << 20
    slow: float = 10.0
    bodies: int = 64
    token: str | None = None


class Gate(Protocol):
    """What paths below HOOKS ask of who comes, before anything of a body is read."""

    async def admit(self, scope: Scope) -> None:
        """Raise Problem for who is not believed."""

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What every answer bears, a refusal too."""


class Guarded:
    """The application within its limits; ``gate``: of the paths below HOOKS, where there is one."""

    def __init__(self, app: App, limits: Limits, counts: Metrics, gate: Gate | None = None):
        self._app, self._limits, self._counts, self._gate = app, limits, counts, gate
        self._coming = 0
        self._token = _digest(limits.token) if limits.token is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        path = scope["path"]
        front = FRONTS.get(path, "cds" if path.startswith(HOOKS) else "other")
        gate = self._gate if _hooked(path) else None
        safe = [*SAFE, *(gate.headers(scope) if gate is not None else ())]
        end: dict[str, Any] = {"status": 500}
        told: dict[str, Any] = {}
        scope.setdefault("state", {})["told"] = told

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                end["status"] = message["status"]
                end["begun"] = True
                message["headers"] = [*message.get("headers", ()), *safe]
            await send(message)

        try:
            self._admit(scope)
            if gate is not None:
                await gate.admit(scope)
            body = await self._body(scope, receive)
            told["bytes"] = len(body)
            await self._app(scope, _replayed(body, receive), sending)
        except Gone:
            end["status"] = 499
        except Problem as problem:
            told["reason"] = problem.told.reason
            await answer(problem.told, front, sending)
        except Exception as error:
            warn("fault", front=front, **fault(error))
            told["reason"] = "unexpected"
            if not end.get("begun"):
                await answer(Told(500, "unexpected", UNEXPECTED), front, sending)
        self._end(front, path, end["status"], told, time.perf_counter() - begin)

    def _admit(self, scope: Scope) -> None:
        """Raise Problem for who bears no token, and for what says itself that it is too large."""
        headers = dict(scope["headers"])
        if self._token is not None and not _open(scope["path"]):
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(_digest(given.strip()), self._token)
            if kind.lower() != b"bearer" or not right:
                raise Problem(401, "unauthorized")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.body:
            raise Problem(413, "too_large", more={"most_bytes": self._limits.body})
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            raise Problem(415, "unsupported_media", detail="send the body as it is, not packed")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return b""
        if self._coming >= self._limits.bodies:
            raise Problem(503, "busy", retry=RETRY)
        self._coming += 1
        try:
            return await asyncio.wait_for(self._whole(receive), self._limits.slow)
        except TimeoutError:
            raise Problem(408, "slow") from None
        finally:
            self._coming -= 1

    async def _whole(self, receive: Receive) -> bytes:
        """The body, also one that comes in chunks, up to the limit."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body:
                raise Problem(413, "too_large", more={"most_bytes": self._limits.body})
            if not message.get("more_body"):
                return b"".join(parts)

    def _end(self, front: str, path: str, status: int, told: dict[str, Any], took: float) -> None:
        self._counts.requests.labels(front, str(status)).inc()
        self._counts.seconds.labels(front).observe(took)
        if told.get("reason"):
            self._counts.refusals.labels(front, told["reason"]).inc()
        if path not in (*OPEN, "/metrics"):
            tell("request", front=front, status=status, ms=round(1000 * took, 2), **told)


class Gone(Exception):
    """The caller went away."""


SAFE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
UNEXPECTED = "the service failed; nothing was scored"


async def answer(told: Told, front: str, send: Send) -> None:
    """Send a problem in the form of its front."""
    form = FHIR if front == "fhir" else PROBLEM
    body = told.body(form)
    headers = {"content-type": form, "content-length": str(len(body)), **told.headers()}
    if told.status in (408, 413):  # the rest of the body is not read
        headers["connection"] = "close"
    coded = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": told.status, "headers": coded})
    await send({"type": "http.response.body", "body": body})


def _open(path: str) -> bool:
    """Whether no token of the service is asked for there: CDS clients sign tokens of their own, and
    the worklist's page asks for one before its data."""
    return path in OPEN or path in SHELL or _hooked(path)


def _hooked(path: str) -> bool:
    return path == HOOKS or path.startswith(f"{HOOKS}/")


def _digest(text: str | bytes) -> bytes:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one piece, then what else comes."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

"""What went wrong with a request, in two forms: problem details and FHIR's OperationOutcome.

No text of the request stands in them: reasons, codes of the model, counts and byte positions only.
(RFC 9457, Problem Details for HTTP APIs; FHIR R4 2.30, OperationOutcome)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from clinloom.deploy.door import Refusal

JSON, PROBLEM, FHIR = "application/json", "application/problem+json", "application/fhir+json"
SYSTEM = "urn:clinloom:reason"  # of the codes of reasons
BROKEN = {  # of the door's reasons, those of a request that is no such thing at all; others: 422
    "malformed_json": 400,
    "malformed_resource": 400,
    "malformed_events": 400,
    "malformed_moment": 400,
    "not_a_resource": 400,
    "no_source": 501,
    "several_sources": 501,
}
ISSUES = {  # FHIR R4 value set issue-type
    400: "structure",
    401: "login",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    408: "timeout",
    412: "required",
    413: "too-long",
    415: "not-supported",
    422: "business-rule",
    500: "exception",
    501: "not-supported",
    503: "transient",
    504: "timeout",
}
TITLES = {
    "bad_request": "the request is not understood",
    "unknown_parameter": "a parameter is none that is known, or has no such value",
    "unauthorized": "a bearer token is needed",
    "not_found": "there is nothing here",
    "method_not_allowed": "this is not done here",
    "slow": "the request did not come in time",
    "too_large": "the request is too large",
    "unsupported_media": "the content is of a type, or in an encoding, that is not read here",
    "unexpected": "the service failed; nothing was scored",
    "not_ready": "no bundle is loaded",
    "no_reasons": "the model keeps none of what its reasons are told from: train it again",
    "busy": "the service has as many requests as it takes at once",
    "denied": "who asks is not believed",
    "not_prefetched": "what the model needs of the patient is lacking",
    "unknown_card": "no such card was shown to this client",
    "timed_out": "scoring took too long and was given up",
}


class Problem(Exception):
    """A request that is not answered: its status, reason and what else may be told."""

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        detail: str | None = None,
        more: Mapping[str, Any] | None = None,
        retry: int | None = None,
        allow: str | None = None,
    ):
        super().__init__(reason)
        self.told = Told(status, reason, TITLES[reason], detail, dict(more or {}), retry, allow)


@dataclass(frozen=True)
class Told:
    """What is told of a problem. ``retry``: after how many seconds to come again; ``allow``: the
    methods that are done here."""

    status: int
    reason: str
    title: str
    detail: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    retry: int | None = None
    allow: str | None = None

    @classmethod
    def of(cls, refusal: Refusal) -> Told:
        """A refusal of the door."""
        detail = "; ".join(part for part in (refusal.where, refusal.mend) if part) or None
        more: dict[str, Any] = {"refused": refusal.counts} if refusal.counts else {}
        if refusal.positions:
            more["positions"] = list(refusal.positions[:20])
        status = BROKEN.get(refusal.reason, 422)
        return cls(status, refusal.reason, refusal.message, detail, more)

    def body(self, form: str) -> bytes:
        """Its bytes as ``form``: FHIR, else problem details."""
        return msgspec.json.encode(self._outcome() if form == FHIR else self._details())

    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        found = {"Retry-After": str(self.retry)} if self.retry is not None else {}
        if self.allow is not None:
            found["Allow"] = self.allow
        return {**found, "WWW-Authenticate": "Bearer"} if self.status == 401 else found

    def _details(self) -> dict[str, Any]:
        told = {"type": f"urn:clinloom:{self.reason}", "title": self.title, "status": self.status}
        return {**told, **({"detail": self.detail} if self.detail else {}), **self.more}

    def _outcome(self) -> dict[str, Any]:
        issue = {
            "severity": "error",
            "code": ISSUES.get(self.status, "processing"),
            "details": {"coding": [{"system": SYSTEM, "code": self.reason}], "text": self.title},
        }
        positions = self.more.get("positions", ())
        parts = [self.detail, *(f"byte {at}" for at in positions if not self.detail)]
        parts += [f"{reason}: {count}" for reason, count in self.more.get("refused", {}).items()]
        if any(parts):
            issue["diagnostics"] = "; ".join(part for part in parts if part)
        return {"resourceType": "OperationOutcome", "issue": [issue]}

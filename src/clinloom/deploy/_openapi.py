"""How OpenAPI describes the service: bodies that it reads itself, and problems in two forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from clinloom.deploy import _bodies
from clinloom.deploy._problems import FHIR, JSON, PROBLEM

REF = "#/components/schemas/"
NUMBER, TEXT, WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer"}
COUNTS = {"type": "object", "additionalProperties": WHOLE}
LISTED = {"type": "array", "items": {"type": "object"}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


PREDICTION = _object(
    ["subject_id", "patient", "prediction_time", "probability", "positive"],
    subject_id=WHOLE,
    patient=TEXT,
    prediction_time={"type": "string", "format": "date-time"},
    probability={"type": "number", "minimum": 0, "maximum": 1},
    positive={"type": "boolean"},
    contributions={"type": "object"},
)
SCHEMAS = {
    "Prediction": PREDICTION,
    "Answer": _object(
        ["bundle", "predictions", "unscored", "refused", "flow"],
        bundle={"type": "object"},
        predictions={"type": "array", "items": {"$ref": f"{REF}Prediction"}},
        unscored=LISTED,
        refused=COUNTS,
        flow=COUNTS,
        explained={"type": "object"},
    ),
    "Problem": _object(
        ["type", "title", "status"],
        type=TEXT,
        title=TEXT,
        status=WHOLE,
        detail=TEXT,
        refused=COUNTS,
        positions={"type": "array", "items": WHOLE},
    ),
    "OperationOutcome": _object(
        ["resourceType", "issue"], resourceType={"const": "OperationOutcome"}, issue=LISTED
    ),
    "Resource": _object(["resourceType"], resourceType=TEXT),
    "RiskAssessments": _object(
        ["resourceType", "type"],
        resourceType={"const": "Bundle"},
        type={"const": "collection"},
        entry=LISTED,
    ),
    **_bodies.schema(),
}


def _of(name: str, form: str = JSON) -> dict[str, Any]:
    return {form: {"schema": {"$ref": REF + name}}}


def _responses(good: dict[str, Any], form: str, schema: str) -> dict[int, Any]:
    bad = {status: {"description": WORDS[status], "content": _of(schema, form)} for status in BAD}
    return {200: {"description": "the answer", "content": good}, **bad}


WORDS = {
    400: "it is not understood",
    401: "a bearer token is needed",
    408: "the body did not come in time",
    413: "it is too large",
    415: "of a type that is not read",
    422: "it cannot be scored safely",
    500: "the service failed",
    501: "the study has no such source",
    503: "busy; come again",
    504: "scoring took too long",
}
BAD = tuple(WORDS)
EVENTS = _of("Events") | {_bodies.ARROW: {"schema": {"type": "string", "format": "binary"}}}
RESOURCES = _of("Resource", FHIR) | _of("Resource")


def _scoring(body: dict[str, Any], good: dict[str, Any], form: str, bad: str) -> dict[str, Any]:
    return {
        "responses": _responses(good, form, bad),
        "openapi_extra": {"requestBody": {"required": True, "content": body}},
    }


def _telling(description: str, content: dict[str, Any]) -> dict[str, Any]:
    refused = {"description": WORDS[401], "content": _of("Problem", PROBLEM)}
    good = {"description": description, "content": content}
    return {"responses": {200: good, 401: refused}, "response_model": None}


ANY = {JSON: {"schema": {"type": "object"}}}
PREDICT = _scoring(EVENTS, _of("Answer"), PROBLEM, "Problem")
FHIR_PREDICT = _scoring(
    RESOURCES, _of("RiskAssessments", FHIR) | _of("Answer"), FHIR, "OperationOutcome"
)
HEALTH = _telling("it runs", ANY)
READY = _telling("it can score", ANY)
MODEL = _telling("the bundle's card", ANY)
METRICS = _telling("counts", {"text/plain": {"schema": {"type": "string"}}})


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The application's own description, with these schemas and without the framework's faults."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        found = made()
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(SCHEMAS)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        return found

    return openapi

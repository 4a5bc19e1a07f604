"""A ward's worklist: one page of the service, its data, and what the ward answers.

The page itself holds nothing of a patient and asks for no token; its data does. Everything comes
from the service's own address: no script, font or picture of another.
"""

from __future__ import annotations

import datetime as dt
import zlib
from importlib.resources import files as packaged
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response

from clinloom.deploy import _answers, _lists
from clinloom.deploy._problems import JSON, Problem
from clinloom.deploy._service import Service
from clinloom.study.cds_hooks import OVERRIDES, Coding

BASE = "/worklist"
PAGE = {"": ("worklist.html", "text/html"), "/page.css": ("worklist.css", "text/css")}
PAGE["/page.js"] = ("worklist.js", "text/javascript")
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_plain = msgspec.json.Encoder().encode


class _Answer(msgspec.Struct):
    patient: str
    time: dt.datetime
    outcome: Literal["acknowledged", "not_useful"]
    reason: str | None = None


def router(service: Service, place: str) -> APIRouter:
    """The page and its data, for the lists in the folder ``place``."""
    made = APIRouter(prefix=BASE, include_in_schema=False)
    lists = _lists.Lists(place)
    answers = _answers.Answers(place, _reasons(service))
    for path, (name, kind) in PAGE.items():
        made.add_api_route(path, _page(name, kind), methods=["GET"])

    @made.get("/list")
    def listed(request: Request) -> Response:
        """Today's list; 304 where nothing has changed since."""
        found, given = lists.current(), answers.last()
        served = msgspec.convert(service.standing.current.bundle.scored_by, _lists.Scored)
        by = found.by or served
        told = {
            "title": by.title or by.study,
            "model": by,
            "by": "not told" if found.by is None else "served" if by == served else "other",
            "as_of": found.as_of,
            "left": found.left,
            "reasons": [{"code": r.code, "display": r.display} for r in answers.reasons.values()],
            "patients": [_patient(key, rows, given) for key, rows in found.patients.items()],
        }
        body = _plain(told)
        tag = f'"{found.mark}-{len(given)}-{zlib.crc32(body):x}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type=JSON, headers={"ETag": tag})

    @made.get("/patients/{patient}")
    def history(patient: str) -> Response:
        """A patient's moments so far, the last one first."""
        rows = lists.current().patients.get(patient)
        if rows is None:
            raise Problem(404, "not_found")
        return Response(_plain([_moment(row) for row in rows]), media_type=JSON)

    @made.post("/answers", status_code=204)
    async def answer(request: Request) -> Response:
        """Keep that a patient's risk was acknowledged, or of no use and why."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Problem(415, "unsupported_media", detail=JSON)  # no form of another page
        try:
            given = msgspec.json.decode(await request.body(), type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Problem(400, "bad_request") from None
        await service.aside("keep", _keep, lists, answers, given)
        return Response(status_code=204)

    return made


def _keep(lists: _lists.Lists, answers: _answers.Answers, given: _Answer) -> None:
    rows = lists.current().patients.get(given.patient)
    if rows is None or given.time.tzinfo is None or rows[0]["prediction_time"] != given.time:
        raise Problem(404, "not_found", detail="the list has changed: read it again")
    known = given.reason in answers.reasons
    if (given.outcome == "not_useful") != (given.reason is not None and known):
        codes = ", ".join(answers.reasons)
        raise Problem(400, "bad_request", detail=f"`not_useful` has a reason, one of {codes}")
    answers.give(given.patient, given.time, given.outcome, given.reason)


def _reasons(service: Service) -> tuple[Coding, ...]:
    """Why a risk is of no use: the reasons that the study gives for its cards, else the usual."""
    hooks = service.standing.current.bundle.resolved.deploy.cds_hooks
    return (hooks.overrides if hooks else ()) or OVERRIDES


def _patient(key: str, rows: list[_lists.Row], given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    now, past = rows[0], _lists.before(rows)
    told = _moment(now)
    earlier = {r["feature"]: r["text"] for r in (past or {}).get("reasons") or ()}
    return {
        "id": key,
        "patient": now.get("patient"),
        "system": now.get("system"),
        **told,
        "changed": [
            {"now": r["text"], "before": earlier.get(r["feature"])}
            for r in (told["reasons"] if past else ())
            if earlier.get(r["feature"]) != r["text"]
        ],
        "before": _moment(past) if past else None,
        "moments": len(rows),
        "answer": given.get(_answers.card(key, now["prediction_time"])),
    }


def _moment(row: _lists.Row) -> dict[str, Any]:
    return {
        "time": row["prediction_time"],
        "risk": row["predicted_boolean_probability"],
        "positive": row["predicted_boolean_value"],
        "reasons": row.get("reasons") or [],
    }


def _page(name: str, kind: str) -> Any:
    body = packaged("clinloom.deploy").joinpath("page", name).read_bytes()

    async def page() -> Response:
        return Response(body, media_type=kind, headers=SAFE)

    return page

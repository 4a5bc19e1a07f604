"""Which cards were shown, and what became of them: lines of JSON at an address, and no patient.

A card is a file of its own by its uuid (so every process of the service, and the next one, knows
it), each call of the feedback endpoint another with a line an outcome. A file is created and never
changed. What a clinician wrote is not kept, for it may name somebody: only that it was there.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address

MOST = 1000  # outcomes in one call
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OTHER = {"code": "other", "system": ""}
CODE = re.compile(r"[\x21-\x7e]{1,200}")  # of a reason: no text


class _Accepted(msgspec.Struct):
    id: str


class _Coding(msgspec.Struct):
    code: str
    system: str | None = None


class _Override(msgspec.Struct):
    reason: _Coding | None = None
    userComment: str | None = None


class _Outcome(msgspec.Struct):
    card: str
    outcome: Literal["accepted", "overridden"]
    outcomeTimestamp: str
    acceptedSuggestions: list[_Accepted] | None = None
    overrideReason: _Override | None = None


class Told(msgspec.Struct):
    """The body of a call of the feedback endpoint."""

    feedback: list[_Outcome]


class Unknown(Exception):
    """Feedback on a card, or a suggestion, that was not shown to this client."""


class Malformed(Exception):
    """Feedback that is none; the message holds nothing of it."""


class Kept:
    """Cards and feedback at an address."""

    def __init__(self, place: str):
        self.place = files.address(place)

    def shown(self, card: Mapping[str, Any], **told: str) -> None:
        """Keep that a card was shown; ``told``: the service, hook, client and bundle."""
        suggested = [suggestion["uuid"] for suggestion in card.get("suggestions", ())]
        offered = [_coded(reason) for reason in card.get("overrideReasons", ())]
        line = {"time": _now(), "card": card["uuid"], "indicator": card["indicator"], **told}
        line |= {"suggestions": suggested, "reasons": offered}
        create(self.place / f"cards/{card['uuid']}.json", [line])

    def take(self, told: Told, service: str, client: str) -> int:
        """Keep outcomes, all or none of them; how many. Raises Unknown or Malformed."""
        if not 0 < len(told.feedback) <= MOST:
            raise Malformed(f"`feedback` holds 1 to {MOST:,} outcomes")
        lines = [self._line(outcome, service, client) for outcome in told.feedback]
        create(self.place / f"feedback/{_now().replace(':', '')}-{uuid.uuid4().hex}.jsonl", lines)
        return len(lines)

    def _line(self, outcome: _Outcome, service: str, client: str) -> dict[str, Any]:
        card = self._card(outcome.card)
        if card is None or (card["service"], card["client"]) != (service, client):
            raise Unknown
        accepted = [one.id for one in outcome.acceptedSuggestions or ()]
        if (outcome.outcome == "accepted") != bool(accepted):
            raise Malformed("`accepted` names suggestions, `overridden` none")
        if not set(accepted) <= set(card["suggestions"]):
            raise Unknown
        line: dict[str, Any] = {"time": _now(), "card": outcome.card, "outcome": outcome.outcome}
        line["at"] = _moment(outcome.outcomeTimestamp)
        if accepted:
            line["suggestions"] = accepted
        if outcome.overrideReason is not None:
            line |= _reason(outcome.overrideReason, card.get("reasons", ()))
        return line

    def _card(self, name: str) -> dict[str, Any] | None:
        if not UUID.fullmatch(name):
            return None
        try:
            found: dict[str, Any] = json.loads(files.read(self.place / f"cards/{name}.json"))
        except FileNotFoundError:
            return None
        return found


def create(place: Address, lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep lines of JSON as a new file. Raises OSError, and StoreError where one is there."""
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files.folder(place.parent)
    if files.create(place, data) is None:
        raise StoreError("a file of this name is there already", where=str(place))


def _coded(reason: Mapping[str, Any]) -> dict[str, str]:
    return {"code": reason["code"], "system": reason.get("system") or ""}


def _reason(override: _Override, offered: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Which of the offered reasons it was, or that it was another: of that the code is not kept,
    for it may be anything."""
    out: dict[str, Any] = {}
    if override.reason is not None:
        code, system = override.reason.code, override.reason.system or ""
        if not CODE.fullmatch(code) or (system and not CODE.fullmatch(system)):
            raise Malformed("a reason's code and system are codes, without blanks")
        coded = {"code": code, "system": system}
        out["reason"] = coded if coded in offered else OTHER
    if override.userComment:
        out["commented"] = True
    return out


def _moment(text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(dt.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        raise Malformed("`outcomeTimestamp` is an instant with its zone") from None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")

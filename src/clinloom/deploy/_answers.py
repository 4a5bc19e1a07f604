"""What a ward answered to its list: lines of JSON beside the lists, and no patient.

An answer names the moment it is about by a card, a name made of the subject's number and the
moment: who reads answers alone learns of no patient. The lines are those of CDS Hooks' feedback, so
that ``clinloom monitor`` counts them. A file is created and never changed; the last answer to a
card holds.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from threading import Lock
from typing import Annotated, Any, Literal

import msgspec

from clinloom import files
from clinloom.deploy import _feedback
from clinloom.deploy._log import fault, warn
from clinloom.errors import StoreError
from clinloom.study.cds_hooks import Coding

FOLDER = "feedback"
SPACE = uuid.UUID("6f0c8a52-7f0e-4b2e-9d39-2f6f1d3c5b11")
OUTCOMES = {"acknowledged": "accepted", "not_useful": "overridden"}  # in the words of feedback
SINCE = 8  # days of answers that are looked at


class _Reason(msgspec.Struct):
    display: str | None = None


class _Override(msgspec.Struct):
    reason: _Reason


class _Line(msgspec.Struct):
    card: str
    outcome: Literal["accepted", "overridden"]
    outcomeTimestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    overrideReason: _Override | None = None


class Answers:
    """The answers beside the lists of a folder."""

    def __init__(self, place: str, reasons: Sequence[Coding]):
        self.place = files.address(place) / FOLDER
        self.reasons = {reason.code: reason for reason in reasons}
        self._lock = Lock()
        self._read: dict[str, str] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._day = dt.date.min

    def give(self, subject: str, moment: dt.datetime, outcome: str, reason: str | None) -> None:
        """Keep an answer. Raises StoreError where it cannot be kept."""
        now = dt.datetime.now(dt.UTC)
        line: dict[str, Any] = {
            "card": card(subject, moment),
            "outcome": OUTCOMES[outcome],
            "outcomeTimestamp": now.isoformat(timespec="milliseconds"),
        }
        if reason is not None:
            coded = self.reasons[reason].model_dump()
            line["overrideReason"] = {"reason": coded}
        name = f"{now:%H%M%S%f}-{uuid.uuid4().hex}.jsonl"
        place = self.place / f"{now:%Y-%m-%d}" / name
        try:
            _feedback.create(place, [line])
        except OSError as error:
            told = error.strerror or type(error).__name__
            raise StoreError(f"cannot be written ({told})", where=str(place)) from None

    def last(self) -> dict[str, dict[str, Any]]:
        """By card, the last answer: its outcome, reason (as it is read) and time.

        A line that is none, such as one that is half written, is left out, and logged.
        """
        today = dt.datetime.now(dt.UTC).date()
        days = [f"{today - dt.timedelta(days=n)}" for n in range(SINCE, -1, -1)]
        with self._lock:
            if self._day != today:  # what has grown too old is read no more
                self._day, self._read, self._last = today, {}, {}
            for day in days:
                for entry in files.listed(self.place / day):
                    name = entry.address.name  # a hidden one is on its way to its name
                    if not name.startswith(".") and self._read.get(name) != entry.stamp:
                        self._take(entry)
            return dict(self._last)

    def _take(self, entry: files.Entry) -> None:
        name = entry.address.name
        try:
            lines = files.read(entry.address).splitlines()
        except OSError as error:  # it is read at the next look
            warn("no_answer", file=name, **fault(error))
            return
        self._read[name] = entry.stamp
        for text in lines:
            try:
                told = msgspec.json.decode(text, type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                warn("no_answer", file=name, **fault(error))
                continue
            found = {
                "outcome": next(name for name, said in OUTCOMES.items() if said == told.outcome),
                "reason": told.overrideReason.reason.display if told.overrideReason else None,
                "time": told.outcomeTimestamp,
            }
            held = self._last.get(told.card)
            if held is None or held["time"] <= found["time"]:
                self._last[told.card] = found


def card(subject: str, moment: dt.datetime) -> str:
    """The name of a patient's moment on the list."""
    return str(uuid.uuid5(SPACE, f"{subject} {moment.astimezone(dt.UTC).isoformat()}"))

"""What clinicians did with a model's cards: accepted or overridden, by period.

A line is what a CDS Hooks 2.0.1 client posts to a service's ``feedback``, or one of its parts:
``{"feedback": [{"card": …, "outcome": "accepted" | "overridden", "overrideReason": {"reason":
{"code": …}}, "outcomeTimestamp": …}]}``; or what the service keeps of it, where `feedback` is its
folder. Comments are not read: a person may be named in them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clinloom import files
from clinloom.errors import StoreError
from clinloom.evaluate.calibration import wilson
from clinloom.files import Address
from clinloom.report.disclosure import SMALL, small
from clinloom.report.figures import FEW
from clinloom.run import periods

Ints = npt.NDArray[np.int64]
BLOCK = 1 << 24  # bytes that are read at once
OUTCOMES = ("accepted", "overridden")
REASONS = 10  # codes of reasons that are told
CODES, OTHER = 1000, "other"  # that are counted, and what further ones count as


def counted(place: Address, by: str) -> dict[str, Any]:
    """Cards accepted and overridden in each period, the share with its interval, and the reasons.

    A card counts once, as it was told of last.

    What is no feedback is counted as ``unreadable``. Raises StoreError where there is no file.
    """
    told, unreadable = _Told(), 0
    for line in _lines(place):
        for one in _parts(line):
            try:
                outcome, when = one["outcome"], one.get("outcomeTimestamp") or one["at"]
                moment = dt.datetime.fromisoformat(when)
                at = round(moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() * 1e6)
                number = int(periods.number(np.array([at]), by)[0])
                periods.label(number, by)
                told.add(one.get("card"), at, number, OUTCOMES.index(outcome), _reason(one))
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
                unreadable += 1
    held, outcome, reason = told.last()
    shown = []
    for period in np.unique(held).tolist():
        cards = np.bincount(outcome[held == period], minlength=len(OUTCOMES)).tolist()
        shown.append(_period(periods.label(period, by), *cards))
    counts = np.bincount(reason[reason >= 0], minlength=len(told.codes)).tolist()
    most = sorted(zip(told.codes, counts, strict=True), key=lambda pair: -pair[1])[:REASONS]
    return {
        "periods": shown,
        "reasons": [{"code": code, "cards": n} for code, n in most if n >= FEW],
        "unreadable": SMALL if small(unreadable) else unreadable,
    }


class _Told:
    """What became of cards, a few bytes each: a card is acted on again, and posted again."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self._place: dict[str, int] = {}
        kinds = "qqqbh"  # card, when, period, outcome, reason
        self._columns: list[array[int]] = [array(kind, ()) for kind in kinds]

    def add(self, card: Any, at: int, period: int, outcome: int, code: str | None) -> None:
        """One outcome; without a card it is one of its own."""
        alone = -1 - len(self._columns[0])
        named = isinstance(card, str)
        digest = hashlib.blake2b(card.encode(), digest_size=8).digest() if named else b""
        key = int.from_bytes(digest, "little") >> 1 if named else alone
        for column, value in zip(
            self._columns, (key, at, period, outcome, self._number(code)), strict=True
        ):
            column.append(value)

    def _number(self, code: str | None) -> int:
        """A reason's place among the codes, of which there is an end; -1: there is none."""
        if code is None:
            return -1
        if code not in self._place and len(self.codes) >= CODES:
            code = OTHER
        if code not in self._place:
            self._place[code] = len(self.codes)
            self.codes.append(code)
        return self._place[code]

    def last(self) -> tuple[Ints, Ints, Ints]:
        """Period, outcome and reason of each card, as it was told last."""
        card, at, *told = (np.frombuffer(column, column.typecode) for column in self._columns)
        order = np.lexsort((at, card))
        last = order[np.r_[card[order][1:] != card[order][:-1], True][: len(order)]]
        period, outcome, reason = (column[last].astype(np.int64) for column in told)
        return period, outcome, reason


def _period(label: str, accepted: int, overridden: int) -> dict[str, Any]:
    """A period's cards; nothing where few were accepted or overridden."""
    cards = accepted + overridden
    if small(accepted) or small(overridden):
        return {"period": label, "cards": None, "overridden": None, "low": None, "high": None}
    low, high = wilson(overridden, cards)
    share = {"overridden": overridden / cards, "low": low, "high": high}
    return {"period": label, "cards": cards, **{k: round(v, 4) for k, v in share.items()}}


def _parts(line: bytes) -> list[Any]:
    """The feedback in a line; something that is none where it holds none."""
    try:
        found = json.loads(line)
    except ValueError:
        return [None]
    several = found.get("feedback", [found]) if isinstance(found, dict) else [None]
    return several if isinstance(several, list) else [None]


def _reason(one: Any) -> str | None:
    """The code of the reason why a card was overridden."""
    told = one.get("overrideReason")
    told = told.get("reason") if isinstance(told, dict) else one.get("reason")
    code = told.get("code") if isinstance(told, dict) else None
    return code if isinstance(code, str) else None


def _lines(place: Address) -> Iterator[bytes]:
    """The lines that are not empty of a file, or of all ``*.jsonl`` below a folder."""
    found = [entry.address for entry in files.listed(place)] or [place]
    if found != [place]:  # in which there may be cards, of none of which feedback came yet
        found = [file for file in found if file.name.endswith(".jsonl")]
    for file in found:
        yield from _of_file(file)


def _of_file(place: Address) -> Iterator[bytes]:
    """A file's lines, a block of bytes at a time."""
    try:
        size, rest = files.entry(place).size, b""
        for begin in range(0, size, BLOCK):
            block = rest + files.read(place, begin, min(size, begin + BLOCK))
            *whole, rest = block.split(b"\n")
            yield from (line for line in whole if line.strip())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot be read ({reason})", where=str(place)) from None
    if rest.strip():
        yield rest

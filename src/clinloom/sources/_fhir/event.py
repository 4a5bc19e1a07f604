"""An event of a resource whose times are still text, and why there may be none."""

from __future__ import annotations

from collections.abc import Sequence

# A plain tuple, since there are hundreds of thousands a second: patient, time, made, onset, code,
# number, text, unit, record_id. ``made`` is a result's own time where ``time`` is that of its
# release, ``onset`` a condition's where ``time`` is when it was recorded; each is empty where that
# is not told, and ``time`` is the fact's own.
Event = tuple[
    str,
    str | None,
    str | None,
    str | None,
    str,
    float | None,
    str | None,
    str | None,
    str,
]


class Refused(Exception):
    """The resource, or a part of it, is refused: the reason, and what it tells all the same."""

    def __init__(self, reason: str, told: Sequence[Event] = ()):
        super().__init__(reason)
        self.told = told

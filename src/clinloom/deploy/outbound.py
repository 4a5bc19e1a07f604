"""What the service itself asks of others: bounded answers, over https, from agreed places.

No redirect is followed (it would carry a token to another place), no answer is larger than it may
be, and none takes longer than what is left of the time for all of them.
"""

from __future__ import annotations

import datetime as dt
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, cast

from clinloom.errors import SourceError
from clinloom.study.cds_hooks import secured

CHUNK = 1 << 16


class Unreachable(SourceError):
    """An agreed place did not answer as it should; the message holds no answer and no token.

    ``later``: for how many seconds it asks to be left alone, where it does.
    """

    def __init__(self, message: str, *, where: str, later: float | None = None):
        super().__init__(message, where=where)
        self.later = later


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirect is followed."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def get(
    url: str, *, where: str, until: float, most: int, headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes at a URL. ``until``: when, by ``time.monotonic``; ``most``: bytes.

    ``where``: what errors call the place. Raises Unreachable.
    """
    request = urllib.request.Request(  # noqa: S310  of an address that is checked
        _secured(url, where), headers=dict(headers or {})
    )
    try:
        with _OPENER.open(request, timeout=_left(until, where)) as answer:
            return _bounded(answer, where, until, most)
    except urllib.error.HTTPError as error:
        error.close()
        later = _seconds(error.headers.get("Retry-After"))
        raise Unreachable(f"it answered {error.code}", where=where, later=later) from None
    except (OSError, http.client.HTTPException, ValueError):
        raise Unreachable("it did not answer as it should, in time", where=where) from None


def _left(until: float, where: str) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise Unreachable("there was no time left to ask it", where=where)
    return left


def _bounded(answer: http.client.HTTPResponse, where: str, until: float, most: int) -> bytes:
    """The body, read as it comes: a full chunk of what trickles may be waited for without end."""
    parts, size, whole = [], 0, answer.length
    while (whole is None or size < whole) and (part := answer.read1(CHUNK)):
        parts.append(part)
        size += len(part)
        if size > most:
            raise Unreachable(f"its answer is larger than {most:,} bytes", where=where)
        _left(until, where)
    return b"".join(parts)


class Reply(NamedTuple):
    """What a server said: its status, its body, and how long it asks to be left alone."""

    status: int
    body: bytes
    later: float | None  # seconds


def post(
    url: str, data: bytes, *, where: str, until: float, most: int, headers: Mapping[str, str]
) -> Reply:
    """What a server says to a body, whichever status; as :func:`get` otherwise.

    Raises Unreachable where it says nothing whole in time.
    """
    request = urllib.request.Request(  # noqa: S310  of an address that is checked
        _secured(url, where), data, headers=dict(headers), method="POST"
    )
    try:
        try:
            with _OPENER.open(request, timeout=_left(until, where)) as answer:
                return Reply(answer.status, _bounded(answer, where, until, most), None)
        except urllib.error.HTTPError as error:
            with error:
                later = _seconds(error.headers.get("Retry-After"))
                answer = cast(http.client.HTTPResponse, error.fp)
                body = _bounded(answer, where, until, most)
                return Reply(error.code, body, later)
    except (OSError, http.client.HTTPException, ValueError):
        raise Unreachable("it did not answer as it should, in time", where=where) from None


def _secured(url: str, where: str) -> str:
    try:
        secured(url.split("?", 1)[0])
    except ValueError:
        raise Unreachable("only https is asked (http on loopback)", where=where) from None
    return url


def _seconds(told: str | None) -> float | None:
    """``Retry-After``: seconds, or a date (RFC 9110 10.2.3)."""
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(told)
        return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())
    except (ValueError, TypeError):
        return None

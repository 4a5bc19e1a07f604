"""Answers of FHIR searches: their pages, and whether these are all. (FHIR R4 3.1.1.4)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec

SEARCHED = b'"searchset"'
UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Mode(msgspec.Struct):
    """Bundle.entry.search."""

    mode: str | None = None


class Entry(msgspec.Struct):
    """Bundle.entry, its resource as it is written."""

    resource: msgspec.Raw = msgspec.Raw(b"null")
    search: Mode | None = None

    @property
    def found(self) -> bool:
        """Whether it was searched for, and does not only come with what was."""
        return bytes(self.resource) != b"null" and (
            self.search is None or self.search.mode not in ("include", "outcome")
        )


class Link(msgspec.Struct):
    """Bundle.link; a Patient's links are others, and have neither."""

    relation: str | None = None
    url: str | None = None


class Issue(msgspec.Struct):
    """OperationOutcome.issue."""

    severity: str = "error"


class Head(msgspec.Struct):
    """A resource, as far as it tells of a search."""

    resourceType: str
    type: str | None = None
    issue: list[Issue] | None = None
    entry: list[Entry] | None = None
    link: list[Link] | None = None
    total: int | None = None

    @property
    def more(self) -> str | None:
        """Where the next page is."""
        return next((link.url for link in self.link or () if link.relation == "next"), None)


head = msgspec.json.Decoder(Head).decode


def whole(data: bytes) -> bool:
    """Whether all pages of a search are there, where ``data`` is one or an array of such.

    What cannot be read as pages is left to who reads resources.
    """
    if SEARCHED not in data:
        return True
    pages = [page for page in _heads(data) if page.type == "searchset"]
    found = sum(entry.found for page in pages for entry in page.entry or ())
    total = max((page.total or 0 for page in pages), default=0)
    return found >= total and (not pages or not all(page.more for page in pages))


def _heads(data: bytes) -> Iterator[Head]:
    """Of those that can be read: other resources of an array may hold anything."""
    parts = [msgspec.Raw(data)]
    with suppress(*UNREADABLE):
        if data.lstrip().startswith(b"["):
            parts = msgspec.json.decode(data, type=list[msgspec.Raw])
    for part in parts:
        with suppress(*UNREADABLE):
            yield head(part)

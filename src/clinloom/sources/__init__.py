"""Sources: one file is one kind of source.

Its verb is ``read(pieces, options, source) -> Iterator[{table: parcel}]``: a kernel that sees
files and yields events with the source's own patient identifiers. ``SPLITTABLE`` says whether a
large file may be cut at its lines, ``LINKS`` whether it tells which identifiers belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import pyarrow as pa

from clinloom import plugins
from clinloom.files import Piece
from clinloom.study import SourceModel


class Source(Protocol):
    """What a kind of source owes: a file of this room, or another package's module."""

    REQUIRES: str | None
    SPLITTABLE: bool
    LINKS: bool

    @property
    def Options(self) -> type[SourceModel]:
        """What a study may set."""

    def read(
        self, pieces: Sequence[Piece], options: Any, source: str
    ) -> Iterator[dict[str, pa.Table]]:
        """Parcels of a group of files: ``events``, ``links``, ``images``, ``rejected``, ``ledger``.

        ``options``: the plug-in's own Options; ``source``: what the study calls the source.
        """


def load(kind: str) -> Source:
    """A kind of source by name. Raises UsageError with the nearest where there is none."""
    return cast(Source, plugins.load("sources", kind))

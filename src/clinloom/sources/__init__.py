"""Sources: one file is one kind of source, with two verbs.

``plan(options, where) -> Iterator[Unit]`` runs on the driver: the parts that the source is read by
(files, ranges of their lines, ranges of a database), streamed, in an order that stays, with a few
bytes a unit in memory at most. ``read(units, options, source) -> Iterator[{table: parcel}]`` runs
in workers, and in a service: a kernel that opens a group of units and yields events with the
source's own patient identifiers. ``LINKS`` says whether it tells which identifiers belong together.
An identifier is the source's own, or of the system that the option ``identifiers`` names; a table
of a parcel tells another in ``system`` beside ``patient``, ``other_system`` beside ``other``.

A source that Spark itself reads, always or where its option `open` says so, has a third verb,
``frame(spark, options, where) -> DataFrame``, and ``read`` is handed tables of its rows.

Units are told apart and grouped by their ``name``, ``size`` and ``stamp`` alone; what else they
hold is between a source's two verbs. Readers of files take the bytes of a request
(``clinloom.files.Given``) as they take a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow as pa

from clinloom import plugins
from clinloom.files import Unit
from clinloom.sources._displays import chosen as displays
from clinloom.study import SourceModel

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


__all__ = ["Framed", "Source", "displays", "framed", "load"]


class Source(Protocol):
    """What a kind of source owes: a file of this room, or another package's module."""

    REQUIRES: str | None
    LINKS: bool

    @property
    def Options(self) -> type[SourceModel]:
        """What a study may set."""

    def plan(self, options: Any, where: str) -> Iterator[Unit]:
        """The units of the source, each time in the same order. Raises SourceError.

        ``options``: the plug-in's own Options; ``where``: the study's key of the source. It is
        run twice: to tell the source's state, and to hand its units out.
        """

    def read(
        self, units: Sequence[Any], options: Any, source: str
    ) -> Iterator[dict[str, pa.Table]]:
        """Parcels of a group of its units: ``events``, ``links``, ``images``, ``rejected``,
        ``ledger``.

        ``units``: as ``plan`` made them; ``source``: what the study calls the source.
        """


class Framed(Source, Protocol):
    """A source that Spark reads: its rows come by a DataFrame, not by units."""

    def frame(self, spark: SparkSession, options: Any, where: str) -> DataFrame:
        """The rows; ``read`` is handed tables of them for units. Raises SourceError.

        What ``plan`` yields then tells the source's state and size alone.
        """


def framed(options: SourceModel) -> Framed | None:
    """The source's kind where Spark reads it; None where workers open its units.

    Of a kind that can be read either way, the option `open` decides.
    """
    found = load(options.type)
    asked = getattr(options, "open", "spark") == "spark"
    return cast(Framed, found) if asked and hasattr(found, "frame") else None


def load(kind: str) -> Source:
    """A kind of source by name. Raises UsageError with the nearest where there is none."""
    return cast(Source, plugins.load("sources", kind))

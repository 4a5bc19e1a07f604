"""Whole files through Spark's ``binaryFile`` reader, where a worker may not open an address itself.

Spark's own connectors and credentials fetch the files, and their bytes go to the same kernels.
Files come whole (at most 2 GB, no ranges of lines, no ranged reads), those within archives do not
come, and Spark passes over names that begin with ``_`` or ``.``. A task holds 128 MB of them, or
one larger file.
(Spark SQL, Binary File Data Source)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from clinloom.errors import SourceError
from clinloom.files import (
    MOST,
    WHOLE,
    FileUnit,
    Given,
    Piece,
    address,
    adjoined,
    cut,
    listing,
    parted,
)
from clinloom.sources._frames import State, of_files
from clinloom.study import SourceModel, StudyPath

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

COLUMNS = ("path", "content")
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
SIZE = r"^\d+[kmgt]$"  # bytes, as memory is written


class FileSource(SourceModel):
    """The options of a source of files: where they are, and who opens them."""

    path: StudyPath = Field(description="a file, a folder or a zip archive")
    include: str = Field(default="*", description="only files named like this")
    open: Literal["workers", "spark"] = Field(
        default="workers",
        description="who opens the files; `spark`: its own readers, where workers may not, whole"
        " files only and no archives",
    )
    unpacked_at_most: str = Field(
        default=f"{MOST >> 30}g",
        pattern=SIZE,
        examples=["200g"],
        description="how large a packed file (.gz, or in an archive) may be when it is unpacked;"
        " a larger one is refused as `too_large`",
    )
    whole_at_most: str = Field(
        default=f"{WHOLE >> 20}m",
        pattern=SIZE,
        examples=["512m"],
        description="how much of a packed file a worker may hold at once: a file that is"
        " not read line by line (a JSON document, Parquet, an image), or one line; a larger one is"
        " refused as `too_large`",
    )


def planned(options: FileSource, where: str, *, lines: bool) -> Iterator[FileUnit | State]:
    """The source's units: its files, with ``lines`` a large one as ranges of its lines.

    Where Spark opens them, one that tells whether they changed. Raises SourceError where nothing
    is there.
    """
    if options.open == "spark":
        yield _folder(options, where)
        return
    found = listing(options.path, include=options.include, where=f"{where}.path")
    yield from cut(found) if lines else found


def _folder(options: FileSource, where: str) -> State:
    from clinloom.spark.session import session

    files = _files(session(), options, where).select("path", "length", "modificationTime")
    told = of_files(files)
    if told is None:
        raise SourceError(
            f"Spark finds no file named like '{options.include}'",
            where=f"{where}.path",
            mend="is it the right folder?",
        )
    return State(options.path, *told)


def opened(spark: SparkSession, options: FileSource, where: str) -> DataFrame:
    """The files' paths and bytes, as Spark reads them. Raises SourceError where it cannot.

    It is the verb ``frame`` of each source of files, where the study says `open: spark`.
    """
    return _files(spark, options, where).select(*COLUMNS)


def _files(spark: SparkSession, options: FileSource, where: str) -> DataFrame:
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        found = reader.option("pathGlobFilter", options.include).load(address(options.path).uri)
        found.columns  # noqa: B018 - over Connect nothing is looked at before
    except Exception as error:  # a connector may fail in any way
        raise SourceError(
            f"Spark cannot open '{options.path}' ({type(error).__name__})",
            where=f"{where}.path",
            mend="is it there, and is Spark's connector to that storage?",
        ) from None
    return found


def handed(
    units: Iterable[FileUnit] | Iterable[pa.Table], options: FileSource, *, lines: bool = False
) -> Iterator[FileUnit]:
    """The units of one read as files: those that workers open, or the bytes that Spark read.

    ``lines``: a large file of lines that is in no range, as a packed one, comes in parts, which
    are to be read in turn.
    """
    whole, most = _bytes(options.whole_at_most), _bytes(options.unpacked_at_most)
    if options.open == "workers":
        for unit in adjoined([unit for unit in units if not isinstance(unit, pa.Table)]):
            if isinstance(unit, Piece) and (unit.whole, unit.most) != (whole, most):
                unit = replace(unit, whole=whole, most=most)
            yield from parted(unit) if lines else (unit,)
        return
    root = _plain(address(options.path).uri)
    for table in units:
        if not isinstance(table, pa.Table):  # bytes of a request
            yield table
            continue
        for path, content in zip(*(table.column(name) for name in COLUMNS), strict=True):
            place = _plain(path.as_py())
            name = place.removeprefix(root).lstrip("/") or place.rsplit("/", 1)[-1]
            yield Given(name, content.as_py(), whole=min(whole, most))


def _bytes(size: str) -> int:
    return int(size[:-1]) * UNITS[size[-1]]


def _plain(uri: str) -> str:
    return re.sub(r"^file:/+", "/", uri)

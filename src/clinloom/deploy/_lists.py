"""A ward's list: the newest file that batch scoring wrote to a folder, beside those before it.

Each Parquet file of the folder (``clinloom score … --reasons 5 --out FOLDER/2026-11-28.parquet``)
is a list; the last by name is today's, and the others tell what changed. Files below the folder's
own level are none.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinloom import files
from clinloom.deploy._log import fault, warn
from clinloom.deploy.bundle import SCORED
from clinloom.errors import ClinloomError
from clinloom.tables import REASONS, SCORES, conform

FILES = 31  # lists that are looked at: today's and a month before
MOST = 5_000  # patients of a list, those at the highest risk
DAY_BEFORE = dt.timedelta(hours=18)  # how much older a risk is that stands for yesterday's
LIST = replace(SCORES, columns=(*SCORES.columns, REASONS))

Row = dict[str, Any]


class Scored(msgspec.Struct):
    """By which bundle a list was scored."""

    study: str
    title: str | None
    model: str
    mark: str
    threshold: float


@dataclass(frozen=True)
class List:
    """The patients of the newest list by risk, and each one's moments so far, the last one first.

    ``left``: patients at lower risks that it leaves out; ``mark`` changes whenever it does; ``by``:
    None where it does not tell.
    """

    mark: str
    patients: dict[str, list[Row]]
    left: int
    by: Scored | None = None

    @cached_property
    def as_of(self) -> dt.datetime | None:
        """The newest moment."""
        return max((rows[0]["prediction_time"] for rows in self.patients.values()), default=None)


NONE = List("", {}, 0)


class Lists:
    """The lists of a folder, read again when one is added or changed."""

    def __init__(self, place: str):
        self.place = files.address(place)
        self._lock = Lock()
        self._read: dict[str, tuple[str, pa.Table]] = {}
        self._current = NONE

    def current(self) -> List:
        """The newest list. A file that is no list is left out, and logged. Raises OSError."""
        with self._lock:
            found = files.listed(self.place, deep=False)
            named = [e for e in found if e.address.name.endswith(".parquet")][-FILES:]
            told = repr([(e.address.name, e.stamp) for e in named])
            mark = hashlib.sha256(told.encode()).hexdigest()[:16]
            if mark != self._current.mark:
                self._take(named)
                self._current = _listed(mark, [table for _, table in self._read.values()])
            return self._current

    def _take(self, named: list[files.Entry]) -> None:
        """Read what is new."""
        before, self._read = self._read, {}
        for entry in named:
            name = entry.address.name
            if name in before and before[name][0] == entry.stamp:
                self._read[name] = before[name]
                continue
            try:
                self._read[name] = entry.stamp, _table(entry)
            except (OSError, pa.ArrowException, msgspec.DecodeError, ClinloomError) as error:
                warn("no_list", file=name, **fault(error))


def _table(entry: files.Entry) -> pa.Table:
    """A list (LIST), with its metadata.

    Raises ArrowException, DataError or DecodeError for what is none.
    """
    file = pq.ParquetFile(pa.BufferReader(files.read(entry.address)))
    there = file.schema_arrow.names
    table = conform(file.read([name for name in LIST.arrow.names if name in there]), LIST)
    table = table.replace_schema_metadata(file.metadata.metadata)
    _by(table)
    return table


def _by(table: pa.Table) -> Scored | None:
    told = (table.schema.metadata or {}).get(SCORED.encode())
    return None if told is None else msgspec.json.decode(told, type=Scored)


def _listed(mark: str, tables: list[pa.Table]) -> List:
    if not tables:
        return List(mark, {}, 0)
    *earlier, newest = tables
    latest = _last(newest)
    risk = "predicted_boolean_probability"
    latest = latest.sort_by([(risk, "descending"), ("subject_id", "ascending")])
    shown = latest.slice(0, MOST)
    wanted = shown.column("subject_id").combine_chunks()
    moments: dict[int, dict[dt.datetime, Row]] = defaultdict(dict)
    for table in (*earlier, newest):  # what a later list tells of a moment holds
        for row in table.filter(pc.is_in(table.column("subject_id"), wanted)).to_pylist():
            moments[row["subject_id"]][row["prediction_time"]] = row
    patients = {}
    for now in shown.select(["subject_id", "prediction_time"]).to_pylist():
        of = moments[now["subject_id"]]
        times = sorted((t for t in of if t <= now["prediction_time"]), reverse=True)
        patients[str(now["subject_id"])] = [of[t] for t in times]
    return List(mark, patients, latest.num_rows - shown.num_rows, _by(newest))


def _last(table: pa.Table) -> pa.Table:
    """Each patient's last moment."""
    keys = ["subject_id", "prediction_time"]
    last = table.group_by("subject_id").aggregate([("prediction_time", "max")])
    last = last.rename_columns(keys)
    rest = [name for name in table.column_names if name != REASONS.name]  # no list joins
    return last.join(table.select(rest), keys, join_type="inner")


def before(rows: list[Row]) -> Row | None:
    """Of a patient's moments, the last first, the one that stands for the day before."""
    now = rows[0]["prediction_time"]
    return next((row for row in rows[1:] if now - row["prediction_time"] >= DAY_BEFORE), None)

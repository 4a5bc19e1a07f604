"""What every file kernel hands on beside its events: refusals with their place, and identities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from clinloom.files import FAULTS, FileUnit, TooLarge
from clinloom.sources._displays import Displays
from clinloom.tables import ASSUMED_ZONE, LEDGER, PARCEL_LINKS, PARCEL_REJECTED, WORD

STAGE = "acquire"


class Refusals:
    """The records of one source that were refused, until the next parcel takes them away."""

    def __init__(self, source: str):
        self.source = source
        self.zoneless = 0  # times of which nobody tells the zone
        self.displays = Displays()
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []

    def add(
        self,
        reason: str,
        *,
        file: str,
        position: int | None = None,
        record_id: str | None = None,
        code: str | None = None,
        patient: str | None = None,
        version: int | None = None,
        field: str | None = None,
    ) -> None:
        """Refuse one record of ``file``. ``position``: the byte at which it starts; ``version``:
        of a record that tells no fact any more, so that earlier versions of it do not either;
        ``field``: the column or element that is at fault."""
        row = {"reason": reason, "file": file, "position": position, "record_id": record_id}
        row |= {"code": code, "patient": patient, "source": self.source, "stage": STAGE}
        row |= {"version": version, "field": field}
        self._rows.append(row)

    def add_rows(self, reason: str, rows: pa.Table) -> None:
        """Refuse many: ``rows`` has any of patient, record_id, code, field, file and position."""
        if not rows.num_rows:
            return
        given = {"reason": reason, "source": self.source, "stage": STAGE}
        columns = []
        for field in PARCEL_REJECTED.arrow:
            if field.name in rows.column_names:
                columns.append(rows.column(field.name).cast(field.type))
            else:
                value = pa.scalar(given.get(field.name), field.type)
                columns.append(pa.repeat(value, rows.num_rows))
        self._tables.append(pa.table(columns, schema=PARCEL_REJECTED.arrow))

    def take(self) -> dict[str, pa.Table]:
        """The parcel's ``rejected``, where there is any, and a clean slate."""
        tables = [*self._tables, PARCEL_REJECTED.rows(self._rows)] if self._rows else self._tables
        self._rows, self._tables = [], []
        return {"rejected": pa.concat_tables(tables)} if tables else {}

    def last(self) -> dict[str, pa.Table]:
        """The last parcel: what is left, and what was counted all along."""
        told = self.counts()
        return {**self.take(), **({"ledger": LEDGER.rows(told)} if told else {})}

    def counts(self) -> list[dict[str, Any]]:
        """Rows of the ledger: what was counted all along."""
        return zones(self.source, self.zoneless) + self.displays.rows(self.source)


def zones(source: str, count: int) -> list[dict[str, Any]]:
    """The ledger's row of so many times of which nobody tells the zone, where there are any."""
    told = {"source": source, "rule": ASSUMED_ZONE, "action": "taken_as_UTC", "count": count}
    return [told] if count else []


def whole(piece: FileUnit, refused: Refusals) -> bytes | None:
    """The piece's bytes; a file that cannot be unpacked is refused as ``unreadable_file``, one that
    unpacks to more than the study allows as ``too_large``.
    """
    try:
        return piece.read()
    except FAULTS as error:
        refused.add(unreadable(error), file=piece.name)
    return None


def unreadable(error: Exception) -> str:
    """The reason of refusal of a file that could not be read."""
    return "too_large" if isinstance(error, TooLarge) else "unreadable_file"


def first_byte(piece: FileUnit) -> int:
    """The offset in its file at which the piece's first line starts (see ``Piece.read``)."""
    return piece.first_byte()


def links(
    pairs: Iterable[tuple[str, str]], systems: Iterable[str | None] = ()
) -> dict[str, pa.Table]:
    """The parcel's ``links``, where there are any.

    ``systems``: of the others; none, or nothing but None: the source's own.
    """
    pairs, systems = list(pairs), list(systems)
    if not pairs:
        return {}
    patients, others = zip(*pairs, strict=True)
    made = pa.table([list(patients), list(others)], schema=PARCEL_LINKS.arrow)
    if any(systems):
        made = made.append_column("other_system", pa.array(systems, pa.string()))
    return {"links": made}


def word(value: str | None, rows: int) -> pa.DictionaryArray:
    """The same text in every row."""
    if value is None:
        return pa.nulls(rows, WORD)
    indices = pa.repeat(pa.scalar(0, pa.int32()), rows)
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], pa.string()))

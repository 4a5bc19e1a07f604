"""Events as they come by files and queues: a JSON object a line, or a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from clinloom.deploy._bodies import NAMES, Event
from clinloom.deploy.bundle import acquired
from clinloom.errors import DataError
from clinloom.files import PARQUET
from clinloom.tables import ACQUIRED

MALFORMED_JSON, MALFORMED = "malformed_json", "malformed_events"
_decode = msgspec.json.Decoder(Event).decode


def of_lines(lines: Sequence[bytes]) -> tuple[pa.Table, list[tuple[int, str]]]:
    """The events (ACQUIRED) of lines, as a request's are (see docs/serving.md), and which lines
    are none, each by its place with the reason. A blank line is passed over."""
    found, refused = [], []
    for place, line in enumerate(lines):
        try:
            if line and not line.isspace():
                found.append(_decode(line))
        except msgspec.ValidationError:
            refused.append((place, MALFORMED))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            refused.append((place, MALFORMED_JSON))
    schema = ACQUIRED.arrow
    columns = {n: pa.array([getattr(e, n) for e in found], schema.field(n).type) for n in NAMES}
    return acquired(pa.table(columns)), refused


def of_file(data: bytes) -> tuple[pa.Table, list[tuple[int, str]]]:
    """The same of a file's bytes: Parquet with the columns of the events table, or lines.

    A Parquet file that has other columns, or none of these, is refused as a whole.
    """
    if not data.startswith(PARQUET):
        return of_lines(data.split(b"\n"))
    try:
        return acquired(pq.read_table(pa.BufferReader(data), use_threads=False)), []
    except (DataError, pa.ArrowException, OSError, ArithmeticError, ValueError):
        return ACQUIRED.empty, [(0, MALFORMED)]

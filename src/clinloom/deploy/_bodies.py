"""Events in the body of a request: JSON, checked by type, or an Arrow stream."""

from __future__ import annotations

import datetime as dt
import struct
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from clinloom.deploy.door import Refusal
from clinloom.tables import ACQUIRED

ARROW = "application/vnd.apache.arrow.stream"
LARGEST = 2**63 - 1
TELLING = ("Expected", "Invalid RFC3339", "Object missing")  # messages that hold no value
COMPRESSED, HEADER = 10, 8  # places in the tables of Arrow's Message and RecordBatch


class Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A row of the events table (MEDS 0.4). A time names its zone; none: it always holds."""

    subject_id: Annotated[int, msgspec.Meta(ge=-LARGEST - 1, le=LARGEST)]
    code: Annotated[str, msgspec.Meta(min_length=1)]
    time: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    numeric_value: float | None = None
    text_value: str | None = None
    unit: str | None = None
    source: str | None = None
    record_id: str | None = None
    earlier: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] | None = None


class Events(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request: events of one patient or many."""

    events: list[Event]


NAMES = tuple(f.name for f in msgspec.structs.fields(Event))
_decode = msgspec.json.Decoder(Events).decode


def of_json(data: bytes, most: int) -> pa.Table | None:
    """The events of a JSON body; None: more than ``most``. Raises Refusal."""
    try:
        given = _decode(data).events
    except msgspec.ValidationError as error:
        said = str(error)
        where = said if said.startswith(TELLING) else "a key or value is none that is known"
        raise Refusal("malformed_events", where=where) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("malformed_json") from None
    if len(given) > most:
        return None
    schema = ACQUIRED.arrow
    try:
        columns = {n: pa.array([getattr(e, n) for e in given], schema.field(n).type) for n in NAMES}
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        raise Refusal("malformed_events") from None
    return pa.table(columns)


def of_arrow(data: bytes, most: int) -> pa.Table | None:
    """The events of an Arrow IPC stream, not compressed; None: more than ``most``.

    Raises Refusal.
    """
    try:
        _plain(data)
        batches, rows = [], 0
        with pa.ipc.open_stream(data) as stream:
            for batch in stream:
                rows += batch.num_rows
                if rows > most:
                    return None
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, stream.schema)
            fault = _unknown(table.schema)
            table = table.take(pa.array(range(rows), pa.int64()))  # buffers of a whole length
    except (pa.ArrowException, OSError, ValueError, struct.error, OverflowError):
        raise Refusal("malformed_events", where="an Arrow IPC stream, not compressed") from None
    if fault:
        raise Refusal("malformed_events", where=fault)
    return table


RESOURCE = b'"resourceType"'


def larger(body: bytes, most: int) -> bool:
    """Whether a body of FHIR holds more resources than ``most``."""
    return len(body) > most * len(RESOURCE) and body.count(RESOURCE) > most


def _unknown(schema: pa.Schema) -> str | None:
    """What is not as the events table has it, where something is not."""
    if len(set(schema.names)) < len(schema.names):
        return "a column stands twice"
    if set(schema.names) - set(NAMES):
        return "a column is none of the events table"
    if "time" in schema.names and not _zoned(schema.field("time").type):
        return "the column time has no zone"
    return None


def _zoned(type_: pa.DataType) -> bool:
    return bool(pa.types.is_null(type_) or getattr(type_, "tz", None))


def _plain(data: bytes) -> None:
    """Raise ValueError where a batch is compressed: a few bytes of it may unpack to anything.

    (Apache Arrow, format/Message.fbs: Message.header, RecordBatch.compression; a dictionary's
    batch holds a record batch.)
    """
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(data))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type not in ("record batch", "dictionary"):
            continue
        raw = memoryview(message.metadata)
        table = _field(raw, _offset(raw, 0), HEADER)
        if table and message.type == "dictionary":
            table = _field(raw, table, 6)
        if table and _field(raw, table, COMPRESSED):
            raise ValueError("compressed")


def _offset(raw: memoryview, at: int) -> int:
    found: int = at + struct.unpack_from("<I", raw, at)[0]
    return found


def _field(raw: memoryview, table: int, place: int) -> int:
    """Where the table in a field of a FlatBuffers table begins; 0: it has none."""
    vtable = table - struct.unpack_from("<i", raw, table)[0]
    if place + 2 > struct.unpack_from("<H", raw, vtable)[0]:
        return 0
    at = struct.unpack_from("<H", raw, vtable + place)[0]
    return _offset(raw, table + at) if at else 0


def schema() -> dict[str, Any]:
    """The JSON Schema of the body, as OpenAPI takes it."""
    _, parts = msgspec.json.schema_components([Events], ref_template="#/components/schemas/{name}")
    return dict(parts)

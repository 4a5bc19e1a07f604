"""Partial sums: small tables that workers make and merge, so that little reaches the driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyarrow as pa

Merge = Callable[[Sequence[pa.Table]], pa.Table]
FEW = 16  # parts that the driver merges by itself


def packed(table: pa.Table) -> bytes:
    """A table as one Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        for batch in table.to_batches():
            stream.write_batch(batch)
    told: bytes = sink.getvalue().to_pybytes()
    return told


def unpacked(block: bytes | pa.Buffer) -> pa.Table:
    """The inverse of :func:`packed`."""
    with pa.ipc.open_stream(block) as stream:
        return stream.read_all()


def halls(parts: int) -> int:
    """In how many workers so many parts are merged before the driver sees them; 0: in none."""
    return 0 if parts <= FEW else min(FEW, math.isqrt(parts))

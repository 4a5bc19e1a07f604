"""What Spark carries as one value stays small, also of one patient who has most of the rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from clinloom.spark import blocks, shuffle
from clinloom.store import coded
from clinloom.tables import ACQUIRED

ARROW = 2**31 - 1  # bytes of the values of one Arrow vector


def giant(sizes: np.ndarray) -> pa.Table:
    """A patient's events, each with a text of so many letters."""
    n = len(sizes)
    known = {
        "subject_id": pa.array(np.full(n, 7)),
        "time": pa.array(np.arange(n)).cast(pa.timestamp("us", "UTC")),
        "code": pa.array(["NOTE"] * n),
        "text_value": pa.array(["x" * size for size in sizes.tolist()]),
        "record_id": pa.array(np.arange(n).astype(str)),
    }
    return pa.table(known)


@pytest.mark.parametrize(
    "sizes",
    [
        np.full(60_000, 100),
        np.where(np.arange(40_000) < 300, 20_000, 10),  # notes first, then numbers
        np.array([8 << 20, 5, 5, 5]),
    ],
    ids=["alike", "uneven", "of one row"],
)
def test_slices_of_a_giant_patient_fit_an_arrow_vector(sizes: np.ndarray):
    rows = giant(sizes)
    cutter = blocks.Cutter(coded(ACQUIRED), buckets=4)
    slices = [*cutter.add(rows), *cutter.rest()]
    assert {bucket for bucket, *_ in slices} == {7 % 4}
    assert sum(count for _, count, *_ in slices) == len(sizes)
    for _, count, size, block in slices:
        assert count == 1 or size < 2.1 * blocks.ROW
        assert len(block) < size + 10_000
        assert shuffle.ROWS_OF_BLOCKS * (size + 10_000) < ARROW
    back = pa.concat_tables([blocks.opened(block, coded(ACQUIRED)) for *_, block in slices])
    assert (
        back.column("text_value")
        .combine_chunks()
        .equals(rows.column("text_value").combine_chunks())
    )

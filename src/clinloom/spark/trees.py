"""The nodes of a fitted tree model, which Spark tells only by saving it."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from clinloom import files
from clinloom.errors import StoreError
from clinloom.spark import saved
from clinloom.store.stored import read as read_file


def nodes(fitted: Any, place: str) -> pa.Table:
    """A row a node of a fitted tree or ensemble, as Spark's own format has them.

    The model is saved to ``place``, an address that driver and executors share. Raises StoreError
    where no node came back: the executors wrote somewhere else.
    """
    at = files.address(place)
    saved.save(fitted, at)
    return read(at)


def read(place: str | os.PathLike[str]) -> pa.Table:
    """The nodes of a saved model. Raises StoreError where there are none."""
    parts = [
        read_file(str(entry.address), coded=False)
        for entry in files.listed(files.address(place) / "data")
        if entry.address.suffix == ".parquet"
    ]
    parts = [part for part in parts if part.num_rows]
    if not parts:
        raise StoreError(
            "a saved tree model came back without a node: driver and executors do not share it",
            where=str(place),
            mend="give an --out that every machine reaches, such as hdfs:, s3: or abfss:",
        )
    return pa.concat_tables(parts)

"""The nodes of a fitted tree model, which Spark tells only by saving it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from clinloom.errors import StoreError


def nodes(fitted: Any, place: str) -> pa.Table:
    """A row a node of a fitted tree or ensemble, as Spark's own format has them.

    The model is saved to ``place``, an address that driver and executors share. Raises StoreError
    where no node came back: the executors wrote somewhere else.
    """
    folder = Path(place)
    fitted.write().overwrite().save(folder.absolute().as_uri())
    return read(folder)


def read(folder: Path) -> pa.Table:
    """The nodes of a saved model. Raises StoreError where there are none."""
    data = folder / "data"
    found = ds.dataset(data, format="parquet").to_table() if data.is_dir() else pa.table({})
    if not found.num_rows:
        raise StoreError(
            "a saved tree model came back without a node",
            where=str(folder),
            mend="driver and executors must share the address of --out",
        )
    return found

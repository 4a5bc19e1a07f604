"""Fitted models on storage that driver and executors share.

Spark's executors write a model's parts, so it is saved at an address of the store, never in the
driver's own temporary folder: on two machines that would come back empty.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address

NO_CONNECTOR = ("No FileSystem for scheme", "ClassNotFoundException", "UnsupportedFileSystem")


def save(model: Any, place: Address) -> None:
    """Save a model or pipeline at an address.

    A local session without a connector to the store saves it on this machine first. Raises
    StoreError where a cluster has no connector.
    """
    try:
        model.write().overwrite().save(place.uri)
        return
    except Exception as error:
        if place.local or not any(name in str(error) for name in NO_CONNECTOR):
            raise
    if not _alone():
        raise StoreError(
            f"this Spark has no connector to {place.scheme}:",
            where=str(place),
            mend="add the Hadoop connector to its class path (spark.jars.packages), see"
            " docs/cluster.md",
        )
    folder = Path(tempfile.mkdtemp(prefix="clinloom-model-"))
    try:
        model.write().overwrite().save((folder / "model").as_uri())
        copy(files.address(folder / "model"), place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy(source: Address, target: Address) -> None:
    """Copy a folder of small files, such as a saved model."""
    for entry in files.listed(source):
        name = entry.address.relative_to(source)
        if not name.rsplit("/", 1)[-1].startswith("."):  # Hadoop's local checksums are not content
            files.write(target / name, files.read(entry.address))


def _alone() -> bool:
    """Whether executors are this machine's driver itself."""
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    context = getattr(active, "_sc", None)
    return context is not None and str(context.master).startswith(("local[", "local,"))

"""A worker's own disk: where Spark keeps its shuffle, else the system's temporary folder."""

from __future__ import annotations

import os
import tempfile


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with the block that uses it."""
    for folder in os.environ.get("SPARK_LOCAL_DIRS", "").split(","):
        if folder and os.access(folder, os.W_OK):
            return tempfile.TemporaryDirectory(prefix="clinloom-", dir=folder)
    return tempfile.TemporaryDirectory(prefix="clinloom-")

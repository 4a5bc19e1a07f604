"""What a session's workers are, asked by a job of one row a core."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from clinloom import __version__
from clinloom.checks import Check

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COLUMNS = "python string, clinloom string"


def seen(rows: pa.Table) -> pa.Table:
    """What a worker is: its Python, and its Clinloom."""
    count = rows.num_rows
    return pa.table(
        {
            "python": pa.repeat(platform.python_version(), count),
            "clinloom": pa.repeat(__version__, count),
        }
    )


def workers(spark: SparkSession) -> Iterator[Check]:
    """Whether Python workers start, import Clinloom and are of the driver's version."""
    from clinloom.spark import workers as shell

    here = platform.python_version()
    mend = "install the same version in the Python that the workers run"
    try:
        java = "java_method('java.lang.System', 'getProperty', 'java.version')"
        (release,) = spark.sql(f"select {java} as release").collect()[0]
        yield Check("Java there", True, str(release))
    except Exception as error:  # a platform may forbid the function
        detail = f"does not tell ({type(error).__name__})"
        yield Check("Java there", False, detail, "it needs Java 17 for Spark 4", required=False)
    try:
        found = shell.by_rows(spark.range(0, 8, 1, 8), seen, COLUMNS).distinct().collect()
    except Exception as error:  # Spark's, the worker's: whatever it is, it is the finding
        lacks = "No module named 'clinloom'" in str(error)
        detail = "cannot import clinloom" if lacks else f"fail with {type(error).__name__}"
        yield Check("Python workers", False, detail, f"{mend}: pip install clinloom")
        return
    pythons = sorted({row["python"] for row in found})
    same = all(p.split(".")[:2] == list(map(str, sys.version_info[:2])) for p in pythons)
    yield Check("Python workers", same, f"{', '.join(pythons)}, here {here}", mend)
    versions = sorted({row["clinloom"] for row in found})
    detail = f"{', '.join(versions)}, here {__version__}"
    yield Check("Clinloom there", versions == [__version__], detail, mend)

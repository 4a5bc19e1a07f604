"""This machine: a local Spark session with so many cores and so much memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from clinloom.platforms import Check, Outcome, Task, _child
from clinloom.study import Model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REQUIRES: str | None = None
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Options(Model):
    """How much of this machine a run may use."""

    cores: int | None = Field(
        default=None, ge=1, description="tasks at once; none: CLINLOOM_SPARK_MASTER, else all cores"
    )
    memory: str | None = Field(
        default=None,
        pattern=r"^\d+[kmgt]$",
        examples=["3g"],
        description="of Spark's JVM; none: CLINLOOM_SPARK_MEMORY, else 3g",
    )


def session(options: Options) -> SparkSession:
    """A local session."""
    from clinloom.spark import session as spark

    settings = {"spark.driver.memory": options.memory} if options.memory else {}
    return spark.session(master=_master(options), remote="", settings=settings)


def submit(task: Task, options: Options, *, note: Callable[[str], None]) -> Outcome:
    """Run the command in a process of its own on this machine."""
    env = {"CLINLOOM_SPARK_MASTER": _master(options)}
    if options.memory:
        env["CLINLOOM_SPARK_MEMORY"] = options.memory
    return _child.clinloom(task, env)


def checks(options: Options) -> Iterator[Check]:
    """Whether this machine has the cores and the memory that are asked for."""
    there = os.cpu_count() or 1
    asked = options.cores or there
    mend = "ask for fewer cores"
    yield Check("cores", asked <= there, f"{asked} of {there}", mend, required=False)
    if options.memory:
        wanted = int(options.memory[:-1]) * UNITS[options.memory[-1]]
        try:
            held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return
        detail = f"{wanted / 1e9:.0f} of {held / 1e9:.0f} GB for Spark's JVM"
        mend = "ask for less: Python workers need memory beside Spark's"
        yield Check("memory asked for", wanted < 0.8 * held, detail, mend)


def _master(options: Options) -> str:
    named = os.environ.get("CLINLOOM_SPARK_MASTER", "")
    if options.cores:
        return f"local[{options.cores}]"
    return named if named.startswith("local") else "local[*]"

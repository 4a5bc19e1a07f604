"""Where a run works: one file a platform, each with options, a session, a way to submit, checks.

A command is given to a platform as a :class:`Task`: the study is read and checked here first, with
every place made absolute, and travels as a small file beside the command. Where it ran changes no
result, so neither a stage's key nor a bundle knows of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from clinloom import plugins, study
from clinloom.checks import Check
from clinloom.errors import UsageError
from clinloom.files import Address
from clinloom.study import Model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "SUBMITTED",
    "Check",
    "Outcome",
    "Platform",
    "Site",
    "Task",
    "described",
    "inside",
    "load",
    "site",
    "worker_checks",
]

SUBMITTED = "CLINLOOM_SUBMITTED"  # set where a command already runs on its platform


@dataclass(frozen=True)
class Task:
    """A command for a platform."""

    command: tuple[str, ...]  # what follows ``clinloom``
    files: Mapping[str, bytes] = field(default_factory=dict)  # for its working folder, by name
    places: Mapping[str, Address] = field(default_factory=dict)  # what it opens, by its key
    report: Address | None = None  # where its report will be


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and its report's address where it wrote one.

    Where its own streams are not this process's (not ``told``), what it printed and why it failed.
    """

    code: int
    report: Address | None
    told: bool = True
    result: Any = None
    fault: str | None = None


class Platform(Protocol):
    """What a file of this room owes."""

    REQUIRES: str | None

    @property
    def Options(self) -> type[Model]:
        """What a study may set."""

    def session(self, options: Any) -> SparkSession:
        """A session of the platform whose driver is this process."""

    def submit(self, task: Task, options: Any, *, note: Callable[[str], None]) -> Outcome:
        """Run the command there, follow it, and bring back how it ended.

        ``note`` takes what it tells: sentences, and the lines of JSON that its progress wrote.
        Raises UsageError where the platform cannot run it as it is put.
        """

    def checks(self, options: Any) -> Iterator[Check]:
        """What is there and what is missing, for ``clinloom doctor --on NAME``."""


@dataclass(frozen=True)
class Site:
    """A chosen platform with its options."""

    name: str
    options: Model

    @property
    def platform(self) -> Platform:
        """Its module. Raises MissingDependency where a library that it needs is not installed."""
        plugins.check("platforms", self.name)
        return load(self.name)


def load(name: str) -> Platform:
    """A platform by name. Raises UsageError with the nearest where there is none."""
    return cast(Platform, plugins.load("platforms", name))


def inside() -> bool:
    """Whether this process was started by a platform or by ``spark-submit``."""
    return SUBMITTED in os.environ or "PYSPARK_GATEWAY_PORT" in os.environ


def site(
    on: str | None, *, told: Mapping[str, Model], file: Mapping[str, Model] | None = None
) -> Site | None:
    """The platform to use: ``on``, else the file's, else the study's (``told``), else none.

    Options come from the file, else from the study, else they are the platform's defaults. Within
    a platform the study's own choice is not followed again. Raises UsageError.
    """
    file = file or {}
    if on is None and len(file) > 1:
        raise UsageError(
            f"the platform file describes {', '.join(file)}", mend="choose one with --on NAME"
        )
    name = on or next(iter(file), None) or (None if inside() else next(iter(told), None))
    if name is None:
        return None
    options = file.get(name) or told.get(name) or load(name).Options()
    return Site(name, options)


def worker_checks(spark: SparkSession) -> Iterator[Check]:
    """What a session's Python workers are, asked by a small job."""
    from clinloom.platforms import _probe

    return _probe.workers(spark)


def described(path: str | None) -> tuple[dict[str, Model], dict[str, Any]]:
    """The platforms and storages of a platform file; none without one. Raises StudyError."""
    return study.site(path, rooms=plugins) if path else ({}, {})

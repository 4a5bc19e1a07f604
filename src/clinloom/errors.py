"""One tree of errors. Each says what, where and how to mend it, knows its exit code, and holds no
patient's value: file names, columns, codes and counts only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ClinloomError(Exception):
    """Something that a person has to mend.

    ``message`` says what is wrong, ``where`` the file, key, table or stage, ``mend`` what to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None):
        super().__init__(message)
        self.message, self.where, self.mend = message, where, mend

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        mend = f"\n  → {self.mend}" if self.mend else ""
        return f"{where}{self.message}{mend}"


class UsageError(ClinloomError):
    """The command or call was put wrongly."""

    exit_code = 2


class StudyError(ClinloomError):
    """The study file is invalid; ``faults`` holds every fault, one line each."""

    exit_code = 2

    def __init__(self, message: str, *, faults: Sequence[str] = (), where: str | None = None):
        super().__init__("\n  ".join([message, *faults]), where=where)
        self.faults = tuple(faults)


class SourceError(ClinloomError):
    """A source cannot be read as the study describes it."""


class DataError(ClinloomError):
    """The data cannot answer the study's question (no outcome, a single class, an empty table)."""


class MissingDependency(ClinloomError):
    """An optional library or program is not installed."""


class StoreError(ClinloomError):
    """A table or bundle cannot be written or read."""


class ParityError(ClinloomError):
    """The scorer without Spark and the Spark pipeline disagree: the bundle is refused."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The valid choice that looks most like ``word``, or None."""
    found = difflib.get_close_matches(str(word), [str(choice) for choice in choices], 1, 0.5)
    return found[0] if found else None

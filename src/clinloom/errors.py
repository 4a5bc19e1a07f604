"""One tree of errors. Each says what, where and how to mend it, knows its exit code, and holds no
patient's value: file names, columns, codes and counts only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os.path import commonprefix


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


MOST = 12  # choices that are listed


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that ``word`` was meant to be, or None where none is near.

    Near: one letter lacking, too many, another or swapped with the next, and two of those in a word
    of eight letters or more; capitals are as good as small ones.
    """
    plain = word.casefold()
    folded = [(choice, choice.casefold()) for choice in choices]
    for slips in range(1 + min(2, len(plain) // 4 or 1, len(plain) - 1)):
        for choice, other in folded:
            if _within(plain, other, slips):
                return choice
    return None


def _within(one: str, other: str, slips: int) -> bool:
    """Whether so many slips at most lie between two words (optimal string alignment)."""
    if abs(len(one) - len(other)) > slips:
        return False
    same = len(commonprefix((one, other)))
    one, other = one[same:], other[same:]
    if not slips or not one or not other:
        return len(one) + len(other) <= slips
    swapped = len(one) > 1 and one[:2] == other[1::-1]
    return (
        _within(one[1:], other[1:], slips - 1)
        or _within(one[1:], other, slips - 1)
        or _within(one, other[1:], slips - 1)
        or (swapped and _within(one[2:], other[2:], slips - 1))
    )


def instead(word: str, choices: Iterable[str], *, lead: str = "there are") -> str:
    """How to mend a word that is none of ``choices``: the nearest, else the first of them."""
    listed = list(choices)
    near = nearest(word, listed)
    if near is not None:
        return f"did you mean '{near}'?"
    more = f" and {len(listed) - MOST} more" if len(listed) > MOST else ""
    return f"{lead} {', '.join(listed[:MOST])}{more}" if listed else ""

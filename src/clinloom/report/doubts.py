"""What a reader must know of a source first, in one wording: of a look, a run and its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clinloom.report.words import RULES
from clinloom.tables import ASSUMED_ZONE, CONTESTED, KNOWN_AT_END, Fault

FIELDS = 3  # that are named of a reason
# What the ledger calls times that were not told, and how those events are said.
MOVED = {
    ("timed_by_sample", "timed_by_onset"): "do not tell when they were known, or tell a time before"
    " they happened: they count from when they happened, {mostly}",
    (KNOWN_AT_END,): "tell a day, a month or a year and no hour: they count from its end",
}


def refused(
    name: str, read: int, reasons: Mapping[Fault, int], *, extent: str = ""
) -> Iterator[str]:
    """A line where a source had more refused than read; ``reasons``: how many, by reason and field.

    ``read``: its images where it has any, else its events; ``extent``: of which records.
    """
    count = sum(reasons.values())
    if count > read:
        yield (
            f"sources.{name}: {count:,} of {count + read:,} records{extent} were refused,"
            f" {mostly(reasons)}: does the study fit the data?"
        )


def mostly(reasons: Mapping[Fault, int]) -> str:
    """The commonest reason, with the fields that were at fault most often and what it means."""
    counts: Counter[str] = Counter()
    for (reason, _), count in reasons.items():
        counts[reason] += count
    top = max(sorted(counts), key=lambda reason: counts[reason])
    told = {field: n for (reason, field), n in reasons.items() if reason == top and field}
    fields = sorted(told, key=lambda field: (-told[field], field))[:FIELDS]
    where = f" in {', '.join(fields)}" if fields else ""
    return f"mostly as {top}{where}" + (f" ({RULES[top]})" if top in RULES else "")


def moved(name: str, read: int, ledger: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each way in which most events of a source got another time than was told."""
    found: Counter[str] = Counter()
    for row in ledger:
        if row["source"] == name:
            found[row["action"]] += row["count"]
    for actions, told in MOVED.items():
        some: Counter[Fault] = Counter({(action, None): found[action] for action in actions})
        if 2 * some.total() > read:
            said = told.format(mostly=mostly(some))
            yield f"sources.{name}: most events ({some.total():,}) {said}"


def zoneless(name: str, count: int, *, extent: str = "") -> Iterator[str]:
    """A line where times of a source were read without anybody telling their zone."""
    if count:
        yield (
            f"sources.{name}: {count:,} times{extent} name no zone and the study tells none: taken"
            " as UTC; give the source its zone, such as Europe/Berlin, or UTC where that is so"
        )


def of_ledger(sources: Iterable[str], ledger: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines on records of several patients and on zones of the sources whose ledger this is."""
    ledger = list(ledger)
    if count := sum(row["count"] for row in ledger if row["rule"] == CONTESTED):
        yield (
            f"{count:,} records tell of several patients, more than corrections can be: all were"
            " kept; where a source holds files of several servers, make it a source for each"
        )
    rows = [row for row in ledger if row["rule"] == ASSUMED_ZONE]
    for name in sources:
        yield from zoneless(name, sum(row["count"] for row in rows if row["source"] == name))

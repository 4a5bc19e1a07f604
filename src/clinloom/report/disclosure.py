"""Small counts: what could point at a patient is hidden, and what would give it away with it.

One rule for the whole page. A count below 5 is not shown (of steps and changes, where nobody is
meant, 0 is); nor is the least of the others, where the total is shown and a single hidden part
could be had by subtraction; nor a share of either.
(Hundepool et al., Statistical Disclosure Control, 2012, chapter 4: secondary suppression)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinloom.report.figures import FEW, count

HIDDEN = "hidden"
SMALL = f"<{FEW}"


def small(number: int) -> bool:
    """Whether some are meant, and few."""
    return 0 < number < FEW


def told(number: int | None) -> str:
    """A count of records, or of who is left out; hidden where it is small."""
    return SMALL if number is not None and small(number) else count(number)


def parts(numbers: Sequence[int], *, known: int | None = None) -> list[bool]:
    """Which parts of a total that is shown may be shown.

    None below 5; and of those hidden there are two, and 5 together, or it is all of them.
    ``known``: the part of which the page tells elsewhere, too, and which so hides nothing.
    """
    shown = [number >= FEW for number in numbers]
    while not all(shown):
        left = [(n, at) for at, n in enumerate(numbers) if shown[at] and at != known]
        hidden = [number for number, seen in zip(numbers, shown, strict=True) if not seen]
        if not left or (len(hidden) > 1 and sum(hidden) >= FEW):
            break
        shown[min(left)[1]] = False
    return shown


def refusals(counts: Mapping[str, Mapping[str, int]], read: Mapping[str, int]) -> dict[str, Any]:
    """What sources refused, by source and reason, as it may be shown; ``read``: what they gave.

    Where more was refused than read, the sum is told, and no single part is hidden.
    """
    out: dict[str, Any] = {}
    for source, found in counts.items():
        numbers = list(found.values())
        cells = zip(found.items(), of_source(numbers, read.get(source, 0)), strict=True)
        out[source] = {
            reason: n if seen and n >= FEW else cell(n, False) for (reason, n), seen in cells
        }
    return out


def of_source(numbers: Sequence[int], read: int) -> list[bool]:
    """Which of a source's refusals are not hidden for their sum, which is told where more was
    refused than ``read``."""
    return parts(numbers) if sum(numbers) > read else [number > 0 for number in numbers]


def few_flagged(rate: float | None, rows: int) -> bool:
    """Whether few of the rows are flagged, or are not: then no share of either is shown."""
    if rate is None:
        return False
    flagged = round(rate * rows)
    return small(flagged) or small(rows - flagged)


def cell(number: int, shown: bool) -> str:
    """A part's count."""
    return count(number) if shown else SMALL if number < FEW else HIDDEN


def chain(numbers: Sequence[Sequence[int]]) -> list[bool]:
    """Which of counts that only fall, each of them several at once, may be shown.

    No two that are shown one after the other differ by few. The last one stands elsewhere too, and
    the first says of how many all others are: these stay before those between them.
    """
    *before, last = range(len(numbers))
    kept = [last]
    for at in reversed(before):
        if at == 0 and not _near(numbers[at], numbers[last]):
            while _near(numbers[at], numbers[kept[-1]]):
                kept.pop()
        if not _near(numbers[at], numbers[kept[-1]]):
            kept.append(at)
    return [at in kept and not any(map(small, found)) for at, found in enumerate(numbers)]


def columns(numbers: Sequence[Sequence[int]]) -> list[tuple[bool, ...]]:
    """Which of the several counts of each in a :func:`chain` may be shown.

    Of one that the chain hides, those that are the same in the next ones shown before and after
    it: they are told already.
    """
    shown = chain(numbers)
    seen = [at for at, told in enumerate(shown) if told]
    out = []
    for at, counts in enumerate(numbers):
        before = max((n for n in seen if n <= at), default=None)
        after = min((n for n in seen if n >= at), default=None)
        if before is None or after is None:
            out.append((False,) * len(counts))
            continue
        sides = zip(counts, numbers[before], numbers[after], strict=True)
        out.append(tuple(one == left == right for one, left, right in sides))
    return out


def _near(one: Sequence[int], other: Sequence[int]) -> bool:
    return any(small(a - b) for a, b in zip(one, other, strict=True))


def divided(split: Mapping[str, Mapping[str, int]]) -> tuple[bool, bool]:
    """Of parts with ``rows`` and ``positive``: whether their outcomes, and their sum, are shown.

    All that is known of the parts is at stake: those with the outcome and those without.
    """
    having = [part["positive"] for part in split.values()]
    lacking = [part["rows"] - part["positive"] for part in split.values()]
    together = min(sum(having), sum(lacking)) >= FEW
    return together and min(*having, *lacking, sum(having)) >= FEW, together

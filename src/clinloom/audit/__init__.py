"""The leakage audit: what could make a model look better than it is, judged before it is trained.

A kernel room. Each check is a file with one verb, ``find``; all see the same bounded evidence:
counts over all rows, and a sample of training patients, a row each. What a check needs of every
row, workers count by the kernels that stand beside its verb.
(Kapoor and Narayanan, Patterns 2023, 4(9):100804; Kaufman et al., ACM TKDD 2012, 6(4):15)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from clinloom import hashing, plugins
from clinloom.audit._figures import FOLDS, Flags, Floats, Ints
from clinloom.errors import DataError
from clinloom.study import Allowed

__all__ = [
    "Check",
    "Column",
    "Finding",
    "Evidence",
    "checks",
    "found",
    "looked",
    "refuse",
    "verdict",
]


class Column(Protocol):
    """What is known of a feature: ``clinloom.features.Feature`` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def code(self) -> str:
        """The code that it is made of."""

    @property
    def statistic(self) -> str:
        """What it says of the code."""

    @property
    def modality(self) -> str:
        """records or images."""


@dataclass(frozen=True)
class Finding:
    """One leak: which check found it, of what (a feature, code, table or kind of metadata).

    ``figure``: the number that tells it, in words; ``says``: why it is one; ``mend``: what to do.
    """

    check: str
    of: str
    figure: str
    says: str
    mend: str

    def __str__(self) -> str:
        return f"{self.check}: {self.of}: {self.figure}. {self.says}; {self.mend}"


@dataclass(frozen=True)
class Evidence:
    """What the checks look at; what was not counted is empty, and its check finds nothing.

    The sample: ``values`` (n, f) of ``features``, NaN missing, with ``positive`` (n,) and
    ``subject`` (n,), a row a training patient; ``metadata``: other columns (n,), numbers (NaN
    missing) or names ("" missing). ``untimed``: columns (``vocabulary.leaks.column``) of
    which no time is told, or one and the same before every prediction.

    Counts over all rows: ``straddling``, patients on several sides of a division by its name;
    ``doubled``, patients whose rows stand on both sides by what of them does; ``rows_checked`` and
    ``differing``, rows that the future changes by feature; ``prepared``, how many of a model's
    statistics are not those of its training rows.
    """

    features: Sequence[Column] = ()
    values: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    positive: Flags = field(default_factory=lambda: np.zeros(0, bool))
    subject: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)
    untimed: Collection[str] = ()
    straddling: Mapping[str, int] = field(default_factory=dict)
    doubled: Mapping[str, int] = field(default_factory=dict)
    rows_checked: int = 0
    differing: Mapping[str, int] = field(default_factory=dict)
    prepared: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def fold(self) -> Ints:
        """The audit's own folds of the sample's patients (n,)."""
        return (hashing.words(self.subject, seed=0xA0D17) % np.uint64(FOLDS)).astype(np.int64)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many patients of the sample have the outcome, and how many have not."""
        positive = int(self.positive.sum())
        return positive, len(self.positive) - positive


class Check(Protocol):
    """What a check owes: a file of this room, or another package's module."""

    TITLE: str  # what it looks at
    BLIND: str  # what it cannot see

    def find(self, seen: Evidence) -> Iterator[Finding]:
        """Every leak of its kind."""


def checks() -> dict[str, Check]:
    """The checks by name."""
    return {name: cast(Check, plugins.load("audit", name)) for name in plugins.choices("audit")}


def found(seen: Evidence) -> list[Finding]:
    """Every finding of every check."""
    return [finding for check in checks().values() for finding in check.find(seen)]


def looked() -> list[dict[str, str]]:
    """What each check looks at, and what it cannot see."""
    return [{"check": n, "looks": c.TITLE, "blind": c.BLIND} for n, c in checks().items()]


def verdict(
    findings: Sequence[Finding], allowed: Sequence[Allowed]
) -> tuple[list[Finding], list[dict[str, Any]], list[Allowed]]:
    """What is refused; what is allowed, with the reason; and exceptions that match nothing."""
    refused, excused, used = list[Finding](), list[dict[str, Any]](), set[int]()
    for finding in findings:
        fits = [at for at, one in enumerate(allowed) if _fits(one, finding)]
        used.update(fits)
        if fits:
            excused.append({**asdict(finding), "because": allowed[fits[0]].because})
        else:
            refused.append(finding)
    return refused, excused, [one for at, one in enumerate(allowed) if at not in used]


def _fits(allowed: Allowed, finding: Finding) -> bool:
    pattern = ".*".join(re.escape(part) for part in allowed.of.split("*"))
    return allowed.check == finding.check and re.fullmatch(pattern, finding.of) is not None


def refuse(refused: Iterable[Finding]) -> None:
    """Raise DataError where there is a finding: every one, how to mend it, how to justify it."""
    told = list(refused)
    if not told:
        return
    count = "a leak" if len(told) == 1 else f"{len(told)} leaks"
    first = told[0]
    raise DataError(
        "\n  ".join([f"the leakage audit found {count}:", *map(str, told)]),
        where="audit",
        mend="mend each; or, where it is none, say why in the study: audit: {allow: [{check: "
        f'{first.check}, of: "{first.of}", because: "…"}}]}}',
    )

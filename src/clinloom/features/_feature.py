"""What a feature is, and how it is named: ``measurements|LOINC//8867-4|mean|48h``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from clinloom.study import duration

Span = int | None  # microseconds back from the index time; None: as far as the record goes


@dataclass(frozen=True)
class Feature:
    """One number of a row.

    ``window`` is (start, end) in microseconds before the index time: [index - start, index - end);
    a start of None reaches back as far as the record does, the end is always 0. ``modality`` is
    "records" or "images".
    """

    name: str
    family: str
    code: str
    statistic: str
    window: tuple[int | None, int]
    modality: str

    def __hash__(self) -> int:
        return hash(self.name)

    @classmethod
    def named(cls, name: str, *, modality: str) -> Feature:
        """The feature that has this name. Raises ValueError where the name is in another form."""
        family, _, rest = name.partition("|")
        code, statistic, span = rest.rsplit("|", 2)
        return cls(name, family, code, statistic, (read_span(span), 0), modality)

    def to_dict(self) -> dict[str, Any]:
        """The feature as plain data."""
        return {
            "name": self.name,
            "family": self.family,
            "code": self.code,
            "statistic": self.statistic,
            "window": list(self.window),
            "modality": self.modality,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Feature:
        """The inverse of :meth:`to_dict`."""
        start, end = data["window"]
        return cls(**{**data, "window": (start, end)})


def read_span(window: str) -> Span:
    """How far back a window reaches: ``all``, or a duration."""
    return None if window == "all" else duration(window)


def _windows(value: Any) -> Any:
    """Windows as the study says them; of those that are the same, the first."""
    several = value if isinstance(value, (list, tuple)) else (value,)
    found: dict[Span, str] = {}
    for one in several:
        window = "all" if one is None else "".join(str(one).split())
        span = read_span(window)
        if span is not None and span <= 0:
            raise ValueError("a window is longer than 0")
        found.setdefault(span, window)
    return tuple(found.values())


_PATTERN = r"^(all|\d+(\.\d+)?(us|s|m|h|d|w|y))$"
Windows = Annotated[
    tuple[str, ...],
    BeforeValidator(_windows),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": _PATTERN}}),
]


def listed(
    family: str, codes: Iterable[str], statistics: Sequence[str], windows: Sequence[str]
) -> list[str]:
    """The names of a family's features: by code, then statistic, then window."""
    return [f"{family}|{code}|{s}|{w}" for code in codes for s in statistics for w in windows]


def one_each(
    family: str, codes: Iterable[str], statistics: Sequence[str], windows: Sequence[str]
) -> list[str]:
    """The names of the features of codes that have one number, whatever the moment."""
    telling = [
        s for s in ("last", "first", "mean", "min", "max", "sum", "count") if s in statistics
    ]
    return listed(family, codes, telling[:1], (widest_of(windows),))


def widest_of(windows: Sequence[str]) -> str:
    """The window that holds all others, as the study calls it."""
    spans = {read_span(window): window for window in windows}
    return spans[widest(spans)]


def widest(windows: Iterable[Span]) -> Span:
    """The window that holds all others."""
    spans = list(windows)
    return None if None in spans else max(s for s in spans if s is not None)

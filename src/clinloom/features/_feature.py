"""What a feature is, and how it is named: ``measurements|LOINC//8867-4|mean|48h``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from clinloom.study import MICROSECONDS, duration, written

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


def span_name(span: Span) -> str:
    """A window as clinicians write it: hours up to three days, then days."""
    if span is None:
        return "all"
    hours, rest = divmod(span, MICROSECONDS["h"])
    return f"{hours}h" if hours and not rest and hours <= 72 else written(span)


def read_span(text: Any) -> Span:
    """The inverse of :func:`span_name`; also reads every duration of a study."""
    if text is None or text == "all":
        return None
    span = duration(text)
    if span <= 0:
        raise ValueError("a window is longer than 0")
    return span


def _spans(value: Any) -> Any:
    several = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict.fromkeys(read_span(one) for one in several))


_PATTERN = r"^(all|\d+(\.\d+)?(us|s|m|h|d|w|y))$"
Windows = Annotated[
    tuple[int | None, ...],
    BeforeValidator(_spans),
    PlainSerializer(lambda spans: [span_name(span) for span in spans]),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": _PATTERN}}),
]


def listed(
    family: str, codes: Iterable[str], statistics: Sequence[str], windows: Sequence[Span]
) -> list[str]:
    """The names of a family's features: by code, then statistic, then window."""
    spans = [span_name(window) for window in windows]
    return [f"{family}|{code}|{s}|{w}" for code in codes for s in statistics for w in spans]


def one_each(
    family: str, codes: Iterable[str], statistics: Sequence[str], windows: Sequence[Span]
) -> list[str]:
    """The names of the features of codes that have one number, whatever the moment."""
    telling = [s for s in ("last", "mean", "min", "max", "count") if s in statistics]
    return listed(family, codes, telling[:1], (widest(windows),))


def widest(windows: Iterable[Span]) -> Span:
    """The window that holds all others."""
    spans = list(windows)
    return None if None in spans else max(s for s in spans if s is not None)

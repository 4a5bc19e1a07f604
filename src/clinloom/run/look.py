"""A look at the heads of the sources, without Spark: what they hold, and whether the study fits.

A few files of each kind of name are read by the source's own kernel, in this process.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from clinloom import events as ev
from clinloom import plugins
from clinloom.errors import ClinloomError, instead, nearest
from clinloom.files import Unit
from clinloom.report import doubts
from clinloom.report.figures import FEW
from clinloom.sources import framed, load
from clinloom.study import SourceModel, Study
from clinloom.tables import ASSUMED_ZONE, DEATH, LEDGER, PARCEL_REJECTED, Fault, conform, faults

EACH = 20  # units of each kind of name, such as Observation.*.ndjson
ENOUGH = 16 << 20  # bytes of a kind, after which no more of it is read
MOST = 128 << 20  # bytes of a source that are read at most, but for its first unit
LISTED = 10_000  # units that are listed at most
NEAR = 5  # codes that a message names at most
UNITS = 4  # units of measurement that are told of a code


@dataclass
class Seen:
    """What the head of a source holds.

    ``zoneless``: how many times of which nobody tells the zone;
    ``codes``: by code, how many events, how many of them with a number, and their units;
    ``refused``: how many records, by reason and field; ``whole``: whether the head is all there is.
    """

    source: str
    read: int = 0
    whole: bool = True
    events: int = 0
    images: int = 0
    zoneless: int = 0
    codes: dict[str, list[Any]] = field(default_factory=dict)
    refused: Counter[Fault] = field(default_factory=Counter)

    def table(self) -> list[dict[str, Any]]:
        """A row a code, the commonest first."""
        rows = sorted(self.codes.items(), key=lambda item: (-item[1][0], item[0]))
        return [
            {"code": code, "events": n, "numbers": numbers, "units": sorted(units)[:UNITS]}
            for code, (n, numbers, units) in rows
        ]

    @property
    def extent(self) -> str:
        """How much was looked at, in words."""
        files = f"{self.read:,} file{'s' if self.read != 1 else ''}"
        return f"{files}, which is all" if self.whole else f"{files} of more"

    def add(self, parcel: Mapping[str, pa.Table]) -> None:
        """Count a parcel of the source's kernel."""
        if "rejected" in parcel:
            self.refused += faults(conform(parcel["rejected"], PARCEL_REJECTED))
        self.images += parcel["images"].num_rows if "images" in parcel else 0
        for row in parcel.get("ledger", LEDGER.empty).to_pylist():
            self.zoneless += row["count"] if row["rule"] == ASSUMED_ZONE else 0
        if "events" not in parcel:
            return
        events = parcel["events"]
        self.events += events.num_rows
        plain = pa.table(
            {
                "code": events.column("code").cast(pa.string()),
                "unit": events.column("unit").cast(pa.string()),
                "number": pc.is_valid(events.column("numeric_value")).cast(pa.int64()),
            }
        )
        found = plain.group_by(["code", "unit"]).aggregate([("number", "count"), ("number", "sum")])
        for row in found.to_pylist():
            counts = self.codes.setdefault(row["code"], [0, 0, set()])
            counts[0] += row["number_count"]
            counts[1] += row["number_sum"]
            counts[2] |= {row["unit"]} - {None}


def look(study: Study) -> dict[str, Seen]:
    """What the head of each source holds; one that Spark itself reads is passed over.

    Raises SourceError where a source cannot be opened or lacks a column that the study names.
    """
    return {
        name: _seen(name, options)
        for name, options in study.sources.items()
        if framed(options) is None
    }


def _seen(name: str, options: SourceModel) -> Seen:
    seen = Seen(name)
    kind = load(options.type)
    for unit in _head(kind.plan(options, f"sources.{name}"), seen):
        for parcel in kind.read([unit], options, name):
            seen.add(parcel)
    return seen


def _head(units: Iterator[Unit], seen: Seen) -> Iterator[Unit]:
    """A few units of each kind of name."""
    units_of: Counter[str] = Counter()
    bytes_of: Counter[str] = Counter()
    for unit in islice(units, LISTED):
        kind = re.sub(r"\d+", "#", unit.name.rsplit("/", 1)[-1])
        much = units_of[kind] >= EACH or bytes_of[kind] >= ENOUGH
        if much or (seen.read and bytes_of.total() + unit.size > MOST):
            seen.whole = False
            continue
        units_of[kind] += 1
        bytes_of[kind] += unit.size
        seen.read += 1
        yield unit
    seen.whole = seen.whole and next(units, None) is None


def unmatched(study: Study, seen: Mapping[str, Seen]) -> list[str]:
    """A line for each pattern of codes in the study that fits nothing in the heads.

    Of a family of features: nothing that the family reads.
    """
    held: Counter[str] = Counter()
    numbered: Counter[str] = Counter()
    for one in seen.values():
        for code, (events, numbers, _) in one.codes.items():
            held[code] += events
            numbered[code] += numbers
    codes = sorted(held, key=lambda code: (-held[code], code))
    told = study.resolved()
    lines = []
    for where, patterns in _patterns({"cohort": told["cohort"], "features": told["features"]}):
        for pattern in patterns:
            asked = pattern.partition(ev.ANSWER)[0]  # answers join their codes in cleaning
            fitting = [codes[at] for at in np.flatnonzero(ev.matching(codes, [asked]))]
            if fitting:
                fault = _unread(where, pattern, fitting, numbered)
            elif _named_by_default(where, pattern):
                continue
            else:
                fault = f"no event of those looked at is '{pattern}'{_instead(asked, codes)}"
            lines += [f"{where}: {fault}"] if fault else []
    return lines


def named(study: Study | None, patterns: Sequence[str]) -> str:
    """The codes that were asked for and, for each that nobody has, the nearest that there are.

    What there is, the heads of the sources tell; a code of few events is not named.
    """
    if study is None or not patterns:
        return ""
    rest = f" and {len(patterns) - NEAR} more" if len(patterns) > NEAR else ""
    told = [f"asked for: {', '.join(patterns[:NEAR])}{rest}"]
    held: Counter[str] = Counter()
    try:
        for one in look(study).values():
            held.update({code: events for code, (events, _, _) in one.codes.items()})
    except ClinloomError:  # what was read before is no more there: the first fault is the one told
        return f" ({told[0]})"
    common = [code for code, events in held.most_common() if events >= FEW]
    for pattern in patterns[:NEAR]:
        code = pattern.partition(ev.ANSWER)[0]
        if common and not ev.matching(list(held), [code]).any():
            near = (f"{one} with {held[one]:,} events" for one in _near(code, common))
            told.append(f"no event of those looked at is '{pattern}', but {', '.join(near)}")
    return f" ({'; '.join(told)})"


def _near(code: str, codes: Sequence[str]) -> list[str]:
    """The code that was meant, or else the first, those of its own vocabulary before all."""
    meant = nearest(code, codes)
    own = code.partition("//")[0]
    ordered = sorted(codes, key=lambda one: one.partition("//")[0] != own)
    return [meant] if meant is not None else ordered[:NEAR]


def _instead(pattern: str, codes: Sequence[str]) -> str:
    """What the pattern may have meant: of a pattern of many codes, a vocabulary."""
    vocabularies = dict.fromkeys(code.partition("//")[0] + "//*" for code in codes if "//" in code)
    mend = instead(pattern, vocabularies if "*" in pattern else codes)
    return f"; {mend}" if mend else ""


def _unread(where: str, pattern: str, fitting: Sequence[str], numbered: Mapping[str, int]) -> str:
    """Why a family of features reads none of the codes that a pattern fits; empty where it does."""
    room, _, name = where.removesuffix(".codes").partition(".")
    if room != "features":
        return ""
    family = plugins.load("features", name)
    others = ev.matching(fitting, family.EXCLUDED)
    if np.all(others):
        return (
            f"'{pattern}' fits only codes that are left to other families:"
            f" {', '.join(family.EXCLUDED)}"
        )
    own = [code for code, other in zip(fitting, others, strict=True) if not other]
    if family.NUMERIC and not any(numbered[code] for code in own):
        return (
            f"'{pattern}' fits codes of which no event of those looked at has a number, and"
            f" `{name}` reads numbers alone"
        )
    return ""


CODES = ("at", "codes")
OBSERVED = ("cohort.observed.starts", "cohort.observed.ends")


def _patterns(part: Any, where: str = "") -> Iterator[tuple[str, list[str]]]:
    """The patterns of codes in a part of a resolved study, each with its key."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            place = f"{where}.{key}" if where else key
            if (key in CODES or place in OBSERVED) and isinstance(value, (list, str)):
                yield place, [value] if isinstance(value, str) else value
            else:
                yield from _patterns(value, place)
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _patterns(value, f"{where}.{number}")


def _named_by_default(where: str, pattern: str) -> bool:
    """Whether nobody wrote it: the default of what ends follow-up."""
    return where == "cohort.time_at_risk.competing.codes" and pattern == DEATH


def notes(seen: Mapping[str, Seen]) -> Iterator[str]:
    """A line for each source whose head gave nothing, less than it refused, or no zone of times."""
    extent = " of those looked at"
    for name, one in seen.items():
        if not one.events and not one.refused:
            yield f"sources.{name}: no event in what was looked at"
        yield from doubts.refused(name, one.images or one.events, one.refused, extent=extent)
        yield from doubts.zoneless(name, one.zoneless, extent=extent)


def zoneless(study: Study) -> Iterator[str]:
    """A line for each source of which it is plain before it is read that nobody tells the zone."""
    for name, options in study.sources.items():
        if _local(options):
            yield (
                f"sources.{name}: its `format` of times has no zone (%z), and `zone` is not told:"
                " they will be taken as UTC"
            )


def _local(part: Any) -> bool:
    """Whether some time in a source's options is declared without a zone."""
    if isinstance(part, BaseModel):
        inner = any(_local(getattr(part, name)) for name in type(part).model_fields)
        return inner or bool(getattr(part, "local", False))
    return isinstance(part, tuple) and any(map(_local, part))

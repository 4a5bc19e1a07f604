"""Cleaning: each rule family is a file; each refuses, converts or removes, and each is counted.

A kernel room: functions of whole patients' events, without Spark, files or state.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

import pyarrow as pa

from clinloom import plugins
from clinloom.clean._canonical import Canonical, canonical, settled, unconverted
from clinloom.clean._sheet import Sheet
from clinloom.study import RuleModel
from clinloom.tables import UNITS

__all__ = ["Rule", "canonical", "clean", "rules", "unconverted", "units_of"]


class Rule(Protocol):
    """What a rule family owes: a file of this room, or another package's module."""

    REQUIRES: str | None
    ORDER: int  # families run in ascending order

    @property
    def Options(self) -> type[RuleModel]:
        """What a study may set."""

    def apply(self, sheet: Sheet, options: Any) -> None:
        """Convert, refuse or remove events of the sheet, and note each."""


@cache
def rules() -> tuple[tuple[str, Rule], ...]:
    """Every rule family, in the order in which they run."""
    loaded = [(name, cast(Rule, plugins.load("clean", name))) for name in plugins.choices("clean")]
    return tuple(sorted(loaded, key=lambda item: (item[1].ORDER, item[0])))


@cache
def _default(name: str) -> RuleModel:
    return dict(rules())[name].Options()


def units_of(
    counts: pa.Table, options: Mapping[str, RuleModel], learned: Canonical | None = None
) -> pa.Table:
    """UNITS: what cleaning is to make of each unit of each code.

    ``counts``: how many numbers (``events``) each ``code`` has in each ``unit`` ("": in none), in
    all of the data; ``learned``: the units of codes as other data told them, none: as these do.
    """
    chosen: Any = options.get("units") or _default("units")
    return settled(counts, chosen, learned) if chosen.enabled else UNITS.empty


def clean(
    acquired: pa.Table,
    options: Mapping[str, RuleModel],
    refused: pa.Table | None = None,
    learned: Canonical | None = None,
    *,
    ledger: bool = True,
) -> dict[str, pa.Table]:
    """Clean the events of whole patients.

    ``acquired`` (ACQUIRED columns) is sorted by subject_id, time (nulls first), code. ``options``
    maps a rule's name to its Options; a rule that is not named runs with its defaults. ``refused``
    (REFUSED): what the sources refused of these patients, which may withdraw what they told.
    ``learned``: :func:`canonical` units of codes that no vocabulary knows; without them, numbers of
    such codes stay as they are. ``ledger``: whether it is told.

    Answers ``events`` (EVENTS), ``rejected`` (REJECTED) and ``ledger`` (LEDGER, counts that add up
    over chunks of patients). Events are totally ordered: by subject_id, time and code; then what
    has no number, by text_value and record_id; then numbers, of which the last counts: those of the
    record that tells more codes at that moment later, then by record_id. String columns that come
    dictionary-encoded stay so.
    """
    sheet = Sheet(acquired, refused, learned)
    if sheet.rows:
        for name, rule in rules():
            chosen = options.get(name) or _default(name)
            if chosen.enabled:
                rule.apply(sheet, chosen)
    return sheet.finished(ledger=ledger)

"""What sources call their codes: for people who read a report, never for what is computed.

A display is text that somebody may have typed, and so may name a patient. Only what as many
patients as ``WITNESSES`` share is a name of the code; until it is settled, each counts once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from clinloom.tables import CALLED, DISPLAYS

WITNESSES = 10  # patients of whom a display must be told
LONGEST = 80  # letters of a display
EACH = 4  # displays of a code that are counted
BOOL = pa.bool_()
MOST = 50_000  # codes of which a reader looks for a display


class Displays:
    """The displays of one reader; ``settled``: codes of which no more is asked."""

    def __init__(self) -> None:
        self.settled: set[str] = set()
        self._seen: dict[str, dict[str, set[str]]] = {}

    def note(self, code: str, display: str | None, patient: str) -> None:
        """A record of this patient calls the code so."""
        if code in self.settled or not (said := cut(display)):
            return
        if code not in self._seen and len(self._seen) >= MOST:
            return
        found = self._seen.setdefault(code, {})
        if said not in found and len(found) >= EACH:
            return
        found.setdefault(said, set()).add(patient)
        if len(found[said]) >= WITNESSES:
            self.settled.add(code)

    def take(self, code: pa.DictionaryArray, display: pa.Array, patient: pa.Array) -> None:
        """What rows (n,) of a table call their codes."""
        rows = pa.table({"code": code, "display": display, "patient": patient})
        fresh = pa.array([name not in self.settled for name in code.dictionary.to_pylist()], BOOL)
        rows = rows.filter(fresh.take(code.indices))
        plain = rows.cast(pa.schema([(name, pa.string()) for name in rows.column_names]))
        once = plain.group_by(plain.column_names, use_threads=False).aggregate([])
        for row in once.to_pylist():
            if None not in row.values():
                self.note(**row)

    def tell(self, code: str, display: str) -> None:
        """The study itself calls the code so."""
        self._seen[code] = {cut(display): {str(n) for n in range(WITNESSES)}}
        self.settled.add(code)

    def rows(self, source: str) -> list[dict[str, Any]]:
        """As rows of the ledger on their way to :func:`chosen`."""
        told = {"source": source, "rule": CALLED}
        return [
            {**told, "code": code, "action": display, "count": len(patients)}
            for code, found in sorted(self._seen.items())
            for display, patients in sorted(found.items())
        ]


def cut(display: str | None) -> str:
    """The display on one line, no longer than LONGEST; empty where there is none."""
    said = " ".join((display or "").split())
    return said if len(said) <= LONGEST else said[: LONGEST - 1].rstrip() + "…"


def chosen(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """DISPLAYS of the ledger's rows: of each code the commonest, then the shortest display."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        found = counts.setdefault(row["code"], {})
        found[row["action"]] = found.get(row["action"], 0) + row["count"]
    best = {code: min((-n, len(d), d) for d, n in found.items()) for code, found in counts.items()}
    return DISPLAYS.rows(
        {"code": code, "display": display}
        for code, (less, _, display) in sorted(best.items())
        if -less >= WITNESSES
    )

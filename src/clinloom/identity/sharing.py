"""What a run says of its sources' identities: who shares patients with whom, and who cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.tables import LEDGER

SHOWN = 3  # systems that a note names
UNLINKED = "identifier_system"  # the ledger's rule that counts identifiers that link nobody
SERVER = "reference_server"  # the ledger's rule that counts references by the server they name


def apart(systems: Mapping[str, Set[str]], ledger: pa.Table = LEDGER.empty) -> dict[str, str]:
    """A line, by its name, for each source that can have no patient in common with another.

    ``systems``: of each source, those of the identifiers that it tells; of a single source there is
    nothing to say. ``ledger``: what sources counted, with the systems that the study does not want.
    """
    lines = {}
    unwanted = ledger.filter(pc.equal(ledger.column("rule"), UNLINKED))
    left = [(row["source"], row["code"]) for row in unwanted.to_pylist() if row["code"]]
    for name, told in systems.items():
        others = {n: found for n, found in systems.items() if n != name}
        if not others or any(told & found for found in others.values()):
            continue
        named = {s for found in others.values() for s in found if not s.startswith("#")}
        known = sorted(named | {system for source, system in left if source != name})
        hint = f" ({', '.join(known[:SHOWN])}{' …' if known[SHOWN:] else ''})" if known else ""
        lines[name] = (
            f"sources.{name}: no other source knows its patients, for it shares no system of"
            f" identifiers with one; where it does, give both the same `identifiers`{hint}"
        )
    return lines


def mingled(ledger: pa.Table) -> Iterator[str]:
    """A line for each source whose references name several servers, all taken as its own."""
    named = ledger.filter(pc.equal(ledger.column("rule"), SERVER))
    found = named.group_by("source").aggregate([("code", "count_distinct")])
    for row in found.to_pylist():
        if row["code_count_distinct"] > 1:
            yield (
                f"sources.{row['source']}: references name {row['code_count_distinct']:,} servers,"
                " and a Patient/<id> was taken as the same on all; `server` tells which is its own"
            )

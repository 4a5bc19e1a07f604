"""What a run says of its sources' identities: who shares patients with whom, and who cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import pyarrow as pa
import pyarrow.compute as pc

SHOWN = 3  # systems that a note names
SERVER = "reference_server"  # the ledger's rule that counts references by the server they name


def apart(systems: Mapping[str, Set[str]]) -> dict[str, str]:
    """A line, by its name, for each source that can have no patient in common with another.

    ``systems``: of each source, those of the identifiers that it tells; of a single source there is
    nothing to say.
    """
    lines = {}
    for name, told in systems.items():
        others = {n: found for n, found in systems.items() if n != name}
        if not others or any(told & found for found in others.values()):
            continue
        known = sorted({s for found in others.values() for s in found if not s.startswith("#")})
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

"""Small tables that add up, whatever the parts: the ledger, counts, the cohort's flow."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.tables import COUNTS, EXTENT, FLOW, LEDGER, VOCABULARY, Table


def totals(parts: Sequence[pa.Table], table: Table, *, by: Sequence[str]) -> pa.Table:
    """The parts with each combination of ``by`` once, in its order, all other columns added up."""
    columns = {f.name: f.type for f in table.arrow}
    plain = [pa.table({n: p.column(n).cast(t) for n, t in columns.items()}) for p in parts]
    if not plain:
        return table.empty
    others = [name for name in columns if name not in by]
    found = pa.concat_tables(plain).group_by(list(by)).aggregate([(n, "sum") for n in others])
    found = found.rename_columns([*by, *others] if found.column_names[0] in by else [*others, *by])
    made = found.select(table.arrow.names).cast(table.arrow)
    return made.sort_by([(name, "ascending") for name in by])


def summed(parts: Sequence[pa.Table]) -> pa.Table:
    """A ledger with each (source, code, rule, action) once."""
    return totals(parts, LEDGER, by=["source", "code", "rule", "action"])


def added(parts: Sequence[pa.Table]) -> pa.Table:
    """COUNTS with each (table, source, stage, reason) once."""
    return totals(parts, COUNTS, by=["table", "source", "stage", "reason"])


def flowed(parts: Sequence[pa.Table]) -> pa.Table:
    """FLOW with each step once."""
    return totals(parts, FLOW, by=["step", "name"])


def voiced(parts: Sequence[pa.Table]) -> pa.Table:
    """VOCABULARY with each family's code once."""
    return totals(parts, VOCABULARY, by=["family", "code"])


def latest(parts: Sequence[pa.Table]) -> pa.Table:
    """EXTENT over all parts."""
    return EXTENT.rows([{"last": pc.max(pa.concat_tables(parts).column("last")).as_py()}])


def counted(name: str, rows: pa.Table) -> pa.Table:
    """COUNTS of a table's rows, by source, and of refusals also by stage and reason."""
    by = [c for c in ("source", "stage", "reason") if c in rows.column_names]
    if not by:
        return COUNTS.rows([{"table": name, "rows": rows.num_rows}])
    plain = pa.table({c: _text(rows.column(c)) for c in by})
    found = plain.group_by(by).aggregate([([], "count_all")])
    cells = {c: found.column(c) for c in by}
    made = {f.name: cells.get(f.name, pa.nulls(found.num_rows, f.type)) for f in COUNTS.arrow}
    made["table"] = pa.repeat(pa.scalar(name), found.num_rows)
    made["rows"] = pc.cast(found.column("count_all"), pa.int64())
    return pa.table(made).cast(COUNTS.arrow)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())

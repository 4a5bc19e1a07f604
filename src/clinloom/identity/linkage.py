"""Subjects whose records contradict each other: perhaps two patients under one name."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import DAY
from clinloom.tables import BIRTH, LEDGER, LINKAGE

SEX = r"(?i)^(?:GENDER|SEX)//(?P<word>.*)$"
WORDS = {"m": "male", "male": "male", "f": "female", "female": "female"}


def contradictions(events: pa.Table) -> pa.Table:
    """What contradicts itself (LINKAGE) in the events of whole patients.

    Births a day or more apart (a day may be told in any zone), and both sexes; a sex that is
    unknown contradicts nothing. Each distinct code is looked at once, then the rows of births and
    sexes alone.
    """
    code = events.column("code")
    if isinstance(code, pa.ChunkedArray):
        code = code.combine_chunks()
    if not isinstance(code, pa.DictionaryArray):
        code = code.dictionary_encode()
    codes = code.dictionary.cast(pa.string())
    facts = pa.table([events.column("subject_id"), events.column("source")], ["subject", "source"])

    born = _rows(code, pc.equal(codes, BIRTH))
    time = events.column("time").take(born).cast(pa.int64())
    births = facts.take(born).append_column("value", time).drop_null()
    births = births.group_by("subject").aggregate(
        [("value", "min_max"), ("value", "count_distinct"), ("source", "count_distinct")]
    )
    span = pc.struct_field(births.column("value_min_max"), "max")
    span = pc.subtract(span, pc.struct_field(births.column("value_min_max"), "min"))
    births = births.filter(pc.greater_equal(span, DAY))

    words = pc.utf8_lower(pc.struct_field(pc.extract_regex(codes, SEX), "word"))
    plain = pa.array([WORDS.get(word) for word in words.to_pylist()], pa.string())
    sexed = _rows(code, pc.is_valid(plain))
    told = plain.take(code.indices.take(sexed))
    sexes = facts.take(sexed).append_column("value", told)
    sexes = sexes.group_by("subject").aggregate(
        [("value", "count_distinct"), ("source", "count_distinct")]
    )
    sexes = sexes.filter(pc.greater(sexes.column("value_count_distinct"), 1))
    made = pa.concat_tables([_shaped(births, "birth"), _shaped(sexes, "sex")])
    return made.sort_by([("subject_id", "ascending"), ("fact", "ascending")])


def counted(linkage: pa.Table) -> pa.Table:
    """How many subjects contradict themselves, by fact, for the ledger (LEDGER)."""
    found = linkage.column("fact").value_counts().to_pylist()
    return LEDGER.rows(
        {"rule": f"contradictory_{each['values']}", "action": "flagged", "count": each["counts"]}
        for each in found
    )


def _rows(code: pa.DictionaryArray, wanted: pa.Array) -> pa.Array:
    """Where the rows with one of the wanted codes are."""
    if not pc.any(wanted).as_py():
        return pa.array([], pa.uint64())
    return pc.indices_nonzero(pc.fill_null(wanted.take(code.indices), False))


def _shaped(found: pa.Table, fact: str) -> pa.Table:
    columns = [
        found.column("subject"),
        pa.repeat(pa.scalar(fact), found.num_rows),
        found.column("value_count_distinct"),
        found.column("source_count_distinct"),
    ]
    return pa.table(columns, schema=LINKAGE.arrow)

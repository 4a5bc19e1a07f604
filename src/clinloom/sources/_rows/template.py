"""Codes made from a row's cells: ``SITE//{localization}``, ``GRADE//{grade:number}``.

Text stays as it is, for 250 and 250.0 are two codes of ICD-9. Where a column holds numbers, which
one file writes as 1 and another, for want of some, as 1.0, ``:number`` writes each in one way.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.sources._parcel import word
from clinloom.sources._rows.cells import numbers
from clinloom.tables import WORD

NUMBER = "number"


def columns_of(template: str) -> list[str]:
    """The columns that a template names. Raises ValueError where its braces do not fit."""
    parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    if any(form not in ("", NUMBER) or conversion for *_, form, conversion in parts):
        raise ValueError("in a code a column stands as {grade}, or {grade:number}")
    names = [str(name) for _, name, *_ in parts]
    if any(not name or set(name) & set("[]") for name in names):
        raise ValueError("a code names columns in braces, as SITE//{localization}")
    return list(dict.fromkeys(names))


def filled(template: str, cells: Mapping[str, pa.DictionaryArray], rows: int) -> pa.Array:
    """The template with each row's cells; null where one of them is."""
    parts = list(string.Formatter().parse(template))
    named = columns_of(template)
    if not named:
        return word("".join(literal for literal, *_ in parts), rows)
    if len(named) == 1:  # once for each distinct cell
        coded = cells[named[0]]
        return pa.DictionaryArray.from_arrays(coded.indices, _joined(parts, cells, distinct=True))
    return _joined(parts, cells, distinct=False).dictionary_encode().cast(WORD)


def _joined(
    parts: Sequence[tuple[str, str | None, str | None, str | None]],
    cells: Mapping[str, pa.DictionaryArray],
    *,
    distinct: bool,
) -> pa.Array:
    pieces: list[str | pa.Array] = []
    for literal, name, form, _ in parts:
        pieces.append(literal)
        if name is not None:
            cell = cells[name]
            written = numbers(cell.dictionary) if form == NUMBER else cell.dictionary
            pieces.append(written if distinct else written.take(cell.indices))
    return pc.binary_join_element_wise(*pieces, "")

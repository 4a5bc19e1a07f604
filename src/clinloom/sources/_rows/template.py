"""Codes made from a row's cells: ``SITE//{localization}``."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from clinloom.sources._parcel import WORD, word


def columns_of(template: str) -> list[str]:
    """The columns that a template names. Raises ValueError where its braces do not fit."""
    names = [name for _, name, *_ in string.Formatter().parse(template) if name is not None]
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
    for literal, name, *_ in parts:
        pieces.append(literal)
        if name is not None:
            cell = cells[name]
            pieces.append(cell.dictionary if distinct else cell.dictionary.take(cell.indices))
    return pc.binary_join_element_wise(*pieces, "")

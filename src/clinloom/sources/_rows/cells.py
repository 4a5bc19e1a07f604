"""Cells as values: a number where the text is one, else the text; empty where none is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NO_NUMBER = pa.array(["nan", "-nan", "+nan"])


def measured(column: pa.Array, missing: Sequence[str] = ()) -> tuple[pa.Array, pa.Array]:
    """``numeric_value`` and ``text_value`` of a column of any type.

    A null, an empty text, NaN and the tokens of ``missing`` (texts, or numbers by their value)
    give no number and the text ""; a text that is no finite number is kept as text.
    """
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    numbers, texts = _distinct(column.dictionary, missing)
    number, text = numbers.take(column.indices), texts.take(column.indices)
    if column.null_count:
        text = pc.if_else(pc.is_null(column.indices), "", text)
    return number, text


def texts(column: pa.Array, missing: Sequence[str] = ()) -> pa.Array:
    """``text_value`` of a column that holds texts, even where they look like numbers."""
    coded = words(column)
    absent = pc.is_in(coded.dictionary, pa.array(missing, pa.string()))
    values = pc.if_else(absent, "", coded.dictionary)
    return pc.fill_null(values.take(coded.indices), "")


def words(column: pa.Array) -> pa.DictionaryArray:
    """The column as a dictionary of texts without outer blanks; empty ones are null.

    Whole numbers that a null made floating (identifiers in Parquet) lose their ``.0``.
    """
    if not pa.types.is_dictionary(column.type):
        if pa.types.is_floating(column.type):
            column = _whole(column)
        column = column.cast(pa.string()).dictionary_encode()
    values = pc.utf8_trim_whitespace(column.dictionary.cast(pa.string()))
    distinct = values.dictionary_encode()
    blank = pc.equal(distinct.dictionary, "")
    indices = pc.if_else(blank.take(distinct.indices), None, distinct.indices)
    return pa.DictionaryArray.from_arrays(indices.take(column.indices), distinct.dictionary)


def equals(column: pa.Array, wanted: str) -> np.ndarray:
    """Which rows hold ``wanted``, as text or as the same number."""
    coded = words(column)
    same = pc.equal(coded.dictionary, wanted)
    number = _float(wanted)
    if number is not None:
        numbers, _ = measured(coded.dictionary)
        same = pc.or_(same, pc.equal(numbers, number).fill_null(False))
    fits: np.ndarray = same.take(coded.indices).fill_null(False).to_numpy(zero_copy_only=False)
    return fits


def _whole(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _distinct(values: pa.Array, missing: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """``measured`` of distinct values."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    written = pc.utf8_trim_whitespace(values.cast(pa.string()))
    number = _numbers(written)
    absent = pc.is_in(written, pa.array(["", *missing], pa.string()))
    absent = pc.or_(absent, pc.is_in(pc.utf8_lower(written), NO_NUMBER))
    sentinels = [found for found in map(_float, missing) if found is not None]
    if sentinels:
        absent = pc.or_(absent, pc.is_in(number, pa.array(sentinels, pa.float64())))
    finite = pc.and_(pc.is_finite(number).fill_null(False), pc.invert(absent))
    nothing = pa.scalar(None, pa.string())
    return (
        pc.if_else(finite, number, pa.scalar(None, pa.float64())),
        pc.if_else(absent, "", pc.if_else(finite, nothing, written)),
    )


def _numbers(written: pa.Array) -> pa.Array:
    try:
        return written.cast(pa.float64())
    except pa.ArrowInvalid:
        pass
    like = pc.match_substring_regex(written, NUMBER)
    plain = pc.if_else(like, written, pa.scalar(None, pa.string()))
    return pc.replace_substring_regex(plain, r"^\+", "").cast(pa.float64())


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def tokens(values: Iterable[object]) -> tuple[str, ...]:
    """Missing-value tokens as texts, however the study wrote them."""
    return tuple(str(value) for value in values)

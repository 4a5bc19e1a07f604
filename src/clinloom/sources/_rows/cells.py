"""Cells as values: a number where the text is one, else the text; empty where none is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
ANSWERS = (("true", "yes", "y", "t", "1", "1.0"), ("false", "no", "n", "f", "0", "0.0"))
NO_NUMBER = pa.array(["nan", "-nan", "+nan"])
COMPARED = r"^(?P<mark><=|>=|<|>|≤|≥)\s*(?P<rest>\S.*)$"
LIKE = r"^[<>=~≤≥]*\s*[+-]?[0-9][0-9.,' ]*$"  # of digits alone, and yet no number


class Measured(NamedTuple):
    """``numeric_value`` and ``text_value``; ``like``: which texts look like numbers, if any do."""

    number: pa.Array
    text: pa.Array
    like: pa.Array | None


def measured(column: pa.Array, missing: Sequence[str] = (), decimal: str = ".") -> Measured:
    """What the cells of a column of any type say, ``decimal`` being their decimal mark.

    A null, an empty text, NaN and the tokens of ``missing`` (texts, or numbers by their value)
    give no number and the text ""; a text that is no finite number is kept as text. One with a
    comparator, as "<0.1", is a number and says so in its text.
    """
    if not pa.types.is_dictionary(column.type):
        column = encoded(column)
    numbers, texts, like = _distinct(column.dictionary, missing, decimal)
    number, text = numbers.take(column.indices), texts.take(column.indices)
    if column.null_count:
        text = pc.if_else(pc.is_null(column.indices), "", text)
    some = pc.any(like).as_py()
    return Measured(number, text, like.take(column.indices).fill_null(False) if some else None)


def encoded(column: pa.Array) -> pa.DictionaryArray:
    """The column as a dictionary; numbers of 16 bits, which not every Arrow codes, as of 32."""
    wide = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    return wide.dictionary_encode()


def texts(column: pa.Array, missing: Sequence[str] = ()) -> pa.Array:
    """``text_value`` of a column that holds texts, even where they look like numbers."""
    coded = words(column)
    absent = pc.is_in(coded.dictionary, pa.array(missing, pa.string()))
    values = pc.if_else(absent, "", coded.dictionary)
    return pc.fill_null(values.take(coded.indices), "")


def empty(column: pa.Array) -> pa.Array | None:
    """Which cells hold nothing: null, blank, or the NaN by which some exports write null.

    None where all hold something.
    """
    if not pa.types.is_dictionary(column.type):
        column = encoded(column)
    values = column.dictionary
    if pa.types.is_floating(values.type):
        blank = pc.is_nan(values)
    else:
        blank = pc.equal(pc.utf8_trim_whitespace(values.cast(pa.string())), "")
    if not column.null_count and not pc.any(blank).as_py():
        return None
    return pc.fill_null(blank.take(column.indices), True)


def words(column: pa.Array) -> pa.DictionaryArray:
    """The column as a dictionary of texts without outer blanks; empty ones are null.

    Of a column of numbers (Parquet) each is written in one way: what a null made floating loses its
    ``.0``, and NaN is a null.
    """
    if not pa.types.is_dictionary(column.type):
        if pa.types.is_floating(column.type):
            column = _whole(pc.if_else(pc.is_nan(column), None, column))
        written = column.cast(pa.string())
        if pa.types.is_decimal(column.type):
            written = numbers(written)
        column = written.dictionary_encode()
    values = pc.utf8_trim_whitespace(column.dictionary.cast(pa.string()))
    distinct = values.dictionary_encode()
    blank = pc.equal(distinct.dictionary, "")
    indices = pc.if_else(blank.take(distinct.indices), None, distinct.indices)
    return pa.DictionaryArray.from_arrays(indices.take(column.indices), distinct.dictionary)


def numbers(texts: pa.Array) -> pa.Array:
    """Texts, of which numbers are written in one way: 1, 1.0, 01 and +1 are 1; 1.50 is 1.5."""
    plain = pc.replace_substring_regex(texts, r"^[+]?(-?)0*([0-9]+)(?:[.]0*)?$", r"\1\2")
    return pc.replace_substring_regex(plain, r"^[+]?(-?)0*([0-9]+[.][0-9]*?)0+$", r"\1\2")


def parts(column: pa.Array, missing: Sequence[str] = ()) -> pa.DictionaryArray:
    """The column as names of patients or parts of codes: ``missing`` tokens are null.

    Nothing else is changed of texts: 250 and 250.0 are two codes of ICD-9.
    """
    coded = words(column)
    absent = pc.is_in(coded.dictionary, pa.array(missing, pa.string()))
    if not pc.any(absent).as_py():
        return coded
    indices = pc.if_else(absent.take(coded.indices), None, coded.indices)
    return pa.DictionaryArray.from_arrays(indices, coded.dictionary)


def equals(column: pa.Array, wanted: str) -> np.ndarray:
    """Which rows hold ``wanted``, as text or as the same number; "true" is also "Yes" and 1."""
    coded = words(column)
    same = pc.equal(coded.dictionary, wanted)
    for answer in ANSWERS:
        if wanted.lower() == answer[0]:
            same = pc.or_(same, pc.is_in(pc.utf8_lower(coded.dictionary), pa.array(answer)))
    number = _float(wanted)
    if number is not None:
        plain = pc.if_else(pc.match_substring_regex(coded.dictionary, NUMBER), coded.dictionary, "")
        same = pc.or_(same, pc.equal(measured(plain).number, number).fill_null(False))
    fits: np.ndarray = same.take(coded.indices).fill_null(False).to_numpy(zero_copy_only=False)
    return fits


def plain_numbers(column: pa.Array, decimal: str = ".") -> np.ndarray:
    """The numbers of the cells (n,); NaN where one is none, or is told by a comparator."""
    coded = words(column)
    number, text, _ = measured(coded.dictionary, decimal=decimal)
    number = pc.if_else(pc.is_valid(text), pa.scalar(None, pa.float64()), number)
    found: np.ndarray = number.take(coded.indices).to_numpy(zero_copy_only=False)
    return found.astype(np.float64)


def _whole(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _distinct(
    values: pa.Array, missing: Sequence[str], decimal: str
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """``measured`` of distinct values."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    texts = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not texts:
        values = values.cast(pa.string())
    written = pc.utf8_trim_whitespace(values.cast(pa.string()))
    number, mark = _compared(written, decimal if texts else ".")
    absent = pc.is_in(written, pa.array(["", *missing], pa.string()))
    absent = pc.or_(absent, pc.is_in(pc.utf8_lower(written), NO_NUMBER))
    sentinels = [found for found in map(_float, missing) if found is not None]
    if sentinels:
        same = pc.is_in(number, pa.array(sentinels, pa.float64()))
        absent = pc.or_(absent, pc.and_(same, pc.is_null(mark)))
    finite = pc.and_(pc.is_finite(number).fill_null(False), pc.invert(absent))
    word = pc.if_else(absent, "", pc.if_else(finite, mark, written))
    like = pc.and_(pc.match_substring_regex(written, LIKE), pc.invert(pc.or_(finite, absent)))
    return pc.if_else(finite, number, pa.scalar(None, pa.float64())), word, like


def _compared(written: pa.Array, decimal: str) -> tuple[pa.Array, pa.Array]:
    """The numbers, and the texts of those that have a comparator; null for all others."""
    nothing = pa.scalar(None, pa.string())
    mark = pa.nulls(len(written), pa.string())
    plain = written
    if pc.any(pc.match_substring_regex(written, COMPARED)).as_py():
        found = pc.extract_regex(written, COMPARED)
        sign = pc.replace_substring(pc.struct_field(found, "mark"), "≤", "<=")
        sign = pc.replace_substring(sign, "≥", ">=")
        mark = pc.binary_join_element_wise(sign, pc.struct_field(found, "rest"), "")
        plain = pc.coalesce(pc.struct_field(found, "rest"), written)
    if decimal == ",":
        dotted = pc.match_substring(plain, ".")
        plain = pc.if_else(dotted, nothing, pc.replace_substring(plain, ",", "."))
    return _numbers(plain), mark


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

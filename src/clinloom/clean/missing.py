"""Slots that hold no value: an empty text, a configured token, or a number that stands for none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.study import RuleModel

REQUIRES: str | None = None
ORDER = 20


class Options(RuleModel):
    """What stands for a missing value."""

    tokens: tuple[str, ...] = Field(
        default=(), description="texts that mean missing, beside the empty one, e.g. '?' or 'NULL'"
    )
    sentinels: dict[str, tuple[float, ...]] = Field(
        default={}, description="numbers that mean missing, by code or pattern, e.g. {'*': [-999]}"
    )


def apply(sheet: Sheet, options: Options) -> None:
    """Refuse as `missing_value`: empty or token texts without a number, NaN, sentinel numbers."""
    text = sheet.column("text_value")
    if text.null_count < len(text):
        absent = _absent(text, options.tokens)
        if len(absent):
            sheet.reject(absent[np.isnan(sheet.value[absent])], "missing_value", "text_value")
    number = sheet.column("numeric_value")
    not_null = events.valid(number)
    nan = np.isnan(sheet.value)
    if nan.sum() > number.null_count:  # NaN is what some exports write for null
        wordless = events.valid(text)
        wordless = np.zeros(sheet.rows, bool) if wordless is None else ~wordless
        if not_null is not None:
            nan = nan & not_null
        sheet.reject(np.flatnonzero(nan & wordless), "missing_value", "numeric_value")
    for pattern, values in options.sentinels.items():
        position, codes = sheet.code
        rows = np.flatnonzero(events.looked_up(events.matching(codes, (pattern,)), position))
        given = np.isin(sheet.value[rows], values)
        sheet.reject(rows[given], "missing_value", "numeric_value")


def _absent(text: pa.Array, tokens: tuple[str, ...]) -> np.ndarray:
    """The rows whose text is empty, blank or a token."""
    wanted = pa.array(["", *tokens], pa.string())
    if isinstance(text, pa.DictionaryArray):
        texts = pc.is_in(pc.utf8_trim_whitespace(text.dictionary.cast(pa.string())), wanted)
        flags = texts.to_numpy(zero_copy_only=False)
        return np.flatnonzero(events.looked_up(flags, events.coded(text)[0]))
    longest = max([8, *(len(token.encode()) + 8 for token in tokens)])
    lengths = pc.binary_length(text).fill_null(longest + 1).to_numpy(zero_copy_only=False)
    short = np.flatnonzero(lengths <= longest)
    if not len(short):
        return short
    found = pc.is_in(pc.utf8_trim_whitespace(text.take(pa.array(short)).cast("string")), wanted)
    rows: np.ndarray = short[found.to_numpy(zero_copy_only=False)]
    return rows

"""What the columns of rows mean, and the events that rows tell: of files and of Spark alike.

Long: `code`, `value`, `time` name columns. Wide: `events` lists what each row says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, field_validator, model_validator

from clinloom.events import matching
from clinloom.sources._parcel import Refusals, links, word
from clinloom.sources._rows.cells import (
    Measured,
    empty,
    equals,
    measured,
    parts,
    plain_numbers,
    texts,
    tokens,
    words,
)
from clinloom.sources._rows.csv import Rows
from clinloom.sources._rows.template import columns_of, filled
from clinloom.sources._time import TimeSpec, dated, times
from clinloom.study import Codes, Model, SourceModel
from clinloom.tables import LEDGER, PARCEL_EVENTS

Text = Annotated[str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else str(v))]
Tokens = Annotated[
    tuple[str, ...], BeforeValidator(lambda v: tokens(v if isinstance(v, (list, tuple)) else [v]))
]


STATIC = TimeSpec(static=True)


class PatientIn(Model):
    """A file that holds one patient, and says whose it is in a row or in its name."""

    row: str | None = Field(default=None, description="the code whose value is the patient")
    file_name: bool = Field(default=False, description="true: the file's name without its ending")

    @model_validator(mode="after")
    def _one(self) -> PatientIn:
        if (self.row is None) == (not self.file_name):
            raise ValueError("give `row` or `file_name: true`")
        return self


class Coded(Model):
    """The column of codes in a long table, and what to put before each."""

    column: str = Field(description="the column of codes")
    prefix: str = Field(default="", description="what to put before each, such as LOINC//")


class When(Model):
    """Only rows in which ``column`` fits all that is said here; an empty cell fits nothing."""

    column: str = Field(description="the column that is looked at")
    equals: Text | None = Field(
        default=None, description="what it must hold: a text, a number, or true or false"
    )
    one_of: tuple[Text, ...] = Field(default=(), description="it must hold one of these")
    none_of: tuple[Text, ...] = Field(default=(), description="it must hold none of these")
    above: float | None = Field(default=None, description="a number greater than this")
    at_least: float | None = Field(default=None, description="this number or a greater one")
    below: float | None = Field(default=None, description="a number less than this")
    at_most: float | None = Field(default=None, description="this number or a lesser one")

    @model_validator(mode="after")
    def _something(self) -> When:
        if not self.model_fields_set - {"column"}:
            raise ValueError("say what the column must hold: `equals`, `one_of`, `above` …")
        low = [n for n in (self.above, self.at_least) if n is not None]
        high = [n for n in (self.below, self.at_most) if n is not None]
        strict = self.above is not None or self.below is not None
        if low and high and (max(low) > min(high) or (strict and max(low) == min(high))):
            raise ValueError("no number lies between these bounds")
        return self

    def rows(self, cells: pa.Array, missing: Sequence[str], decimal: str) -> np.ndarray:
        """Which rows fit (n,). ``cells``: the column; ``missing`` tokens are empty cells."""
        coded = parts(cells, missing)
        held = np.asarray(coded.indices.is_valid())
        if self.equals is not None:
            held &= equals(coded, self.equals)
        if self.one_of:
            held &= np.logical_or.reduce([equals(coded, one) for one in self.one_of])
        for other in self.none_of:
            held &= ~equals(coded, other)
        for bound, fits in (
            (self.above, np.greater),
            (self.at_least, np.greater_equal),
            (self.below, np.less),
            (self.at_most, np.less_equal),
        ):
            if bound is not None:
                held &= fits(plain_numbers(coded, decimal), bound)
        return held


class Said(Model):
    """One event that each row of a wide table tells."""

    code: str = Field(description="the code; {column} is replaced by the row's cell")
    value: str | None = Field(default=None, description="column of its value, a number or a text")
    text: str | None = Field(default=None, description="column of its value, always a text")
    unit: str | None = Field(default=None, description="UCUM unit")
    when: When | None = None
    time: TimeSpec | None = Field(default=None, description="none: the table's `time`")

    @model_validator(mode="after")
    def _valid(self) -> Said:
        if self.value is not None and self.text is not None:
            raise ValueError("give `value` or `text`, not both")
        return self

    @field_validator("code")
    @classmethod
    def _plain(cls, code: str) -> str:
        columns_of(code)
        return code


class Mapping(SourceModel):
    """What the columns of rows mean."""

    patient: str | PatientIn = Field(description="the column of the patient's identifier")
    missing: Tokens = Field(default=(), description="texts or numbers that mean: no value")
    decimal: Literal[".", ","] = Field(default=".", description="the decimal mark of numbers")
    time: TimeSpec | None = Field(default=None, description="when each event was known")
    code: Coded | None = Field(default=None, description="long: the column of codes")
    value: str | None = Field(default=None, description="long: the column of values")
    unit: str | None = Field(default=None, description="long: the column of units")
    valued: Codes = Field(
        default=(),
        description="long: codes or patterns that owe a value: an empty cell is one that is"
        " missing; of others it says that there is none to tell, as of an admission",
    )
    events: tuple[Said, ...] = Field(default=(), description="wide: what each row tells")

    @model_validator(mode="after")
    def _layout(self) -> Mapping:
        if (self.code is None) == (not self.events):
            raise ValueError("give `code` (a long table) or `events` (a wide one)")
        if self.valued and self.value is None:
            raise ValueError("`valued` needs the column of values, `value`")
        if self.events and (self.value or self.unit):
            raise ValueError("in a wide table each event names its own `value` and `unit`")
        if self.time is None and (self.code or any(e.time is None for e in self.events)):
            raise ValueError("`time` is required; `time: {static: true}` for facts without one")
        if isinstance(self.patient, PatientIn) and self.patient.row and not self.whose:
            raise ValueError("`patient.row` needs a long table, with `code` and `value`")
        return self

    @property
    def whose(self) -> tuple[str, str, str] | None:
        """Where a row names its file's patient: columns of codes and of values, and its code."""
        row = self.patient.row if isinstance(self.patient, PatientIn) else None
        if row is None or self.code is None or self.value is None:
            return None
        return self.code.column, self.value, row

    @property
    def columns(self) -> list[str]:
        """Every column that the mapping names, once."""
        named: list[str | None] = [self.value, self.unit, self.time.column if self.time else None]
        named += [self.patient if isinstance(self.patient, str) else None]
        named += [self.code.column if self.code else None]
        for said in self.events:
            named += [said.value, said.text, said.when.column if said.when else None]
            named += [said.time.column if said.time else None, *columns_of(said.code)]
        return list(dict.fromkeys(name for name in named if name))


def parcels(
    rows: Rows, mark: str, options: Mapping, refused: Refusals, seen: set[str]
) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, links and rejected of some rows.

    ``mark`` stands between a file's name and a row's place; ``seen``: the patients of whom a
    parcel told already, to which these are added.
    """
    patient = _patients(rows, options)
    found = set(pc.unique(patient).drop_null().to_pylist()) - seen
    seen |= found
    parcel = links((p, p) for p in sorted(found))
    if options.code:
        yield {
            **parcel,
            **_long(rows, mark, patient, options.code, options, refused),
            **refused.take(),
        }
        return
    for said in options.events:
        yield {**parcel, **_wide(rows, mark, patient, said, options, refused)}
        parcel = {}
    yield refused.take()


def _patients(rows: Rows, options: Mapping) -> pa.DictionaryArray:
    """Each row's patient, null where there is none."""
    if isinstance(options.patient, str):
        return parts(rows.columns[options.patient], options.missing)
    if options.whose is None:
        names = pa.array([_stem(name) for name in rows.files], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(rows.file, pa.int32()), names)
    code_column, value_column, row = options.whose
    marked = _marked(rows, code_column, row)
    files, first = np.unique(rows.file[marked], return_index=True)
    named = parts(rows.columns[value_column].take(pa.array(marked[first])), options.missing)
    of_file = np.full(len(rows.files), -1, np.int32)
    of_file[files] = pc.fill_null(named.indices, -1).to_numpy()
    of_row = of_file[rows.file]
    return pa.DictionaryArray.from_arrays(pa.array(of_row, mask=of_row < 0), named.dictionary)


def _marked(rows: Rows, column: str, code: str) -> np.ndarray:
    """The rows that say whose file it is."""
    return np.flatnonzero(equals(rows.columns[column], code))


def _stem(name: str) -> str:
    last = name.rsplit("/", 1)[-1].removesuffix(".gz")
    return last.rsplit(".", 1)[0] if "." in last else last


def _long(
    rows: Rows, mark: str, patient: pa.Array, coded: Coded, options: Mapping, refused: Refusals
) -> dict[str, pa.Table]:
    code = parts(rows.columns[coded.column], options.missing)
    if coded.prefix:
        prefixed = pc.binary_join_element_wise(coded.prefix, code.dictionary, "")
        code = pa.DictionaryArray.from_arrays(code.indices, prefixed)
    number, text, like = _nothing(rows.count)
    if options.value is not None:
        cells = rows.columns[options.value]
        number, text, like = measured(cells, options.missing, options.decimal)
        nothing = pc.and_(empty(cells), pc.invert(_owing(code, options.valued)))
        text = pc.if_else(nothing, pa.scalar(None, pa.string()), text)
    if options.whose is not None:
        own = np.zeros(rows.count, bool)  # an identifier is nobody's measurement
        own[_marked(rows, coded.column, options.whose[2])] = True
        number = pc.if_else(pa.array(own), pa.scalar(None, pa.float64()), number)
        text = pc.if_else(pa.array(own), pa.scalar(None, pa.string()), text)
    unit = word(None, rows.count) if options.unit is None else words(rows.columns[options.unit])
    fact = {"patient": patient, "code": code, "numeric_value": number, "text_value": text}
    made = _events(rows, mark, {**fact, "unit": unit}, options.time or STATIC, options, refused)
    return {**made, **_unread(like, code, refused.source)}


def _owing(code: pa.DictionaryArray, valued: Codes) -> pa.Array:
    """Which rows owe a value."""
    fits = matching(code.dictionary.to_pylist(), valued)
    return pc.fill_null(pa.array(fits).take(code.indices), False)


def _wide(
    rows: Rows, mark: str, patient: pa.Array, said: Said, options: Mapping, refused: Refusals
) -> dict[str, pa.Table]:
    if said.when is not None:
        cells = rows.columns[said.when.column]
        chosen = np.flatnonzero(said.when.rows(cells, options.missing, options.decimal))
        if len(chosen) < rows.count:
            take = pa.array(chosen)
            patient = patient.take(take)
            cells = {name: column.take(take) for name, column in rows.columns.items()}
            key = rows.key.take(take) if rows.key is not None else None
            rows = Rows(cells, rows.files, rows.file[chosen], rows.position[chosen], key)
    number, text, like = _nothing(rows.count)
    if said.value is not None:
        value = rows.columns[said.value]
        number, text, like = measured(value, options.missing, options.decimal)
    elif said.text is not None:
        text = texts(rows.columns[said.text], options.missing)
    cells = {name: parts(rows.columns[name], options.missing) for name in columns_of(said.code)}
    code = filled(said.code, cells, rows.count)
    fact = {"patient": patient, "code": code, "numeric_value": number, "text_value": text}
    fact["unit"] = word(said.unit, rows.count)
    made = _events(rows, mark, fact, said.time or options.time or STATIC, options, refused)
    return {**made, **_unread(like, code, refused.source)}


def _nothing(rows: int) -> Measured:
    """No value in any row."""
    return Measured(pa.nulls(rows, pa.float64()), pa.nulls(rows, pa.string()), None)


def _unread(like: pa.Array | None, code: pa.Array, source: str) -> dict[str, pa.Table]:
    """The ledger of texts that look like numbers and are none, by code."""
    if like is None:
        return {}
    told = {"source": source, "rule": "text_like_number", "action": "kept_as_text"}
    found = code.filter(like).value_counts().to_pylist()
    rows = [{**told, "code": each["values"], "count": each["counts"]} for each in found]
    return {"ledger": LEDGER.rows(rows)}


def _events(
    rows: Rows,
    mark: str,
    cells: dict[str, Any],
    spec: TimeSpec,
    options: Mapping,
    refused: Refusals,
) -> dict[str, pa.Table]:
    """The parcel's events; rows without patient, code or time are refused.

    Where a file's name is the patient's identifier, it is no part of ``record_id``.
    """
    when = times(spec, rows.columns[spec.column] if spec.column else None, rows.count)
    when = dated(when, cells["code"], spec.zone)
    files = pa.array(rows.files, pa.string()).take(pa.array(rows.file))
    place = pa.array(rows.position).cast(pa.string()) if rows.key is None else rows.key
    telling = isinstance(options.patient, PatientIn) and options.patient.file_name
    record = pc.binary_join_element_wise("" if telling else files, place, mark)
    if rows.key is not None:  # a row without one is known by its table alone
        record = pc.fill_null(record, files)
    made = pa.table({**cells, "time": when.time, "time_text": when.text, "record_id": record})
    made = made.append_column("source", word(refused.source, rows.count))
    made = made.append_column("earlier", when.earlier)
    untimed = pc.and_(pc.is_null(when.time), pc.is_null(when.text))
    faults = {
        "no_patient": pc.is_null(cells["patient"]),
        "no_code": pc.is_null(cells["code"]),
        "no_time": untimed if spec.due else pc.equal(untimed, False),
    }
    if spec.declared:
        faults["invalid_date"] = pc.is_valid(when.text)
    kept = np.ones(rows.count, bool)
    for reason, fault in faults.items():
        bad = np.flatnonzero(fault.to_numpy(zero_copy_only=False) & kept)
        if len(bad):
            some = made.select(["patient", "code", "record_id"]).take(pa.array(bad))
            some = some.append_column("file", files.take(pa.array(bad)))
            if rows.key is None:
                some = some.append_column("position", pa.array(rows.position[bad]))
            refused.add_rows(reason, some)
            kept[bad] = False
    if not kept.all():
        made = made.filter(pa.array(kept))
    names = [name for name in PARCEL_EVENTS.arrow.names if name in made.column_names]
    return {"events": made.select(names)} if made.num_rows else {}

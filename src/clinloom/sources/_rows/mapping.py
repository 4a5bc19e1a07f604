"""What the columns of rows mean: of files and of Spark alike.

Long: `code`, `value`, `time` name columns. Wide: `events` lists what each row says, `columns`
takes all others as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, field_validator, model_validator

from clinloom.sources._declared import TimeSpec
from clinloom.sources._rows.cells import equals, parts, plain_numbers, tokens
from clinloom.sources._rows.template import NUMBER, columns_of
from clinloom.study import Codes, Model, SourceModel

Text = Annotated[str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else str(v))]
Tokens = Annotated[
    tuple[str, ...], BeforeValidator(lambda v: tokens(v if isinstance(v, (list, tuple)) else [v]))
]


class PatientIn(Model):
    """Whose rows are, where no column tells: a file is one patient's, or each row is."""

    row: str | None = Field(default=None, description="the code whose value is the patient")
    file_name: bool = Field(default=False, description="true: the file's name without its ending")
    each_row: bool = Field(default=False, description="true: each row is a patient of its own")

    @model_validator(mode="after")
    def _one(self) -> PatientIn:
        if (self.row is not None) + self.file_name + self.each_row != 1:
            raise ValueError("give one of `row`, `file_name: true` and `each_row: true`")
        return self


class Coded(Model):
    """The column of codes in a long table, and what to put before each."""

    column: str = Field(
        description="the column of codes; `column:number`: its numbers, of which 1 and 1.0 are one"
    )
    prefix: str = Field(default="", description="what to put before each, such as LOINC//")
    display: str | None = Field(
        default=None,
        description="the column of what people call them; the report does, where at least 10"
        " patients have the same",
    )

    @property
    def name(self) -> str:
        """The column's own name."""
        return self.column.removesuffix(f":{NUMBER}")

    @property
    def numbers(self) -> bool:
        """Whether its codes are numbers, to be written in one way."""
        return self.name != self.column


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

    code: str = Field(
        description="the code; {column} is replaced by the row's cell, {column:number} by its"
        " number, of which 1 and 1.0 are one"
    )
    display: str | None = Field(default=None, description="what people call it, for the report")
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

    @model_validator(mode="after")
    def _one_code(self) -> Said:
        if self.display is not None and columns_of(self.code):
            raise ValueError("a `display` is of one code, and this one is made of columns")
        return self


class Every(Model):
    """Wide: each column that nothing else names tells an event of its own."""

    prefix: str = Field(default="", description="what to put before its name, for the code")
    without: tuple[str, ...] = Field(default=(), description="columns that are left out")


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
    columns: Every | None = Field(
        default=None, description="wide: all other columns, each an event where its cell is filled"
    )

    @model_validator(mode="after")
    def _layout(self) -> Mapping:
        wide = bool(self.events) or self.columns is not None
        if (self.code is None) != wide:
            raise ValueError("give `code` (a long table), or `events` or `columns` (a wide one)")
        if self.valued and self.value is None:
            raise ValueError("`valued` needs the column of values, `value`")
        if wide and (self.value or self.unit):
            raise ValueError("in a wide table each event names its own `value` and `unit`")
        untimed = self.code or self.columns or any(e.time is None for e in self.events)
        if self.time is None and untimed:
            raise ValueError("`time` is required; `time: {static: true}` for facts without one")
        if isinstance(self.patient, PatientIn) and self.patient.row and not self.whose:
            raise ValueError("`patient.row` needs a long table, with `code` and `value`")
        return self

    @property
    def identifier(self) -> str | None:
        """The column that holds patients' identifiers, where one does."""
        if isinstance(self.patient, str):
            return self.patient
        return self.whose[1] if self.whose is not None else None

    @property
    def whose(self) -> tuple[str, str, str] | None:
        """Where a row names its file's patient: columns of codes and of values, and its code."""
        row = self.patient.row if isinstance(self.patient, PatientIn) else None
        if row is None or self.code is None or self.value is None:
            return None
        return self.code.name, self.value, row

    def needed(self, header: Sequence[str]) -> list[str]:
        """The columns that are read of a table with this header, each once."""
        named = self.named
        if self.columns is None:
            return named
        held = {*named, *self.columns.without, ""}
        return [*named, *(name for name in dict.fromkeys(header) if name not in held)]

    @property
    def named(self) -> list[str]:
        """Every column that the mapping names, once."""
        named: list[str | None] = [self.value, self.unit, self.time.column if self.time else None]
        named += [self.patient if isinstance(self.patient, str) else None]
        named += [self.code.name, self.code.display] if self.code else []
        for said in self.events:
            named += [said.value, said.text, said.when.column if said.when else None]
            named += [said.time.column if said.time else None, *columns_of(said.code)]
        return list(dict.fromkeys(name for name in named if name))

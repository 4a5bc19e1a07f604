"""The events that rows tell, by what their columns mean: of files and of Spark alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import matching
from clinloom.sources._declared import TimeSpec, times, zoneless
from clinloom.sources._parcel import Refusals, links, word
from clinloom.sources._rows.cells import (
    Measured,
    empty,
    equals,
    measured,
    numbers,
    parts,
    texts,
    words,
)
from clinloom.sources._rows.csv import Rows
from clinloom.sources._rows.mapping import Coded, Mapping, PatientIn, Said
from clinloom.sources._rows.template import columns_of, filled
from clinloom.sources._time import assumed, dated
from clinloom.study import Codes
from clinloom.tables import LEDGER, PARCEL_EVENTS

STATIC = TimeSpec(static=True)


def parcels(
    rows: Rows, mark: str, options: Mapping, refused: Refusals, seen: set[str]
) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, links and rejected of some rows.

    ``mark`` stands between a file's name and a row's place; ``seen``: the patients of whom a
    parcel told already, to which these are added.
    """
    patient = _patients(rows, mark, options)
    found = set(pc.unique(patient).drop_null().cast(pa.string()).to_pylist()) - seen
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
    if options.columns is not None:
        told = {*options.named, *options.columns.without}
        for name in (column for column in rows.columns if column not in told):
            yield {**parcel, **_column(rows, mark, patient, name, options, refused)}
            parcel = {}
    yield {**parcel, **refused.take()}


def owners(rows: Rows, options: Mapping) -> list[str | None]:
    """Whose a file is, by the first of these rows that says so; of none, nothing."""
    assert options.whose is not None  # noqa: S101 - who asks has looked
    code_column, value_column, row = options.whose
    marked = pa.array(_marked(rows, code_column, row)[:1], pa.int64())
    found: list[str | None] = parts(
        rows.columns[value_column].take(marked), options.missing
    ).to_pylist()
    return found


def _patients(rows: Rows, mark: str, options: Mapping) -> pa.DictionaryArray:
    """Each row's patient, null where there is none."""
    if isinstance(options.patient, str):
        return parts(rows.columns[options.patient], options.missing)
    if options.patient.each_row:
        return _records(rows, mark, telling=False).dictionary_encode()
    if options.whose is None:
        names = pa.array([_stem(name) for name in rows.files], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(rows.file, pa.int32()), names)
    if rows.part:
        return word(rows.owner, rows.count)
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


def _files(rows: Rows) -> pa.Array:
    return pa.array(rows.files, pa.string()).take(pa.array(rows.file))


def _records(rows: Rows, mark: str, *, telling: bool) -> pa.Array:
    """What each row is called; ``telling``: its file's name tells whose it is, and stays out."""
    place = pa.array(rows.position).cast(pa.string()) if rows.key is None else rows.key
    record = pc.binary_join_element_wise("" if telling else _files(rows), place, mark)
    return record if rows.key is None else pc.fill_null(record, _files(rows))


def _stem(name: str) -> str:
    last = name.rsplit("/", 1)[-1].removesuffix(".gz")
    return last.rsplit(".", 1)[0] if "." in last else last


def _long(
    rows: Rows, mark: str, patient: pa.Array, coded: Coded, options: Mapping, refused: Refusals
) -> dict[str, pa.Table]:
    code = parts(rows.columns[coded.name], options.missing)
    if coded.prefix or coded.numbers:
        plain = numbers(code.dictionary) if coded.numbers else code.dictionary
        prefixed = pc.binary_join_element_wise(coded.prefix, plain, "")
        code = pa.DictionaryArray.from_arrays(code.indices, prefixed)
    if coded.display is not None:
        refused.displays.take(code, parts(rows.columns[coded.display], options.missing), patient)
    number, text, like = _nothing(rows.count)
    if options.value is not None:
        cells = rows.columns[options.value]
        number, text, like = measured(cells, options.missing, options.decimal)
        nothing = empty(cells)
        if nothing is not None:
            nothing = pc.and_(nothing, pc.invert(_owing(code, options.valued)))
            text = pc.if_else(nothing, pa.scalar(None, pa.string()), text)
    if options.whose is not None:
        own = np.zeros(rows.count, bool)  # an identifier is nobody's measurement
        own[_marked(rows, coded.name, options.whose[2])] = True
        number = pc.if_else(pa.array(own), pa.scalar(None, pa.float64()), number)
        text = pc.if_else(pa.array(own), pa.scalar(None, pa.string()), text)
    unit = word(None, rows.count) if options.unit is None else words(rows.columns[options.unit])
    fact = {"patient": patient, "code": code, "numeric_value": number, "text_value": text}
    fact["unit"], named = unit, {coded.name: code}
    made = _events(rows, mark, fact, named, options.time or STATIC, options, refused)
    return {**made, **_unread(like, code, refused.source)}


def _owing(code: pa.DictionaryArray, valued: Codes) -> pa.Array:
    """Which rows owe a value."""
    fits = matching(code.dictionary.to_pylist(), valued)
    return pc.fill_null(pa.array(fits).take(code.indices), False)


def _column(
    rows: Rows, mark: str, patient: pa.Array, name: str, options: Mapping, refused: Refusals
) -> dict[str, pa.Table]:
    """The events of a column that nothing names; of its empty cells none, which is counted."""
    assert options.columns is not None  # noqa: S101 - who asks has looked
    cells = rows.columns[name]
    code = f"{options.columns.prefix}{name}"
    blank, nothing = pc.is_null(parts(cells, options.missing).indices), empty(cells)
    blank = blank if nothing is None else pc.or_(blank, nothing)
    filled = pc.indices_nonzero(pc.invert(blank))
    left = rows.count - len(filled)
    some = _taken(rows, filled)
    number, text, like = measured(some.columns[name], options.missing, options.decimal)
    names = word(code, some.count)
    fact = {"patient": patient.take(filled), "code": names, "numeric_value": number}
    fact |= {"text_value": text, "unit": word(None, some.count)}
    made = _events(some, mark, fact, {}, options.time or STATIC, options, refused)
    told = {"source": refused.source, "code": code, "rule": "empty_cell", "action": "no_event"}
    ledger = [LEDGER.rows([{**told, "count": left}])] if left else []
    ledger += _unread(like, names, refused.source).values()
    return {**made, **({"ledger": pa.concat_tables(ledger)} if ledger else {})}


def _taken(rows: Rows, at: pa.Array) -> Rows:
    """Some of the rows."""
    if len(at) == rows.count:
        return rows
    cells = {name: column.take(at) for name, column in rows.columns.items()}
    key = rows.key.take(at) if rows.key is not None else None
    places = at.to_numpy()
    file, position = rows.file[places], rows.position[places]
    return replace(rows, columns=cells, file=file, position=position, key=key)


def _wide(
    rows: Rows, mark: str, patient: pa.Array, said: Said, options: Mapping, refused: Refusals
) -> dict[str, pa.Table]:
    if said.when is not None:
        cells = rows.columns[said.when.column]
        chosen = np.flatnonzero(said.when.rows(cells, options.missing, options.decimal))
        patient, rows = patient.take(pa.array(chosen)), _taken(rows, pa.array(chosen))
    number, text, like = _nothing(rows.count)
    if said.value is not None:
        value = rows.columns[said.value]
        number, text, like = measured(value, options.missing, options.decimal)
    elif said.text is not None:
        text = texts(rows.columns[said.text], options.missing)
    cells = {name: parts(rows.columns[name], options.missing) for name in columns_of(said.code)}
    code = filled(said.code, cells, rows.count)
    if said.display is not None:
        refused.displays.tell(said.code, said.display)
    fact = {"patient": patient, "code": code, "numeric_value": number, "text_value": text}
    fact["unit"] = word(said.unit, rows.count)
    made = _events(rows, mark, fact, cells, said.time or options.time or STATIC, options, refused)
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
    named: dict[str, pa.DictionaryArray],
    spec: TimeSpec,
    options: Mapping,
    refused: Refusals,
) -> dict[str, pa.Table]:
    """The parcel's events; rows without patient, code or time are refused.

    ``named``: the columns of which the code is made.
    Where a file's name is the patient's identifier, it is no part of ``record_id``.
    """
    told = rows.columns[spec.column] if spec.column else None
    when = dated(times(spec, told, rows.count), cells["code"], spec.clock)
    refused.zoneless += assumed(zoneless(spec, told), cells["code"])
    telling = isinstance(options.patient, PatientIn) and options.patient.file_name
    record = _records(rows, mark, telling=telling)
    made = pa.table({**cells, "time": when.time, "time_text": when.text, "record_id": record})
    made = made.append_column("source", word(refused.source, rows.count))
    made = made.append_column("earlier", when.earlier)
    untimed = pc.and_(pc.is_null(when.time), pc.is_null(when.text))
    faults = {
        "no_patient": pc.is_null(cells["patient"]),
        "no_code": pc.is_null(cells["code"]),
    }
    if spec.due:
        faults["no_time"] = untimed
    if spec.declared:
        faults["invalid_date"] = pc.is_valid(when.text)
    kept = np.ones(rows.count, bool)
    for reason, fault in faults.items():
        bad = np.flatnonzero(fault.to_numpy(zero_copy_only=False) & kept)
        if len(bad):
            at = pa.array(bad)
            column = options.identifier if reason == "no_patient" else spec.column
            field = _empty(named, at) if reason == "no_code" else word(column, len(at))
            some = made.select(["patient", "code", "record_id"]).take(at)
            some = some.append_column("field", field)
            some = some.append_column("file", _files(rows).take(at))
            if rows.key is None:
                some = some.append_column("position", pa.array(rows.position[bad]))
            refused.add_rows(reason, some)
            kept[bad] = False
    if not kept.all():
        made = made.filter(pa.array(kept))
    names = [name for name in PARCEL_EVENTS.arrow.names if name in made.column_names]
    return {"events": made.select(names)} if made.num_rows else {}


def _empty(columns: dict[str, pa.DictionaryArray], rows: pa.Array) -> pa.Array:
    """The first of the columns that is empty, for each of these rows."""
    none = pa.scalar(None, pa.string())
    found = [pc.if_else(pc.is_null(c.take(rows)), name, none) for name, c in columns.items()]
    return pc.coalesce(*found)

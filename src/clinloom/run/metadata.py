"""What is known of sampled rows that is not in their features: where their data come from.

Kernels of whole patients: each takes a sample (a row a patient: subject_id, prediction_time) and
answers columns of it, numbers (NaN: not known) or texts (empty: not known).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.tables import Column, Table
from clinloom.vocabulary import leaks

Columns = dict[str, np.ndarray]
OF_IMAGES = (
    "subject_id", "modality", "body_part", "view", "laterality", "manufacturer", "burned_in",
    "time", "rows", "columns",
)  # fmt: skip
NAMED = ("modality", "body_part", "view", "laterality", "manufacturer", "burned_in")
SAME = 0.95  # of the rows that have a code, in which it stands at one and the same distance
FEWEST = 5  # rows that have it: of fewer it may be chance
KEPT = 4  # distances of a code that a worker tells
LAGS = Table(
    "lags",
    "how long before the prediction each column was last told, in how many sampled rows",
    (
        Column("code", pa.string(), "the column that a feature's code is of", False),
        Column("lag", pa.int64(), "microseconds; null: it has no time; -1: any other"),
        Column("rows", pa.int64(), "how many", False),
    ),
)
OTHER = -1


def of_records(
    events: pa.Table, sample: pa.Table, codes: Sequence[str]
) -> tuple[Columns, pa.Table]:
    """Sources, file and place of each row's first record, the moment; and LAGS of the codes.

    Of the events those count that features are made of: of ``codes``, before the index time.
    """
    moment = ev.times(ev.column(sample, "prediction_time"))
    row, at, code, lag = _before(events, sample, codes)
    rows = len(moment)
    sources, file, place = (
        np.full(rows, "", object),
        np.full(rows, "", object),
        np.full(rows, np.nan),
    )
    _, first = np.unique(row, return_index=True)
    records = ev.column(events, "record_id").take(pa.array(at[first])).to_pylist()
    for one, record in zip(row[first].tolist(), records, strict=True):
        file[one], place[one] = _place(record)
    position, names = ev.coded(ev.column(events, "source"))
    pairs = np.unique(np.stack([row, position[at].astype(np.int64)]), axis=1)
    for one, source in pairs.T.tolist():
        if source >= 0:
            sources[one] = f"{sources[one]}+{names[source]}" if sources[one] else names[source]
    columns = {
        "source": sources.astype(str),
        "file": file.astype(str),
        "record order": place,
        "prediction moment": moment.astype(np.float64),
    }
    return columns, _lags(row, code, lag, codes)


def _before(
    events: pa.Table, sample: pa.Table, codes: Sequence[str]
) -> tuple[ev.Ints, ev.Ints, ev.Ints, ev.Ints]:
    """The events before each row's index time: the row, the place, the code, how long before."""
    subject, time = ev.subjects(events), ev.times(ev.column(events, "time"))
    position, names = ev.coded(ev.column(events, "code"))
    wanted = {code: place for place, code in enumerate(codes)}
    known = ev.subjects(sample)
    order = np.argsort(known)
    moment = ev.times(ev.column(sample, "prediction_time"))
    if not len(known) or not len(subject):
        none = np.zeros(0, np.int64)
        return none, none, none, none
    numbered = np.array([wanted.get(name, -1) for name in names] or [-1], np.int64)
    code = np.where(position >= 0, numbered[position], -1)
    row = order[np.minimum(np.searchsorted(known, subject, sorter=order), len(known) - 1)]
    keep = np.flatnonzero((known[row] == subject) & (code >= 0) & (time < moment[row]))
    static = time[keep] == ev.STATIC
    lag = np.where(static, ev.STATIC, moment[row[keep]] - np.where(static, 0, time[keep]))
    return row[keep], keep, code[keep], lag


def _place(record: str | None) -> tuple[str, float]:
    """The file of a record's name and its place there: ``stays.csv@120``, ``a.parquet#7``."""
    found = re.fullmatch(r"(.*)[@#](\d{1,15})", record or "")
    return (found[1], float(found[2])) if found else ("", np.nan)


def _lags(row: ev.Ints, code: ev.Ints, lag: ev.Ints, codes: Sequence[str]) -> pa.Table:
    columns, of = np.unique([leaks.column(code) for code in codes], return_inverse=True)
    code = of[code]
    pair = row * max(len(columns), 1) + code
    _, last = np.unique(pair[::-1], return_index=True)  # events ascend: of the last, the first
    last = len(pair) - 1 - last
    both, count = np.unique(np.stack([code[last], lag[last]]), axis=1, return_counts=True)
    cells = {
        "code": pa.array(columns[both[0]].tolist(), pa.string()),
        "lag": pa.array(both[1], mask=both[1] == ev.STATIC),
        "rows": pa.array(count.astype(np.int64)),
    }
    return lagging([pa.table(cells)])


def lagging(parts: Sequence[pa.Table]) -> pa.Table:
    """LAGS added up; of each code the commonest distances, and all others as one."""
    whole = pa.concat_tables([part.cast(LAGS.arrow) for part in parts])
    found = whole.group_by(["code", "lag"], use_threads=False).aggregate([("rows", "sum")])
    held: dict[str, list[tuple[int, int | None]]] = {}
    for each in found.to_pylist():
        held.setdefault(each["code"], []).append((each["rows_sum"], each["lag"]))
    made = []
    for code, counts in sorted(held.items()):
        counts.sort(key=lambda pair: (pair[1] == OTHER, -pair[0]))
        rest = sum(n for n, _ in counts[KEPT:])
        told = [*counts[:KEPT], *([(rest, OTHER)] if rest else [])]
        made += [{"code": code, "lag": lag, "rows": n} for n, lag in told]
    return LAGS.rows(made)


def untimed(lags: pa.Table) -> set[str]:
    """The columns that stand at one distance of the prediction, or have no time, in most rows."""
    counts: dict[str, list[int]] = {}
    for row in lags.to_pylist():
        total, most = counts.setdefault(row["code"], [0, 0])
        one = row["rows"] if row["lag"] != OTHER else 0
        counts[row["code"]] = [total + row["rows"], max(most, one)]
    return {c for c, (total, most) in counts.items() if most >= max(SAME * total, FEWEST)}


def of_images(images: pa.Table, sample: pa.Table) -> Columns:
    """What the last image before the index time says of its making."""
    rows = sample.num_rows
    columns: Columns = {f"image {name}": np.full(rows, "", object) for name in NAMED}
    columns |= {f"image {n}": np.full(rows, np.nan) for n in ("rows", "columns")}
    moment = ev.times(ev.column(sample, "prediction_time"))
    place = {one: at for at, one in enumerate(ev.subjects(sample).tolist())}
    last: dict[int, tuple[int, int]] = {}
    whose = ev.subjects(images)
    for image in np.flatnonzero(np.isin(whose, ev.subjects(sample))).tolist():
        at = place[int(whose[image])]
        time = images.column("time")[image].cast(pa.int64()).as_py()
        known = ev.STATIC if time is None else time
        if known < moment[at]:
            last[at] = max(last.get(at, (known, image)), (known, image))
    for at, (_, image) in last.items():
        for name in NAMED:
            told = images.column(name)[image].as_py()
            columns[f"image {name}"][at] = "" if told is None else str(told)
        for name in ("rows", "columns"):
            told = images.column(name)[image].as_py()
            columns[f"image {name}"][at] = np.nan if told is None else float(told)
    texts = {name: values.astype(str) for name, values in columns.items() if name[6:] in NAMED}
    return {**columns, **texts}


def of_identifiers(crosswalk: pa.Table, sample: pa.Table) -> Columns:
    """The number that ends each patient's identifier, and what stands before it."""
    number, prefix = np.full(sample.num_rows, np.nan), np.full(sample.num_rows, "", object)
    place = {one: at for at, one in enumerate(ev.subjects(sample).tolist())}
    whose = ev.subjects(crosswalk)
    mine = np.flatnonzero(np.isin(whose, ev.subjects(sample)))
    told = crosswalk.column("identifier").take(pa.array(mine)).to_pylist()
    for one, identifier in sorted(zip(whose[mine].tolist(), told, strict=True), reverse=True):
        found = re.fullmatch(r"(.*?)(\d{0,15})", identifier or "", re.DOTALL)
        if found:
            prefix[place[one]] = found[1]
            number[place[one]] = float(found[2]) if found[2] else np.nan
    return {"identifier": number, "identifier prefix": prefix.astype(str)}

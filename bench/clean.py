"""The cleaning kernel on 200,000 events, beside the same steps written by hand in Polars.

    POLARS_MAX_THREADS=1 python bench/clean.py

Prints milliseconds of a core and events per second of each case and the ratio to the peer, which
must give the same values in the same order; then what one patient's 1,000 events take in a request.
Processor time, the quickest of several turns: other work may run beside. ``--alone`` leaves the
peer out, as for a state of the code that cleans otherwise.
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom.clean import clean
from clinloom.tables import ACQUIRED

MINUTE = 60_000_000
MOMENTS = 40  # of a patient
Told = tuple[str, str, float]  # the canonical unit, another one, and the factor between
KNOWN: dict[str, Told] = {
    "LOINC//2160-0": ("mg/dL", "umol/L", 1 / 88.4),
    "LOINC//2345-7": ("mg/dL", "mmol/L", 18.016),
    "LOINC//2085-9": ("mg/dL", "mmol/L", 38.67),
    "LOINC//718-7": ("g/dL", "g/L", 0.1),
}
LOCAL: dict[str, Told] = {f"LAB//{n:02}": ("mg/L", "g/L", 1000.0) for n in range(37)}
ORDER = ("subject_id", "time", "code", "numeric_value", "record_id")


def drawn(rows: int, codes: int) -> dict[str, Any]:
    """Numbers at times of their own, each a record."""
    rng = np.random.default_rng(1)
    return {
        "subject_id": np.sort(rng.integers(1, rows // 200 + 2, rows)),
        "time": rng.integers(0, 600_000, rows) * MINUTE,
        "code": rng.integers(0, codes, rows),
        "numeric_value": np.round(rng.uniform(5, 9, rows), 2),
        "record_id": [f"lab.csv@{n}" for n in (rng.permutation(rows) * 61).tolist()],
    }


def plain(rows: int) -> dict[str, Any]:
    """In no unit."""
    made = drawn(rows, len(LOCAL))
    return {**made, "code": np.array(list(LOCAL))[made["code"]]}


def halves(rows: int, told: Mapping[str, Told]) -> dict[str, Any]:
    """Half of the numbers in the other unit of their code."""
    made = drawn(rows, len(told))
    codes, units = np.array(list(told)), np.array([t[:2] for t in told.values()])
    other = np.random.default_rng(2).integers(0, 2, rows)
    factor = np.array([(1.0, t[2]) for t in told.values()])[made["code"], other]
    value = np.round(made["numeric_value"] / factor, 4)
    unit = units[made["code"], other]
    return {**made, "code": codes[made["code"]], "numeric_value": value, "unit": unit}


def panels(rows: int, *, each: int = 5, copies: int = 2, single: bool = False) -> dict[str, Any]:
    """At every moment so many panels of the same codes, each a record; ``single``: each number."""
    rng = np.random.default_rng(3)
    width = each * copies
    many = rows // width
    codes = rng.permuted(np.tile(np.arange(len(LOCAL)), (many, 1)), axis=1)[:, :each]
    record = np.arange(rows) if single else np.repeat(np.arange(many * copies), each)
    return {
        "subject_id": np.repeat(np.arange(many) // MOMENTS + 1, width),
        "time": np.repeat(rng.integers(0, 600_000, many) * MINUTE, width),
        "code": np.array(list(LOCAL))[np.tile(codes, copies).ravel()],
        "numeric_value": np.round(rng.uniform(5, 9, rows), 2),
        "record_id": [f"Observation/{n * 17}" for n in record.tolist()],
    }


Case = tuple[Callable[[int], dict[str, Any]], dict[str, Told]]
CASES: dict[str, Case] = {  # and the units that were learned of local codes
    "no units": (plain, {}),
    "half converted": (lambda rows: halves(rows, KNOWN), KNOWN),
    "half converted, learned": (lambda rows: halves(rows, LOCAL), LOCAL),
    "most times tie": (panels, {}),
    "most tie, single records": (lambda rows: panels(rows, single=True), {}),
    "few ties": (lambda rows: panels(rows, each=8, copies=1, single=True), {}),  # PhysioNet 2012
}


def acquired(made: dict[str, Any], *, words: bool) -> pa.Table:
    """ACQUIRED as the store has it; ``words``: codes, units and sources as dictionaries."""
    rows = len(made["numeric_value"])
    texts = {name: pa.array(list(made[name])) for name in ("code", "unit") if name in made}
    time_ = pa.array(made["time"]).view(ACQUIRED.arrow.field("time").type)
    given = {**made, **texts, "time": time_, "source": pa.repeat("lab", rows)}
    columns = [pa.array(given.get(f.name, pa.nulls(rows, f.type)), f.type) for f in ACQUIRED.arrow]
    table = pa.table(columns, schema=ACQUIRED.arrow).sort_by([(key, "ascending") for key in ORDER])
    table = table.combine_chunks()
    for name in ("code", "unit", "source") if words else ():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(name).dictionary_encode())
    return table


def cleaned(table: pa.Table, told: Mapping[str, Told]) -> pa.Table:
    """The clean events; units of codes that no vocabulary knows are learned where they can be."""
    if "learned" not in inspect.signature(clean).parameters:
        return clean(table, {})["events"]
    learned = {code: units[0] for code, units in told.items() if code in LOCAL}
    return clean(table, {}, learned=learned)["events"]


def by_hand(frame: Any, told: Mapping[str, Told]) -> Any:
    """Units, duplicates and the order of simultaneous numbers in Polars."""
    import polars as pl

    units = [
        {"code": code, "unit": unit, "factor": by, "to": one}
        for code, (one, other, factor) in told.items()
        for unit, by in ((one, 1.0), (other, factor))
    ]
    words = {"code": pl.Categorical, "unit": pl.Categorical, "to": pl.Categorical}
    value, fact = pl.col("numeric_value"), ["subject_id", "time", "code", "numeric_value", "unit"]
    scale = 10.0 ** (11 - value.abs().log10().floor())
    converted = (value * pl.col("factor"), (value * scale).round(mode="half_to_even") / scale)
    steps = frame.lazy()
    if told:
        rules = pl.LazyFrame(units, schema_overrides=words)
        steps = (
            steps.join(rules, on=["code", "unit"], how="left", maintain_order="left")
            .with_columns(converted[0])
            .with_columns(pl.when(pl.col("factor") == 1.0).then(value).otherwise(converted[1]))
            .with_columns(pl.col("to").alias("unit"))
        )
    name, code = pl.col("record_id"), pl.col("code")
    return (
        steps.filter(value.is_finite())
        .unique(fact, keep="first", maintain_order=True)
        .with_columns(
            code.n_unique().over("subject_id", "time", "record_id", "source").alias("breadth"),
            name.str.strip_chars_end("0123456789").alias("stem"),
            name.str.len_bytes().alias("length"),
            code.cast(pl.String).alias("called"),
        )
        .sort("subject_id", "time", "called", "breadth", "stem", "length", "record_id", fact[3])
        .select(*fact, "record_id")
        .collect()
    )


def check(ours: pa.Table, theirs: Any) -> None:
    """Raises SystemExit where the two do not tell the same."""
    other = theirs.to_arrow()
    for name in ("subject_id", "record_id"):
        if ours.column(name).to_pylist() != other.column(name).to_pylist():
            raise SystemExit(f"{name} differs")
    if not np.allclose(ours.column("numeric_value"), other.column("numeric_value"), 1e-12, 0):
        raise SystemExit("numeric_value differs")


def quickest(step: Callable[[], Any], turns: int) -> float:
    """Milliseconds of a core."""
    took = []
    for _ in range(turns):
        start = time.process_time()
        step()
        took.append(time.process_time() - start)
    return min(took) * 1e3


def main() -> None:
    """Time every case and its peer, and a patient alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    for name, (make, told) in CASES.items():
        table = acquired(make(args.rows), words=True)
        ours = quickest(lambda table=table, told=told: cleaned(table, told), args.turns)
        line = f"{name:<26}{ours:7.1f} ms {table.num_rows / ours / 1e3:6.1f} M events/s"
        if not args.alone:
            import polars as pl

            frame = pl.from_arrow(table.drop(["time_text", "version", "earlier"]))
            check(cleaned(table, told), by_hand(frame, told))
            theirs = quickest(lambda frame=frame, told=told: by_hand(frame, told), 3)
            line += f"; {theirs / ours:.1f} times as fast as Polars ({theirs:.0f} ms)"
        print(line, flush=True)
    for name, (make, told) in CASES.items():
        one = acquired({**make(1000), "subject_id": np.ones(1000, np.int64)}, words=False)
        took = quickest(lambda one=one, told=told: cleaned(one, told), 50)
        print(f"one patient, {name:<26}{took:6.2f} ms", flush=True)


if __name__ == "__main__":
    main()

"""Who the synthetic patients are: a chunk of them as arrays, drawn from its own random stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clinloom.synth import _risk
from clinloom.synth._risk import CONDITIONS, MEDICATIONS, PROCEDURES, SIGNALS

DAY, HOUR = 86_400, 3_600
FIRST, LAST = 1_672_531_200, 1_735_689_600  # admissions in 2023 and 2024, UTC
DELAY = 900  # seconds from a sample to its result
DIRTY = (
    ("missing_value", 0.008),
    ("impossible_value", 0.006),
    ("invalid_date", 0.004),
    ("date_format", 0.010),
)
MIXED, REPEATED, SEVERAL = 0.06, 0.006, 0.02


@dataclass(frozen=True)
class Measured:
    """One signal of a chunk, a row a measurement: which patient, seconds after admission, value.

    ``dirt`` is 0 or 1 + the row's place in DIRTY; a patient's last row is never dirty.
    """

    patient: np.ndarray
    after: np.ndarray
    value: np.ndarray
    dirt: np.ndarray
    mixed: np.ndarray
    repeated: np.ndarray


@dataclass(frozen=True)
class Population:
    """A chunk of patients; arrays (n,) unless told."""

    number: np.ndarray  # global number of each patient
    age: np.ndarray  # years at admission
    male: np.ndarray
    admitted: np.ndarray  # seconds since 1970, UTC
    conditions: Mapping[str, np.ndarray]
    medications: Mapping[str, np.ndarray]
    procedures: Mapping[str, np.ndarray]
    measured: tuple[Measured, ...]
    severity: np.ndarray  # NaN without a radiograph
    records: np.ndarray  # log odds of what the records tell
    risk: np.ndarray
    outcome: np.ndarray
    several: np.ndarray  # 0; 1: a second record linked to the first; 2: one with the same number

    def __len__(self) -> int:
        return len(self.number)


def population(
    first: int, count: int, *, imaged: int, generator: np.random.Generator
) -> Population:
    """Patients ``first`` to ``first + count``, of whom ``imaged`` have a radiograph."""
    acuity = generator.normal(size=count)
    age = np.clip(generator.normal(64, 15, count), 18.5, 97)
    male = generator.random(count) < 0.52
    slope, middle = _risk.AGE
    records = _risk.INTERCEPT + slope * (age - middle) + _risk.MALE * male
    facts = []
    for table in (CONDITIONS, MEDICATIONS, PROCEDURES):
        had = {code: generator.random(count) < share for code, (share, _) in table.items()}
        for code, (_, weight) in table.items():
            records += weight * had[code]
        facts.append(had)
    measured = []
    for signal in SIGNALS:
        rows, said = _measure(signal, acuity, generator)
        records += said
        measured.append(rows)
    severity = np.full(count, np.nan)
    chosen = generator.permutation(count)[:imaged]
    drawn = np.clip(generator.normal(size=imaged), -_risk.SEVEREST, _risk.SEVEREST)
    severity[np.sort(chosen)] = drawn
    risk = _risk.sigmoid(records + _risk.IMAGE * np.nan_to_num(severity))
    several = np.where(generator.random(count) < SEVERAL, generator.integers(1, 3, count), 0)
    several[0] = 1
    return Population(
        number=np.arange(first, first + count),
        age=age,
        male=male,
        admitted=generator.integers(FIRST, LAST, count),
        conditions=facts[0],
        medications=facts[1],
        procedures=facts[2],
        measured=tuple(measured),
        severity=severity,
        records=records,
        risk=risk,
        outcome=generator.random(count) < risk,
        several=several,
    )


def _measure(
    signal: _risk.Signal, acuity: np.ndarray, generator: np.random.Generator
) -> tuple[Measured, np.ndarray]:
    """A signal's measurements on the first day, and what the last one adds to the log odds."""
    count, (least, most) = len(acuity), signal.times
    times = generator.integers(least, most + 1, count)
    times *= generator.random(count) < signal.share
    own = np.sqrt(1 - signal.load**2 - 0.15)
    base = signal.load * acuity + own * generator.normal(size=count)
    patient = np.repeat(np.arange(count), times)
    place = np.arange(len(patient)) - np.repeat(np.cumsum(times) - times, times)
    of = times[patient]
    # strata of the day keep the measurements of a patient apart and in order
    share = (place + generator.uniform(0.05, 0.95, len(patient))) / np.maximum(of, 1)
    after = (600 + share * 82_000).astype(np.int64)
    noise = np.sqrt(0.15) * generator.normal(size=len(patient))
    value = signal.mean + signal.sd * (base[patient] + noise)
    value = np.round(np.clip(value, signal.low, signal.high), signal.decimals)
    last = place == of - 1
    said = np.zeros(count)
    said[patient[last]] = signal.weight * (value[last] - signal.mean) / signal.sd

    draw, dirt, upto = generator.random(len(patient)), np.zeros(len(patient), int), 0.0
    free = np.flatnonzero(~last)
    for kind, (_, rate) in enumerate(DIRTY):
        dirt[free[(draw[free] >= upto) & (draw[free] < upto + rate)]] = kind + 1
        if len(free) > kind:
            dirt[free[kind]] = kind + 1  # at least one of each in every chunk
        upto += rate
    mixed = (generator.random(len(patient)) < MIXED) & (dirt == 0) & (signal.other is not None)
    again = (generator.random(len(patient)) < REPEATED) & (dirt == 0) & ~mixed
    if len(again):
        again[0] = dirt[0] == 0 and not mixed[0]
    return Measured(patient, after, value, dirt, mixed, again), said

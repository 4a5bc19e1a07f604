"""How often each alarm cries wolf where nothing changed, and how often it sees what did.

A hospital of 40 features (skewed, counts, rare flags, up to 60 % missing), whose model is right;
its reference and its new rows are drawn again each time, by fixed seeds. Kinds of alarm have 5 %
each here; a report shares 5 % among them. docs/monitoring.md shows what more draws gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clinloom.evaluate import alarms, asked, cells, drift, fitness, watch
from clinloom.evaluate.cells import CELLS, LEAST, WIDTH, Cells, Kept
from clinloom.evaluate.watch import Reference, Rows
from clinloom.learn.risks import Risks
from clinloom.learn.sketch import Sketch

FEATURES, PERIODS, CODES = 40, 6, 2000
NAMES = ("sex a", "sex b")
EACH = 0.05
Change = Callable[[np.random.Generator, dict[str, np.ndarray]], None]
RATES = 0.3 / np.arange(1, CODES + 1) ** 1.1  # how many patients have each code: a long tail


def drawn(rng: np.random.Generator, rows: int, *, each: int) -> dict[str, np.ndarray]:
    """Rows of a hospital whose patients have ``each`` rows, alike in features and outcomes."""
    patients = rows // each
    subject = np.repeat(np.arange(patients), each)
    x = np.repeat(rng.normal(size=(patients, FEATURES)), each, axis=0)
    if each > 1:
        x = 0.8 * x + 0.6 * rng.normal(size=x.shape)
    risk = 1 / (1 + np.exp(-(-2.2 + 0.8 * x[:, 0] + 0.5 * x[:, 30] - 0.4 * x[:, 31])))
    fate = np.repeat(rng.random(patients), each)
    same = rng.random(rows) < 0.7
    outcome = np.where(same, fate, rng.random(rows)) < risk
    x[:, :10] = np.exp(x[:, :10])
    x[:, 10:20] = x[:, 10:20] > 1.9
    x[:, 20:25] = np.round(2 * x[:, 20:25])
    missing = rng.random(x.shape) < np.linspace(0, 0.6, FEATURES)
    missing[:, [0, 30, 31]] = False
    period = np.sort(rng.integers(0, PERIODS, (patients, each)), axis=1).ravel()
    x = np.where(missing, np.nan, x)
    return {"subject": subject, "period": period, "x": x, "risk": risk, "outcome": outcome}


def told(made: dict[str, np.ndarray]) -> Rows:
    odd = made["subject"] % 3 == 0
    member = np.stack([odd, ~odd], axis=1)
    flagged, known = made["risk"] >= 0.25, np.ones(len(odd), bool)
    subject, period = made["subject"], made["period"]
    return Rows(subject, period, made["risk"], flagged, made["outcome"], known, member)


def codes(rng: np.random.Generator, patients: int, more: float = 0.0) -> pa.Table:
    """How many patients have each code, and one that is new."""
    counts = rng.binomial(patients, RATES)
    new = [rng.binomial(patients, more)]
    names = [*(f"C//{n}" for n in range(CODES)), "C//new"]
    seen = {"code": names, "unit": [None] * len(names), "patients": [*counts.tolist(), *new]}
    made = pa.table(seen, schema=pa.schema([("code", pa.string()), ("unit", pa.string()),
                                            ("patients", pa.int64())]))  # fmt: skip
    return made.filter(pa.array(np.array(seen["patients"]) > 0))


def reference(rng: np.random.Generator, *, each: int, rows: int = 4000, tests: int = 1600):
    trained = drawn(rng, rows, each=each)
    subject, none = trained["subject"], np.zeros(rows, int)
    cut = Cells.of(Sketch.of(trained["x"], subject))
    counts, patients = cells.dense(cut.counts(trained["x"], none, subject), [0], FEATURES)
    tested = drawn(rng, tests, each=each) | {"period": np.zeros(tests, int)}
    risk = Cells.of(Sketch.of(tested["risk"][:, None], tested["subject"]))
    rows_ = told(tested)
    off = fitness.estimate(Risks.of(rows_.outcome, rows_.risk)).intercept
    found = watch.sums(rows_, risk, off)
    of, spread = watch.seen(found)
    made = {key: fitness.estimate(one.risks, spread=spread, apart=one.known_apart)
            for key, one in of.items()}  # fmt: skip
    said = cells.dense(found["risks"], [0], 1)
    seen = codes(rng, 3000).to_pylist()
    return Reference(
        names=tuple(f"f{n}" for n in range(FEATURES)),
        features=Kept.of(cut, counts[0], patients[0]),
        apart=float(drift.effective(rows, rows * each)) / rows,
        risk=Kept.of(risk, said[0][0], said[1][0]),
        rows=tests,
        rows_apart=of[0].apart,
        flagged=of[0].flagged,
        whole=made[0],
        groups={name: made[-1 - at] for at, name in enumerate(NAMES)},
        codes={row["code"]: [] for row in seen if row["patients"] >= LEAST},
        pairs=sum(row["patients"] for row in seen),
    )


@cache
def begun(seed: int, each: int) -> tuple[Reference, dict[str, Any]]:
    """A seed's reference, and the state in which it leaves the generator: whatever changes then."""
    rng = np.random.default_rng(seed)
    return reference(rng, each=each), rng.bit_generator.state


def verdict(seed: int, *, each: int, rows: int, change: Change | None = None, new: float = 0.0):
    rng = np.random.default_rng()
    known, rng.bit_generator.state = begun(seed, each)
    made = drawn(rng, rows, each=each)
    if change:
        change(rng, made)
    found = watch.sums(told(made), known.risk.cells, known.whole.intercept)
    return alarms.judge(
        known,
        found,
        labels={n: str(n) for n in range(PERIODS)},
        groups=NAMES,
        features=known.features.cells.counts(made["x"], made["period"], made["subject"]),
        codes=codes(rng, rows // each, new),
        level=EACH * len(asked.KINDS),
    )


def rates(draws: int, *, each: int = 1, rows: int = 1500, **change: Any) -> Counter[str]:
    """In how many of so many reports there is an alarm of each kind."""
    found: Counter[str] = Counter()
    for seed in range(draws):
        made = verdict(7000 + seed, each=each, rows=rows, **change)
        assert set(made["kinds"]) == set(asked.KINDS)
        found.update({one["kind"] for one in made["alarms"]})
    return found


DRAWS = 40
UNCHANGED = {"few": (1, 300), "many": (1, 3000), "alike": (4, 2000)}


@cache
def unchanged(name: str) -> Counter[str]:
    each, rows = UNCHANGED[name]
    return rates(DRAWS, each=each, rows=rows)


@pytest.mark.parametrize("kind", asked.KINDS)
@pytest.mark.parametrize("name", UNCHANGED)
def test_no_kind_of_alarm_is_false_more_often_than_it_says(name: str, kind: str):
    """With few rows, with many, and where a patient's rows are alike."""
    assert unchanged(name)[kind] <= stats.binom.ppf(0.9995, DRAWS, EACH)


def shifted_unit(rng: np.random.Generator, made: dict[str, np.ndarray]) -> None:
    made["x"][made["period"] >= 3, 3] *= 88.4  # mg/dL of creatinine, told as if it were umol/L


def more_missing(rng: np.random.Generator, made: dict[str, np.ndarray]) -> None:
    lost = (rng.random(len(made["x"])) < 0.2) & (made["period"] >= 2)
    made["x"][lost, 5] = np.nan


def more_outcomes(rng: np.random.Generator, made: dict[str, np.ndarray]) -> None:
    odds = np.log(made["risk"] / (1 - made["risk"])) + 0.6
    made["outcome"] = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))


def miscalibrated(rng: np.random.Generator, made: dict[str, np.ndarray]) -> None:
    made["risk"] = fitness.shifted(made["risk"], -0.5)


def shuffled(rng: np.random.Generator, made: dict[str, np.ndarray]) -> None:
    """Half of the risks are somebody else's: as many, as high, but of no use."""
    who = np.flatnonzero(rng.random(len(made["risk"])) < 0.6)
    made["risk"][who] = rng.permutation(made["risk"][who])


def one_sex(rng: np.random.Generator, made: dict[str, np.ndarray]) -> None:
    odds = np.log(made["risk"] / (1 - made["risk"])) - 1.0
    less = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
    made["outcome"] = np.where(made["subject"] % 3 == 0, less, made["outcome"])


@pytest.mark.parametrize(
    ("change", "kinds", "rows"),
    [
        (shifted_unit, {"inputs"}, 600),
        (more_missing, {"missing"}, 2000),
        (more_outcomes, {"running"}, 3000),
        (miscalibrated, {"running", "predictions"}, 3000),
        (shuffled, {"discrimination"}, 6000),
        (one_sex, {"subgroups"}, 3000),
    ],
)
def test_what_changed_is_seen(change: Change, kinds: set[str], rows: int):
    found = rates(12, rows=rows, change=change)
    assert all(found[kind] >= 11 for kind in kinds), found


def test_a_new_code_is_seen_and_named():
    made = [verdict(seed, each=1, rows=1500, new=0.03) for seed in range(5)]
    assert all("C//new" in {a["what"] for a in one["alarms"]} for one in made)


def test_what_is_told_of_one_feature_is_not_told_of_others():
    told_ = [verdict(seed, each=1, rows=1500, change=shifted_unit) for seed in range(8)]
    named = Counter(a["what"] for one in told_ for a in one["alarms"] if a["kind"] == "inputs")
    assert named["f3"] == 8 and named.total() <= 10
    assert {a["period"] for one in told_ for a in one["alarms"] if a["what"] == "f3"} == {"3"}


# What is kept of the training rows

TABLES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), min_size=CELLS, max_size=CELLS)


@settings(deadline=None)
@given(TABLES, st.tuples(st.integers(0, 30), st.integers(1, 3)), st.integers(0, CELLS - 1))
def test_no_cell_that_is_kept_tells_of_few_and_none_can_be_had(table, missing, cuts):
    edges = np.full(CELLS - 1, np.inf)
    edges[:cuts] = np.arange(cuts)
    who = np.array([n for n, _ in (*table[: cuts + 1], *[(0, 1)] * (CELLS - cuts - 1), missing)])
    rows = who * np.array([k for _, k in (*table, missing)])
    kept, found = cells.joined(edges, rows, who)
    assert sum(found) == rows.sum()  # every row is in a cell: nothing is had by subtraction
    assert len(found) == len(kept) + 2 and set(kept) <= set(edges)
    assert all(n == 0 or n >= LEAST for n in found) or who.sum() < LEAST


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))
def test_counts_are_the_same_however_rows_are_cut(seed, parts, each):
    rng = np.random.default_rng(seed)
    made = drawn(rng, 40 * each, each=each)
    cut = Cells.of(Sketch.of(made["x"], made["subject"]))
    whole = cut.counts(made["x"], made["period"], made["subject"])
    of = np.sort(rng.integers(0, 41, parts - 1)) * each
    pieces = np.split(np.arange(40 * each), of)
    some = [cut.counts(*(made[k][at] for k in ("x", "period", "subject"))) for at in pieces]
    order = [(name, "ascending") for name in ("period", "feature", "cell")]
    assert cells.merged(some).sort_by(order).equals(whole.sort_by(order))
    rows, patients = cells.dense(whole, range(PERIODS), FEATURES)
    assert rows.sum() == made["x"].size and (patients <= rows).all()
    assert (rows.sum(axis=2) == np.bincount(made["period"], minlength=PERIODS)[:, None]).all()


def test_sums_are_the_same_however_patients_are_cut():
    rng = np.random.default_rng(1)
    made = drawn(rng, 600, each=3)
    risk = Cells.of(Sketch.of(made["risk"][:, None], made["subject"]))
    whole, _ = watch.seen(watch.sums(told(made), risk, 0.1))
    pieces = np.split(np.arange(600), [150, 153, 420])
    parts = [watch.sums(told({k: v[at] for k, v in made.items()}), risk, 0.1) for at in pieces]
    found = {name: merge([p[name] for p in parts]) for name, merge in watch.MERGES.items()}
    again, spread = watch.seen(found)
    assert spread == pytest.approx(watch.seen(watch.sums(told(made), risk, 0.1))[1])
    for key, one in whole.items():
        for name in ("rows", "apart", "flagged", "known", "known_apart", "positive"):
            assert getattr(again[key], name) == getattr(one, name)
        assert again[key].risks.table().equals(one.risks.table())


def test_a_reference_is_the_same_when_it_is_read_again():
    known = reference(np.random.default_rng(3), each=2)
    again = Reference.parse(known.plain())
    assert again.plain() == known.plain()
    assert again.features.counts.shape == (FEATURES, WIDTH)

"""What is judged by what: no patient on both sides, no row with a say in what it is judged by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom.cohort import split
from clinloom.cohort.division import Division
from clinloom.errors import DataError
from clinloom.learn.search import NOWHERE, cells
from clinloom.run import sides
from clinloom.study import Split
from clinloom.tables import COUNTS, EVENTS, FLOW, INDEX

DAY = 86_400_000_000


def index(*rows: tuple[int, int]) -> pa.Table:
    """Moments as (subject, day)."""
    return INDEX.rows(
        {"subject_id": who, "prediction_time": day * DAY, "boolean_value": bool(day % 2)}
        for who, day in rows
    )


def events(*rows: tuple[int, int | None, str, str]) -> pa.Table:
    """Facts as (subject, day, code, source)."""
    return EVENTS.rows(
        {"subject_id": who, "time": None if day is None else day * DAY, "code": code, "source": by}
        for who, day, code, by in rows
    )


MANY = [
    Division(3, 1, (0,), ("test",)),
    Division(3, 1, (0,), ()),
    Division(5, 2, (0, 7, 9), ()),
    Division(4, 3, (2,), ("SITE//a", "SITE//b", "SITE//c")),
]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(MANY),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), min_size=1, max_size=40),
    st.integers(0, 3),
)
def test_no_patient_is_learned_from_and_judged_at_once(division, rows, shift):
    """Every fit, whatever it leaves out: its patients are none of those it validates or judges."""
    rows = sorted(rows)
    subject = np.array([who for who, _ in rows], np.int64)
    names = ["train", *(division.parts or ("crossed",))]
    table = pa.table(
        {"subject_id": subject, "split": [names[(w + shift) % len(names)] for w in subject]}
    )
    for repeat, salt in enumerate(division.salts):
        part = division.part(table, repeat)
        fold = split.fold(subject, division.folds, division.seed, salt)
        base = repeat * division.each
        for n in range(base, base + division.each):
            assert not set(subject[part == n]) & set(subject[part != n])
        for left in division.fits():
            if left.repeat != repeat:
                continue
            learned = (part != left.part) & (fold != left.fold)
            for cell in left.cells:
                valid = (fold == cell.fold) & (part != cell.part)
                assert not set(subject[learned]) & set(subject[valid])
                judged = part == cell.part  # and none of them has a say in its own point
                assert not (judged & (learned | valid)).any()


@pytest.mark.parametrize("division", MANY)
def test_each_part_is_tuned_in_every_fold_once(division):
    fits = division.fits()
    assert len(set(fits)) == len(fits)
    for part in range(len(division.names)):
        own = sorted(cell.fold for cell in cells(fits, part))
        expected = set(range(division.folds)) - (
            {part % division.each} if division.crossed else set()
        )
        assert own == sorted(expected)
    assert len(cells(fits, None)) == sum(len(cells(fits, p)) for p in range(len(division.names)))


def test_a_fit_that_tunes_two_parts_is_made_once():
    assert len(Division(5, 0, (0,), ()).fits()) == 10  # not 20
    assert [left.rung for left in Division(5, 0, (0,), ()).fits()].count(0) == 5


def test_a_part_is_told_for_rows_of_either_side_alone():
    rows = pa.table({"subject_id": [1, 2, 3], "split": pa.array([None, "crossed", "crossed"])})
    found = Division(3, 0, (0,), ()).part(rows, 0)
    assert found[0] == NOWHERE and (found[1:] >= 0).all()
    sites = Division(3, 0, (0,), ("a", "b"))
    assert sites.part(rows.set_column(1, "split", pa.array(["b", None, "c"])), 0).tolist() == [
        1,
        -1,
        -1,
    ]


SITES = events(
    (1, 3, "SITE//b", "x"),
    (1, 5, "SITE//a", "y"),  # seen later at another: the first is its site
    (2, None, "SITE//c", "y"),  # static: before all
    (2, 1, "SITE//a", "x"),
    (3, 2, "SITE//b", "x"),
    (3, 2, "SITE//a", "x"),  # at one time: the first by name
    (4, 1, "OTHER", "y"),
)


def test_a_patient_lies_in_one_site():
    rows = index((1, 4), (1, 9), (2, 1), (3, 1), (4, 1))
    made = split.assign(rows, Split(method="site", site="SITE//*"), seed=0, events=SITES)
    assert made["split"].to_pylist() == ["SITE//b", "SITE//b", "SITE//c", "SITE//a", None]
    made = split.assign(rows, Split(method="site", site="source"), seed=0, events=SITES)
    assert made["split"].to_pylist() == ["x", "x", "y", "x", "y"]


def test_the_data_say_who_trains():
    told = Split(method="column", learn="SET//a", judge=["SET//b", "SET//c"])
    rows = index((1, 1), (2, 1), (2, 2), (3, 1), (4, 1))
    facts = events(
        (1, None, "SET//a", "x"),
        (2, 1, "SET//c", "x"),
        (3, 1, "SET//a", "x"),
        (3, 2, "SET//b", "x"),
    )
    made = split.assign(rows, told, seed=0, events=facts)
    assert made["split"].to_pylist() == ["train", "test", "test", None, None]  # 3: of both


@pytest.mark.parametrize("chosen", [Split(method="site", site="SITE//*"), Split(method="kfold"),
                                    Split(method="site", site="source")])  # fmt: skip
def test_how_patients_are_chunked_changes_no_part(chosen):
    rows = index((1, 4), (1, 9), (2, 1), (3, 1), (4, 1))
    whole = split.assign(rows, chosen, seed=4, events=SITES)
    apart = [
        split.assign(
            index(*[r for r in ((1, 4), (1, 9), (2, 1), (3, 1), (4, 1)) if r[0] == who]),
            chosen,
            seed=4,
            events=SITES.filter(pa.compute.equal(SITES["subject_id"], who)),
        )
        for who in (1, 2, 3, 4)
    ]
    assert pa.concat_tables(apart)["split"].to_pylist() == whole["split"].to_pylist()


def classes(*rows: tuple[str | None, bool, int]) -> pa.Table:
    return COUNTS.rows(
        {"table": "index", "stage": part, "reason": str(outcome), "rows": n}
        for part, outcome, n in rows
    )


class Asked:
    def __init__(self, **given):
        self.split = Split(**given)


def test_sites_are_the_parts_and_one_alone_is_none():
    asked = Asked(method="site", site="SITE//*")
    told = classes(("b", True, 3), ("b", False, 5), ("a", False, 4), (None, True, 9))
    assert sides.parts(told, asked) == ["a", "b"]
    assert sides.training(told, asked) == 12
    with pytest.raises(DataError, match="other than b"):  # nobody left has the outcome
        sides.answerable(told, FLOW.empty, asked)
    with pytest.raises(DataError, match="1 sites are told"):
        sides.answerable(classes(("b", True, 3), ("b", False, 5)), FLOW.empty, asked)
    assert sides.parts(told, Asked(method="kfold")) == []
    assert sides.parts(told, Asked()) == ["test"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"method": "kfolds"}, "did you mean 'kfold'"),
        ({"by": "tim", "cutoff": "2020-01-01"}, "did you mean 'time'"),
        ({"by": "time", "method": "kfold"}, "older name"),
        ({"method": "kfold", "folds": 2}, "3 `folds` or more"),
        ({"method": "time"}, "needs `cutoff`"),
        ({"method": "site"}, "needs `site`"),
        ({"method": "column", "learn": "A"}, "needs `judge`"),
        ({"repeats": 2}, "only a split by kfold"),
    ],
)
def test_what_a_method_needs_is_told(given, told):
    with pytest.raises(ValueError, match=told):
        Split(**given)


def test_the_older_name_of_the_method_goes_on():
    assert Split(by="time", cutoff="2020-01-01").method == "time"
    assert Split(**Split(method="kfold").model_dump()) == Split(method="kfold", folds=5)


@pytest.mark.parametrize("repeats", [1, 3])
def test_each_repeat_has_folds_of_its_own_and_every_one_its_share(repeats):
    chosen = Split(method="kfold", repeats=repeats)
    rows = INDEX.rows(
        {"subject_id": n, "prediction_time": 0, "boolean_value": n < 15} for n in range(300)
    )
    made = split.assign(rows, chosen, seed=3)
    found = split.salts(split.strata(made, chosen, seed=3), chosen)
    assert len(set(found.folds)) == repeats
    for salt in found.folds:
        held = np.bincount(split.fold(np.arange(15), 5, 3, salt), minlength=5)
        assert held.min() >= 2 and held.max() <= 4

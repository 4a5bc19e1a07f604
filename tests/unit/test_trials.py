"""Trials are committed one by one, come back as they were, and leave nothing when they are done;
and what the bundle is watched by is of models that had not seen the rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from tests.unit import test_predict as rows
from tests.unit.test_search import CROSSED, POINTS, Machine

from clinloom.cohort.division import Division
from clinloom.evaluate import watch
from clinloom.evaluate.cells import Cells
from clinloom.learn.search import search
from clinloom.learn.sketch import Sketch
from clinloom.run import reference
from clinloom.run.train import Trials
from clinloom.store import Store
from clinloom.tables import TRIALS, matrix


class Work:
    def __init__(self, store: Store):
        self.store = store


@pytest.fixture
def store(tmp_path):
    held = Store(tmp_path / "out")
    yield held
    held.close()


def test_a_killed_search_goes_on_from_the_store(store, tmp_path):
    fits = CROSSED.fits()
    with pytest.raises(KeyboardInterrupt):
        search(POINTS, fits, Machine(dies_at=23), kept=Trials(Work(store), "lr", "key"))
    store.close()
    again = Store(tmp_path / "out")
    try:
        machine = Machine()
        kept = Trials(Work(again), "lr", "key")
        found = search(POINTS, fits, machine, kept=kept)
        assert len(machine.made) == 9 * 10 - 20
        expected = search(POINTS, fits, Machine(), kept={})
        assert found.areas == expected.areas
        mine, other = (one.risks(8, None) for one in (found, expected))
        assert np.array_equal(mine.score, other.score) and mine.rows == other.rows
        assert Trials(Work(again), "lr", "another key").get("x-0") is None
        assert list((tmp_path / "out" / "trials").rglob("*.parquet"))
        Trials(Work(again), "forest", "key")["x-0"] = TRIALS.empty
        kept.close()
        stages = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]
        assert list(stages) == ["trial/forest/x-0"]  # another model's stays
        assert not list((tmp_path / "out" / "trials" / "lr").rglob("*.parquet"))
    finally:
        again.close()


@pytest.mark.parametrize("division", [rows.HELD_OUT, Division(3, 5, (0, 4), ())])
def test_the_reference_is_of_judged_rows_once(division):
    table = rows.ROWS
    if division.crossed:
        table = table.set_column(3, "split", pa.array(["crossed"] * rows.N))
    scorers = [rows.scorer(0.2 * (n + 1)) for n in range(len(division.names))]
    part = division.part(table, 0)
    judged = part >= 0
    expected = np.empty(rows.N)
    for number in set(part[judged].tolist()):
        at = part == number
        expected[at] = scorers[number].score(matrix(table)[at])
    first = reference._first(table, scorers=scorers, division=division)
    cut, risk = (Cells.of(Sketch.read(first[name])) for name in ("sketch", "risk"))
    asked = {"cut": cut, "risk": risk, "intercept": 0.0, "groups": (), "limit": 0.5}
    found = reference._second(table, scorers=scorers, division=division, **asked)
    whole = watch.seen(found)[0][0]
    assert whole.rows == judged.sum() and whole.flagged == (expected[judged] >= 0.5).sum()
    trained = found["trained"].to_pylist()[0]["rows"]
    held_out = table["split"].to_pylist().count("train")
    assert trained == (rows.N if division.crossed else held_out)
    parts = [table.slice(a, 200) for a in range(0, rows.N, 200)]
    some = [reference._second(p, scorers=scorers, division=division, **asked) for p in parts]
    merged = {n: merge([s[n] for s in some]) for n, merge in reference.SECOND.items()}
    assert watch.seen(merged)[0][0].rows == whole.rows
    assert merged["features"].num_rows == reference.SECOND["features"]([found["features"]]).num_rows

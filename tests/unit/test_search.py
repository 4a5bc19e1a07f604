"""The search of a grid: what is tried, what decides, and what a killed one goes on from."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.cohort.division import Division
from clinloom.learn.risks import Risks
from clinloom.learn.search import Cell, Failed, cells, drawn, search
from clinloom.study import Tune

POINTS = [{"depth": n} for n in range(9)]
HELD_OUT, CROSSED = Division(3, 0, (0,), ("test",)), Division(5, 0, (0,), ())


def risks(good: float, cell: Cell) -> Risks:
    """Of 400 rows; the greater ``good``, the better it tells them apart."""
    rng = np.random.default_rng([cell.part, cell.fold])
    label = rng.random(400) < 0.3
    return Risks.of(label, 1 / (1 + np.exp(-(good * label + rng.normal(size=400)))))


class Machine:
    """Fits that are as good as their depth, some of which fail, and which it counts."""

    def __init__(self, good=lambda point, cell: 0.3 * point["depth"], fails=(), dies_at=None):
        self.good, self.fails, self.dies_at, self.made = good, fails, dies_at, []

    def __call__(self, wanted):
        for point, left in wanted:
            if len(self.made) == self.dies_at:
                raise KeyboardInterrupt
            self.made.append((point["depth"], left))
            if point["depth"] in self.fails:
                yield Failed(ArithmeticError("a value of a patient"))
            else:
                yield {cell: risks(self.good(point, cell), cell) for cell in left.cells}


@pytest.mark.parametrize("division", [HELD_OUT, CROSSED])
def test_the_whole_grid_is_tried_and_the_best_is_found(division):
    machine = Machine()
    found = search(POINTS, division.fits(), machine, kept={})
    assert len(machine.made) == 9 * len(division.fits())
    for part in (*range(len(division.names)), None):
        number, areas = found.best(part)
        within = cells(division.fits(), part)
        assert number == 8 and len(areas) == len(within)
        told = found.risks(number, part)
        assert told.rows == 400 * len(within)
        assert areas == [risks(2.4, cell).auroc() for cell in within]


def test_a_part_has_no_say_in_its_own_point():
    """A point that is best for the rows of a part alone is chosen for the others, not for it."""

    def good(point, cell):
        lures = point["depth"] == 0 and cell.fold == 2  # the rows of fold 2 are those of part 2
        return 5.0 if lures else 0.3 * point["depth"]

    found = search(POINTS[:2], CROSSED.fits(), Machine(good), kept={})
    assert [found.best(part)[0] for part in range(5)] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("division", [HELD_OUT, CROSSED])
def test_halving_finds_it_with_fewer_fits(division):
    machine, whole = Machine(), 9 * len(division.fits())
    found = search(POINTS, division.fits(), machine, halving=True, kept={})
    assert all(found.best(part)[0] == 8 for part in (*range(len(division.names)), None))
    assert len(found.best(None)[1]) == len(cells(division.fits(), None))  # tried everywhere
    assert len(machine.made) <= 0.7 * whole
    assert len(set(machine.made)) == len(machine.made)  # none twice


@pytest.mark.parametrize(("seed", "lure"), [(6, 1), (1, 3)])
def test_halving_gives_a_parts_rows_no_say_in_its_own_point(seed, lure):
    """Whatever its own rows say of a point, a part chooses the same: not that which others kept."""

    def plain(point, cell):
        key = [seed, point["depth"], cell.part, cell.fold]
        return float(np.random.default_rng(key).uniform(0, 1.5))

    def lured(point, cell):
        own = cell.fold == 0 and cell.part != 0  # rows of part 0, which validate for the others
        return 6.0 if own and point["depth"] == lure else plain(point, cell)

    one, other = (
        search(POINTS[:6], CROSSED.fits(), Machine(good), halving=True, kept={})
        for good in (plain, lured)
    )
    assert one.best(0)[0] == other.best(0)[0]


def test_of_a_random_search_the_seed_decides():
    how = Tune(search="random", trials=4)
    assert drawn(POINTS, how, seed=1) == drawn(POINTS, how, seed=1) != drawn(POINTS, how, seed=2)
    assert len(drawn(POINTS, how, seed=1)) == 4
    assert drawn(POINTS, Tune(), seed=1) == POINTS
    with pytest.raises(ValueError, match="needs `trials`"):
        Tune(search="random")
    with pytest.raises(ValueError, match="random or halving"):
        Tune(trials=3)


@pytest.mark.parametrize("halving", [False, True])
@pytest.mark.parametrize("dies_at", [1, 13, 20])
def test_a_killed_search_goes_on_after_its_last_whole_trial(dies_at, halving):
    fits, kept = CROSSED.fits(), {}
    expected = search(POINTS, fits, Machine(), halving=halving, kept={})
    with pytest.raises(KeyboardInterrupt):
        search(POINTS, fits, Machine(dies_at=dies_at), halving=halving, kept=kept)
    again = Machine()
    found = search(POINTS, fits, again, halving=halving, kept=kept)
    assert found.areas == expected.areas
    whole = Machine()
    search(POINTS, fits, whole, halving=halving, kept={})
    assert len(whole.made) - len(again.made) == 5 * (dies_at // 5)  # five fits are a trial
    assert not again.made[0] or again.made == whole.made[5 * (dies_at // 5) :]


def test_a_trial_that_fails_is_told_and_left_out():
    notes: list[str] = []
    machine = Machine(fails={8, 3})
    found = search(POINTS, HELD_OUT.fits(), machine, kept={}, note=notes.append)
    assert found.best(None)[0] == 7 and set(found.failed) == {3, 8}
    assert len(notes) == 2 and "depth 8" in notes[1] and "ArithmeticError" in notes[1]
    assert "patient" not in "".join(notes)
    with pytest.raises(ArithmeticError):
        search(POINTS, HELD_OUT.fits(), Machine(fails=range(9)), kept={})


def test_a_cell_of_one_class_says_nothing():
    class Empty(Machine):
        def __call__(self, wanted):
            for _, left in wanted:
                yield {c: Risks.none() if c.fold == 0 else risks(1.0, c) for c in left.cells}

    found = search(POINTS[:2], HELD_OUT.fits(), Empty(), kept={})
    assert len(found.best(0)[1]) == 2 and found.risks(0, 0).rows == 800

"""The split and the folds by outcome: both classes on either side, and nobody ever changes it."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom import hashing
from clinloom.cohort import split
from clinloom.run.sums import divided
from clinloom.study import Split
from clinloom.tables import INDEX, STRATA

DAY = 86_400_000_000


def index(having: int, without: int, *, moments: int = 1, first: int = 0):
    """Patients with an outcome and without, each with so many moments; the last one has it."""
    return INDEX.rows(
        {
            "subject_id": first + n,
            "prediction_time": moment * DAY,
            "boolean_value": n < having and moment == moments - 1,
        }
        for n in range(having + without)
        for moment in range(moments)
    )


def sides(rows, chosen: Split, *, seed: int, salt: int) -> dict[int, str]:
    made = split.assign(rows, chosen, seed=seed, salt=salt)
    return dict(zip(made["subject_id"].to_pylist(), made["split"].to_pylist(), strict=True))


def decided(rows, chosen: Split, seed: int) -> split.Salts:
    def counted(salt: int):
        made = split.assign(rows, chosen, seed=seed, salt=salt)
        return split.salts(split.strata(made, chosen, seed=seed), chosen)

    salt = counted(0).split
    return split.Salts(salt, counted(salt).folds)


@pytest.mark.parametrize(("having", "moments"), [(2, 1), (3, 2), (6, 1), (20, 3)])
def test_few_outcomes_are_on_both_sides_in_their_proportion(having, moments):
    rows, chosen = index(having, 60, moments=moments), Split()
    lacked = 0
    for seed in range(12):
        found = sides(rows, chosen, seed=seed, salt=decided(rows, chosen, seed).split)
        train = sum(found[n] == "train" for n in range(having))
        assert 0 < train < having and abs(train - 0.7 * having) <= 1
        assert abs(sum(found[n] == "train" for n in range(having, having + 60)) - 42) <= 2.1
        plain = [sides(rows, chosen, seed=seed, salt=0)[n] for n in range(having)]
        lacked += len(set(plain)) == 1
    assert lacked or having > 6  # by one hash alone


@pytest.mark.parametrize("folds", [2, 5])
def test_few_outcomes_are_in_every_fold(folds):
    rows, chosen = index(12, 300), Split(folds=folds)
    for seed in range(8):
        salts = decided(rows, chosen, seed)
        found = sides(rows, chosen, seed=seed, salt=salts.split)
        having = np.array([n for n in range(12) if found[n] == "train"])
        held = np.bincount(split.fold(having, folds, seed, salts.folds[0]), minlength=folds)
        assert held.min() >= 1 and abs(held - len(having) / folds).max() < 2


def test_many_patients_keep_the_first_hash():
    rows = index(20_000, 60_000)
    assert decided(rows, Split(), 3) == split.Salts()


def test_a_salt_once_chosen_puts_everybody_where_they_were_whatever_comes_later():
    chosen, seed = Split(), 5
    rows = index(6, 60)
    salt = decided(rows, chosen, seed).split
    before = sides(rows, chosen, seed=seed, salt=salt)
    after = sides(index(20, 46 + 500), chosen, seed=seed, salt=salt)  # outcomes, and patients, more
    assert {n: after[n] for n in before} == before


@pytest.mark.parametrize("chosen", [Split(), Split(by="time", cutoff="1970-01-02")])
def test_strata_add_up_however_the_patients_are_chunked(chosen):
    rows = split.assign(index(7, 40, moments=2), chosen, seed=1)
    parts = [rows.slice(at, 10) for at in range(0, rows.num_rows, 10)]
    whole = split.strata(rows, chosen, seed=1)
    assert divided([split.strata(part, chosen, seed=1) for part in parts]) == divided([whole])
    assert (chosen.method == "random") == (split.SPLIT in whole["division"].to_pylist())
    assert split.salts(STRATA.empty, chosen) == split.Salts()


def test_the_folds_hash_is_xxhash():
    # Eight zero bytes under the seed 0, as the reference implementation has it.
    none = np.zeros((1, 8), np.uint8)
    assert hashing.xxhash64(none, seed=np.zeros(1, np.uint64))[0] == 0x34C96ACDCADB1BBB
    assert (hashing.signed(2**63), hashing.signed(-1), hashing.signed(2**70)) == (-(2**63), -1, 0)

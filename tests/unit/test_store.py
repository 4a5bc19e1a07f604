"""The store: whole or not at all, reused while nothing changed, one run at a time."""

from __future__ import annotations

import errno
import json

import pytest

from clinloom.errors import StoreError
from clinloom.store import Store
from clinloom.tables import FLOW

ROWS = FLOW.rows([{"step": 0, "name": "patients", "subjects": 3, "rows": 3}])


def commit(store, key="k", stage="cohort"):
    with store.writing(stage, key) as out:
        out.write(FLOW, ROWS)


def test_a_committed_table_is_read_back(tmp_path):
    store = Store(tmp_path)
    commit(store)
    assert store.current("cohort", "k") and not store.current("cohort", "other")
    assert store.stored("cohort", "flow").arrow().to_pylist() == ROWS.to_pylist()
    assert json.loads((tmp_path / "manifest.json").read_text())["stages"]["cohort"]["key"] == "k"
    assert (tmp_path / "guarded").stat().st_mode & 0o077 == 0


def test_a_stage_that_fails_leaves_nothing_and_keeps_what_was(tmp_path):
    store = Store(tmp_path)
    commit(store)
    with pytest.raises(ValueError), store.writing("cohort", "k2") as out:
        out.write(FLOW, ROWS)
        raise ValueError
    assert store.current("cohort", "k")
    assert not list((tmp_path / ".pending").iterdir())


def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="disk is full"), store.writing("cohort", "k") as out:
        out.write(FLOW, ROWS)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.rglob("*.parquet"))


def test_two_runs_never_share_a_folder(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(StoreError, match="another run"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


def test_a_killed_run_leaves_no_table(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), first.writing("cohort", "k") as out:
        out.write(FLOW, ROWS)
        raise KeyboardInterrupt
    first.close()
    assert not Store(tmp_path).current("cohort", "k")

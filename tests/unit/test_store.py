"""The store: whole or not at all, reused while nothing changed, one run at a time, swept."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import numpy as np
import pytest

from clinloom import files
from clinloom.deploy import bundle
from clinloom.deploy.scorer import Scorer
from clinloom.errors import StoreError
from clinloom.learn.preparation import learn
from clinloom.store import Store, TableWriter, attempt, finished, replace
from clinloom.tables import FLOW

ROWS = FLOW.rows([{"step": 0, "name": "patients", "subjects": 3, "rows": 3}])


def commit(store, key="k", stage="cohort"):
    with store.writing(stage, key) as out:
        out.write(FLOW, ROWS)
        out.put("leakage", "audit.json", "{}")


def parquet(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and "parquet" in p.name)


def test_a_committed_table_is_read_back(tmp_path):
    store = Store(tmp_path)
    commit(store)
    assert store.current("cohort", "k") and not store.current("cohort", "other")
    assert store.stored("cohort", "flow").read().to_pylist() == ROWS.to_pylist()
    assert store.stored("cohort", "leakage").text("audit.json") == "{}"
    assert json.loads((tmp_path / "manifest.json").read_text())["stages"]["cohort"]["key"] == "k"
    assert (tmp_path / "guarded").stat().st_mode & 0o077 == 0
    assert finished(tmp_path)["flow"].read().num_rows == 1  # without holding it


def test_a_stage_that_fails_leaves_nothing_and_keeps_what_was(tmp_path):
    store = Store(tmp_path)
    commit(store)
    before = parquet(tmp_path)
    with pytest.raises(ValueError), store.writing("cohort", "k2") as out:
        out.write(FLOW, ROWS)
        (out.scratch("parts").path / "x").touch()
        raise ValueError
    assert store.current("cohort", "k")
    assert parquet(tmp_path) == before and len(before) == 1
    assert not [p for p in (tmp_path / ".scratch").rglob("*") if p.is_file()]


def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="disk is full"), store.writing("cohort", "k") as out:
        out.write(FLOW, ROWS)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not parquet(tmp_path)


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


def test_a_run_killed_at_once_frees_the_output_and_leaves_what_sweep_takes(tmp_path):
    """kill -9 while a table is half written: the next run reads none of it."""
    code = (
        "import os, sys; from clinloom.store import Store; from clinloom.tables import FLOW\n"
        "store = Store(sys.argv[1])\n"
        "with store.writing('cohort', 'k') as out:\n"
        "    out.write(FLOW, FLOW.rows([{'step': 0, 'name': 'x', 'subjects': 1, 'rows': 1}]))\n"
        "    out.scratch('parts')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9 and len(parquet(tmp_path)) == 1
    store = Store(tmp_path)
    assert not store.current("cohort", "k")
    commit(store, stage="other")
    orphan = files.address(tmp_path) / "tables" / "index" / attempt("part-00000", ".parquet")
    files.folder(orphan.parent)
    with TableWriter(orphan, FLOW) as writer:
        writer.write(ROWS)
    assert store.sweep()["files"] == 1  # the flow of the killed run went with the commit
    assert parquet(tmp_path) == [f.name for f in store.stored("other", "flow").files()]


def test_a_new_version_takes_the_place_of_the_old_in_one_step(tmp_path):
    store = Store(tmp_path)
    commit(store)
    old = store.stored("cohort", "flow").files()
    commit(store, key="k2")
    new = store.stored("cohort", "flow").files()
    assert old != new and parquet(tmp_path) == [new[0].name]


def test_what_another_wrote_meanwhile_is_not_written_over(tmp_path):
    store = Store(tmp_path)
    commit(store)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 2, "stages": {}, "by": "other"}))
    with pytest.raises(StoreError, match="another run"):
        commit(store, key="k2")
    assert json.loads((tmp_path / "manifest.json").read_text())["by"] == "other"


def test_every_read_and_write_is_in_the_audit_trail(tmp_path):
    store = Store(tmp_path)
    commit(store)
    store.stored("cohort", "flow")
    store.close()
    [trail] = (tmp_path / "guarded").glob("audit-*.jsonl")
    lines = [json.loads(line) for line in trail.read_text().splitlines()]
    assert {(line["action"], line["what"]) for line in lines} == {
        ("write", "flow"),
        ("write", "leakage"),
        ("read", "flow"),
    }


def test_a_commit_whose_answer_was_lost_keeps_what_it_names(tmp_path, monkeypatch):
    swap = files.swap

    def lost(place, data, expected):
        swap(place, data, expected)
        raise OSError(errno.EIO, "the store could not be reached", str(place))

    store = Store(tmp_path)
    with pytest.raises(OSError, match="reached"), store.writing("cohort", "k") as out:
        out.write(FLOW, ROWS)
        monkeypatch.setattr(files, "swap", lost)
    assert finished(tmp_path)["flow"].read().num_rows == 1


def test_a_text_is_replaced_by_who_holds_the_output_alone(tmp_path):
    place = files.address(tmp_path) / "run.json"
    replace(place, b"old", lambda: None)
    with pytest.raises(StoreError, match="another run"):
        replace(place, b"late", lambda: files.write(place, b"the next run's") and None)
    assert files.read(place) == b"the next run's"


def publish(place, name, check=lambda: None):
    arrays = {"coefficients": np.zeros(1), "intercept": np.zeros(1)}
    statistics = learn(np.arange(10.0)[:, None], lower=0.01, upper=0.99)
    made = Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.5)
    told = {"study": {}, "features": [], "evidence": {"of": name}}
    bundle.publish(place, scorer=made, check=check, **told)


@pytest.mark.parametrize("moment", [1, 2], ids=["before its document", "before its removals"])
def test_who_publishes_late_neither_replaces_nor_breaks_the_bundle_of_the_next_run(
    tmp_path, moment
):
    place = files.address(tmp_path) / "bundle"
    publish(place, "old")
    checks = []

    def frozen():
        checks.append(1)
        if len(checks) == moment:
            publish(place, "next")

    if moment == 1:
        with pytest.raises(StoreError, match="another run"):
            publish(place, "late", frozen)
    else:
        publish(place, "late", frozen)
    assert len(checks) == moment
    assert bundle.Bundle.load(place).document["of"] == "next"
    assert len(list((tmp_path / "bundle").iterdir())) == 2  # and nothing of the late one's

"""What lies beside a ward's lists, broken or of another kind, takes no list and no answer away."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import wards

from clinloom import files
from clinloom.deploy import _answers, _lists
from clinloom.deploy.bundle import Bundle
from clinloom.errors import UsageError
from clinloom.outputs import parquet
from clinloom.run import score
from clinloom.study.cds_hooks import OVERRIDES
from clinloom.tables import SCORES

TEXTS = pa.array([["a text"]])


def without(name):
    return lambda table: table.drop_columns([name])


def instead(name, values):
    return lambda table: table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    "changed",
    [
        without("prediction_time"),
        instead("predicted_boolean_probability", pa.nulls(1, pa.float64())),
        instead("reasons", TEXTS),
        lambda table: table.replace_schema_metadata({"clinloom.bundle": "{"}),
    ],
)
def test_a_table_that_is_no_list_is_left_out(tmp_path, changed):
    wards.write(tmp_path, {"M1": 0.3}, day=-1)
    file = wards.write(tmp_path, {"M2": 0.9})
    pq.write_table(changed(pq.read_table(file)), file)
    (rows,) = _lists.Lists(str(tmp_path)).current().patients.values()
    assert rows[0]["patient"] == "M1"


def test_a_list_tells_by_which_bundle_it_was_scored(tmp_path, published):
    bundle = Bundle.load(published)
    part = wards.write(tmp_path / "parts", {"M1": 0.3})
    stored = SimpleNamespace(files=lambda: [files.address(part)])
    scores = SimpleNamespace(table=SCORES, predictions=stored, bundle=bundle)
    lists = tmp_path / "lists"
    parquet.write(scores, files.address(lists / "1.parquet"), parquet.Options())
    found = _lists.Lists(str(lists)).current()
    assert found.by.mark == bundle.mark and found.by.threshold == wards.THRESHOLD
    assert found.by.title == bundle.study["title"]
    assert _lists.Lists(str(part.parent)).current().by is None


def test_a_broken_answer_is_left_out_and_what_is_completed_is_read(tmp_path):
    answers = _answers.Answers(str(tmp_path), OVERRIDES)
    answers.give("1", wards.TODAY, "acknowledged", None)
    (file,) = (tmp_path / "feedback").rglob("*.jsonl")
    whole = file.read_bytes()
    line = json.loads(whole)
    wrong = [{**line, "outcome": "ignored"}, {**line, "outcomeTimestamp": "soon"}, [line], 5]
    texts = [whole[:30].decode(), *map(json.dumps, wrong), json.dumps({**line, "card": "kept"})]
    file.with_name("broken.jsonl").write_text("\n".join(texts))
    file.with_name(".hidden.jsonl.1").write_bytes(whole.replace(b'"card": "', b'"card": "not-'))
    file.write_bytes(whole[: len(whole) // 2])
    assert set(answers.last()) == {"kept"}
    file.write_bytes(whole)
    os.utime(file, ns=(1, 1))
    assert set(answers.last()) == {"kept", line["card"]}


def test_a_folder_that_goes_while_it_is_listed_is_left_out(tmp_path):
    for name in ("a", "b/c", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = files.listed(tmp_path)
    assert next(found).address.name == "a"
    shutil.rmtree(tmp_path / "b")
    assert [entry.address.name for entry in found] == ["d"]


def test_fewer_reasons_than_none_are_refused(published, tmp_path):
    with pytest.raises(UsageError, match="reasons are 0 or more"):
        score.score(str(published), out=str(tmp_path / "risk"), reasons=-1)


def test_a_time_of_an_answer_is_an_instant(tmp_path):
    answers = _answers.Answers(str(tmp_path), OVERRIDES)
    answers.give("1", wards.TODAY, "not_useful", "known")
    (found,) = answers.last().values()
    assert found["reason"] == "Known, and acted on already"
    assert dt.datetime.now(dt.UTC) - found["time"] < dt.timedelta(minutes=5)


def test_answers_that_have_grown_old_are_held_no_more(tmp_path):
    answers = _answers.Answers(str(tmp_path), OVERRIDES)
    answers.give("1", wards.TODAY, "acknowledged", None)
    assert answers.last() and answers._read
    today = dt.datetime.now(dt.UTC).date()
    old = today - dt.timedelta(days=_answers.SINCE + 1)
    (tmp_path / "feedback" / f"{today}").rename(tmp_path / "feedback" / f"{old}")
    answers._day = today - dt.timedelta(days=1)  # as if read yesterday
    assert not answers.last() and not answers._read


def test_a_wards_answers_are_not_listed_with_its_lists(tmp_path, monkeypatch):
    wards.write(tmp_path, {"M1": 0.3})
    wards.write(tmp_path / "feedback" / "2026-03-09", {"M2": 0.3})
    opened, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: opened.append(str(place)) or scandir(place))
    assert len(_lists.Lists(str(tmp_path)).current().patients) == 1
    assert opened == [str(tmp_path)]

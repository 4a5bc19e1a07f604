"""Where a stream's files come from, where it goes on from, how it ends, and who may read it."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.service import made

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import ClinloomError, StoreError, UsageError
from clinloom.events import STATIC
from clinloom.run import checkpoint, feeds, moments, stream
from clinloom.run.compare import compare
from clinloom.run.feeds import Feed, Reading
from clinloom.run.stream import State, Steps
from clinloom.tables import STREAMED


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return Bundle.load(made.publish(tmp_path_factory.mktemp("ends") / "bundle", count=2))


def test_files_are_passed_over_and_refused_as_a_run_does(tmp_path, bundle):
    sources = dict(bundle.resolved.sources)
    sources["ehr"] = sources["ehr"].model_copy(update={"include": "*.json"})
    (tmp_path / "a.json").write_bytes(made.body(1))
    for name in ("b.txt", "c.zip"):
        (tmp_path / name).write_text("PK\3\4 broken")
    found = [
        ("ehr", f"file:{tmp_path}/{name}")
        for name in ("a.json", "b.txt", "c.zip", "d.json", "e.txt")
    ]
    units = [*feeds._units(found, {"ehr": files.address(tmp_path)}, sources, 2)]
    assert sorted(piece.name for u in units for piece in u["units"]) == [
        "a.json",
        "c.zip",
        "d.json",
    ]
    reading = Reading(sources, late=STATIC, now=1_900_000_000_000_000)
    parcels = [parcel for unit in units for parcel in feeds._of_files(unit, reading=reading)]
    told = [row for parcel in parcels if "told" in parcel for row in parcel["told"].to_pylist()]
    unread = {row["file"] for row in told if row["reason"] == "unreadable_file"}
    assert unread == {"c.zip", "d.json"} and any("events" in parcel for parcel in parcels)


def test_a_source_comes_by_one_folder(bundle):
    with pytest.raises(UsageError, match="two folders"):
        feeds.read(["ehr=/a", "events=/c", "ehr=/b"], bundle.resolved.sources)


@pytest.mark.parametrize(
    ("batch", "begun", "done", "fits"),
    [
        (-1, 0, 0, True),
        (-1, 1, 0, True),
        (-1, 1, 1, False),
        (0, 1, 0, True),
        (0, 0, 0, False),  # Spark would begin anew with a micro-batch that is passed over
        (3, 5, 3, True),
        (3, 4, 4, True),
        (3, 6, 5, False),  # what came in the micro-batch 4 is in no state
        (3, 3, 2, False),
        (3, 4, 0, False),
    ],
)
def test_what_spark_did_and_what_is_kept_are_of_one_stream(tmp_path, batch, begun, done, fits):
    for room, count in (("offsets", begun), ("commits", done)):
        for number in range(count):
            files.write(files.address(tmp_path / room / str(number)), b"")
            files.write(files.address(tmp_path / room / f".{number}.crc"), b"")
    store = SimpleNamespace(sweep=lambda: None)
    steps = SimpleNamespace(work=SimpleNamespace(store=store), state=State("", 1, batch=batch))
    if fits:
        Steps.begin(steps, files.address(tmp_path))
    else:
        with pytest.raises(StoreError, match="not of one stream"):
            Steps.begin(steps, files.address(tmp_path))


def test_a_micro_batch_brings_the_files_that_spark_noted_for_it(tmp_path):
    feeds_ = [Feed("ehr", "/in"), Feed("events", "delta:/lake"), Feed("lab", "/hdfs")]
    offsets = [
        ['{"logOffset":8}', "-", "-"],
        ['{"logOffset":10}', '{"sourceVersion":1}', "-"],
        ['{"logOffset":10}', '{"sourceVersion":2}', '{"logOffset":0}'],
    ]
    spark = files.address(tmp_path)
    for batch, lines in enumerate(offsets, 4):
        files.write(spark / f"offsets/{batch}", "\n".join(["v1", "{}", *lines]).encode())
    for place, of in (("0/9.compact", [8, 9]), ("0/10", [10]), ("2/0", [0])):
        named = [f'{{"path":"file:///in/a%20b%23{n}.json","batchId":{n}}}' for n in of]
        files.write(spark / f"sources/{place}", "\n".join(["v1", *named]).encode())
    found = {n: checkpoint.brought(spark, n, feeds_) for n in (5, 6)}
    assert found[5] == [("ehr", f"file:///in/a%20b%23{n}.json") for n in (9, 10)]
    assert found[6] == [("lab", "file:///in/a%20b%230.json")]
    assert feeds._address(found[5][0][1], files.address("/in")) == "/in/a b#9.json"
    for uri, root in (("hdfs://node:8020/in/x/a", "hdfs:///in"), ("s3a://b/in/x/a", "s3://b/in")):
        assert feeds._address(uri, files.address(root)) == f"{root}/x/a"
    files.remove(spark / "sources/0/10")
    with pytest.raises(StoreError, match="does not tell which files"):
        checkpoint.brought(spark, 5, feeds_)


def test_after_a_fault_no_step_is_begun():
    steps, stopped = object.__new__(Steps), []
    steps._turn, steps._ended, steps._fault = threading.Lock(), False, None

    def fails():
        raise StoreError("the disk is full")

    steps.tick = fails
    query = SimpleNamespace(
        isActive=True, awaitTermination=lambda *_: False, stop=lambda: stopped.append(1)
    )
    with pytest.raises(StoreError, match="full"):
        steps.follow(query, once=False)
    with pytest.raises(ClinloomError, match="stopped"):
        steps.take(None, 0)
    assert stopped


def test_a_step_that_fails_while_the_stream_is_asked_to_end_is_told(monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE", 0)
    steps, begun = object.__new__(Steps), threading.Event()
    steps._turn, steps._ended, steps._fault = threading.Lock(), False, None
    steps.state = State("", 1)

    def fails(*_):
        begun.set()
        raise StoreError("the disk is full")

    def take():
        with suppress(StoreError):
            steps.take(None, 0)

    steps._step = fails
    query = SimpleNamespace(isActive=True, stop=lambda: None)
    thread = threading.Thread(target=take)
    thread.start()
    with pytest.raises(StoreError, match="full"):
        steps.follow(query, once=False, stopped=lambda: begun.wait(5))
    thread.join()
    steps._fault = None
    with pytest.raises(ClinloomError, match="stopped"):
        steps.take(None, 1)  # none that was not begun
    steps.follow(query, once=False, stopped=lambda: True)


def test_a_streams_predictions_of_which_the_last_counts_are_no_scores(tmp_path):
    pq.write_table(STREAMED.empty, tmp_path / "1.parquet")
    with pytest.raises(StoreError, match="last version"):
        moments.read(str(tmp_path), None, None)
    left = STREAMED.empty.drop_columns(["version", "withdrawn"])
    pq.write_table(pa.table(left), tmp_path / "1.parquet")
    moments.read(str(tmp_path), None, None)


def test_bundles_for_other_outcomes_are_not_compared(tmp_path, bundle):
    study = made.STUDY.replace("within: 30d", "within: 90d")
    other = made.publish(tmp_path / "other", count=2, study=study)
    more = {"predictions": "none", "challenger_predictions": "none"}
    with pytest.raises(UsageError, match="another outcome"):
        compare(str(bundle.place), str(other), **more)

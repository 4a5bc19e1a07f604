"""The store on object stores and HDFS: commits, one run at a time, and what a dead one leaves."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from tests.clusters.stores import Server, azure, azurite, hdfs, moto, s3

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address
from clinloom.files._drivers import _objects
from clinloom.store import Pending, Store, finished, holding, lease
from clinloom.tables import COUNTS

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
__all__ = ["azure", "azurite", "hdfs", "moto", "s3"]

HOLDER = """
import json, sys
from clinloom import files
from clinloom.store import Store, lease

root, options, machine = json.loads(sys.argv[1])
lease.BEAT = 0.2
if machine:
    lease._machine = lambda: machine
files.use(options)
held = Store(root)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["s3", "azure", "hdfs"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An output on each storage, whose leases are renewed and given up fast."""
    monkeypatch.setattr(lease, "BEAT", 0.2)
    monkeypatch.setattr(lease, "WATCH", 2.0)
    server: Server = request.getfixturevalue(request.param)
    server.root = server.root / "out"
    return server


@contextmanager
def opened(root: Address, notes: list[str] | None = None) -> Iterator[Store]:
    """A run that holds the output."""
    store = Store(root, note=(notes if notes is not None else []).append)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def another(place: Server, *, machine: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the output, of this machine or as if of another."""
    told = json.dumps([str(place.root), place.options, machine])
    command = [sys.executable, "-c", HOLDER, told]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate(timeout=10)


def put(pending: Pending, rows: int) -> None:
    """A table of one row that says this number."""
    pending.write(COUNTS, COUNTS.rows([{"table": "told", "rows": rows}]))


def told(root: Address) -> list[int]:
    """What the committed table says to a reader who holds nothing."""
    found: list[int] = finished(root)["counts"].read().column("rows").to_pylist()
    return found


def kept(root: Address) -> set[str]:
    """Every file below ``tables/`` and the scratch."""
    return {
        each.address.relative_to(root)
        for room in ("tables", ".scratch")
        for each in files.listed(root / room)
    }


def named(root: Address) -> set[str]:
    """Every file of the committed table."""
    return {each.relative_to(root) for each in finished(root)["counts"].files()}


def test_a_commit_is_read_back_and_replaced(place: Server):
    with opened(place.root) as store:
        with store.writing("count", "first") as pending:
            put(pending, 1)
        assert store.current("count", "first") and not store.current("count", "second")
        assert told(place.root) == [1] == store.stored("count", "counts").read()["rows"].to_pylist()
        with pytest.raises(ZeroDivisionError), store.writing("count", "second") as pending:
            files.write(pending.scratch("aside") / "x", b"1")
            put(pending, 1 // 0)
        assert told(place.root) == [1] and kept(place.root) == named(place.root)
        with store.writing("count", "second") as pending:
            put(pending, 2)
    with opened(place.root) as store:
        assert store.current("count", "second") and not store.current("count", "first")
    assert told(place.root) == [2] and kept(place.root) == named(place.root)


def test_what_no_commit_names_is_counted_and_swept(place: Server):
    with opened(place.root) as store:
        with store.writing("count", "first") as pending:
            put(pending, 1)
        for name in ("tables/counts/part-9.parquet", "models/lr/spark-1/data/x", ".scratch/a/b"):
            files.write(place.root / name, b"12345")
        assert store.sweep() == {"files": 3, "bytes": 15}
        assert store.sweep() == {"files": 0, "bytes": 0}
    assert told(place.root) == [1] and kept(place.root) == named(place.root)


def test_a_second_run_is_told_while_the_first_lives(place: Server):
    with opened(place.root) as store:
        for _ in range(2):
            with pytest.raises(StoreError, match="another run is writing here"):
                Store(place.root)
        with store.writing("count", "first") as pending:
            put(pending, 1)
    notes: list[str] = []
    with opened(place.root, notes):
        assert notes == [] and told(place.root) == [1]


def test_a_killed_holder_of_this_machine_is_not_waited_for(place: Server):
    with another(place) as holder:
        with pytest.raises(StoreError, match="another run is writing here"):
            Store(place.root)
        holder.kill()
        holder.wait()
        notes: list[str] = []
        with opened(place.root, notes) as store, store.writing("count", "first") as pending:
            put(pending, 1)
        assert notes == [] and told(place.root) == [1]


def test_a_dead_holder_of_another_machine_is_watched_first(place: Server):
    with another(place, machine="elsewhere") as holder:
        with pytest.raises(StoreError, match="another run is writing here"):
            Store(place.root)
        holder.kill()
        holder.wait()
        notes: list[str] = []
        with opened(place.root, notes) as store, store.writing("count", "first") as pending:
            put(pending, 1)
        assert len(notes) == 1 and "waiting 2 s" in notes[0]


def test_a_holder_that_was_overtaken_commits_nothing_and_harms_nothing(
    place: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "BEAT", 3600.0)  # it hangs: a machine that sleeps, a long pause
    late = Store(place.root)
    monkeypatch.setattr(lease, "BEAT", 0.2)
    with opened(place.root) as store:
        with pytest.raises(StoreError, match="another run"), late.writing("count", "l") as pending:
            put(pending, 1)
            with store.writing("count", "first") as theirs:
                put(theirs, 2)
            put(pending, 3)
        assert told(place.root) == [2] and kept(place.root) == named(place.root)
        with pytest.raises(StoreError, match="another run"):
            late.sweep()
        with suppress(StoreError):
            late.close()
        with pytest.raises(StoreError, match="another run is writing here"):
            Store(place.root)  # the late one's end gave nothing away
        with store.writing("count", "second") as theirs:
            put(theirs, 4)
    assert told(place.root) == [4] and kept(place.root) == named(place.root)


@pytest.fixture
def late(place: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A holder that hangs: it renews nothing, and another takes the output over."""
    monkeypatch.setattr(lease, "BEAT", 3600.0)
    monkeypatch.setattr(lease, "WATCH", 0.6)
    yield Store(place.root)


@contextmanager
def overtaking(root: Address, rows: int) -> Iterator[Store]:
    """Another run, which takes over and commits in every room of the output."""
    with opened(root) as store:
        with store.writing("count", "theirs") as pending:
            put(pending, rows)
            pending.put("models.lr", "x", b"theirs")
        yield store


@pytest.mark.parametrize("what", ["sweep", "tidy"])
def test_who_is_frozen_between_check_and_removal_takes_nothing_of_the_next_run(
    place: Server, late: Store, monkeypatch: pytest.MonkeyPatch, what: str
):
    lasting, after = late.check, []
    asked = itertools.count(-1 if what == "sweep" else 0)  # a sweep asks before it lists, too
    monkeypatch.setattr(holding, "BATCH", 1)
    monkeypatch.setattr(_objects, "PAGE", 2)
    for name in ("a/orphan", "counts/orphan", "z/orphan"):
        files.write(place.root / "tables" / name, b"1")
    with ExitStack() as running:

        def frozen() -> None:
            lasting()
            if next(asked) == 0:
                after.append(running.enter_context(overtaking(place.root, 7)))

        with suppress(StoreError, ZeroDivisionError):
            if what == "sweep":
                monkeypatch.setattr(late, "check", frozen)
                late.sweep()
            else:
                with late.writing("count", "mine") as pending:
                    put(pending, 1)
                    pending.put("models.lr", "x", b"mine")
                    monkeypatch.setattr(late, "check", frozen)
                    raise ZeroDivisionError
        (theirs,) = after
        assert told(place.root) == [7]
        assert theirs.stored("count", "models.lr").text("x") == "theirs"
        with suppress(StoreError):
            late.close()


def test_who_ends_late_frees_no_lease_of_the_next_run(
    place: Server, late: Store, monkeypatch: pytest.MonkeyPatch
):
    with ExitStack() as running:
        swap, remove = files.swap, files.remove

        def overtaken(at: Address) -> None:
            monkeypatch.setattr(files, "swap", swap)
            monkeypatch.setattr(files, "remove", remove)
            monkeypatch.setattr(lease, "BEAT", 0.2)
            running.enter_context(opened(place.root))

        def freeing(at: Address, data: bytes, expected: str | None) -> str | None:
            if b"free" in data:
                overtaken(at)
            return swap(at, data, expected)

        def removing(at: Address) -> None:
            overtaken(at)
            remove(at)

        monkeypatch.setattr(files, "swap", freeing)
        monkeypatch.setattr(files, "remove", removing)
        late.close()
        assert files.swap is swap  # the next run holds it
        with pytest.raises(StoreError, match="another run is writing here"):
            Store(place.root)


def test_who_was_about_to_commit_when_it_was_overtaken_commits_nothing(
    place: Server, late: Store, monkeypatch: pytest.MonkeyPatch
):
    document = place.root / "bundle" / "bundle.json"
    files.write(document, b'{"format": 2}')
    with ExitStack() as running:
        lasting = late._lease.check

        def frozen() -> None:
            lasting()
            running.enter_context(opened(place.root)).sweep()

        seen = files.version(document)
        monkeypatch.setattr(late._lease, "check", frozen)
        with pytest.raises(StoreError, match="another run"), late.writing("count", "l") as pending:
            put(pending, 1)
        assert finished(place.root) == {} and kept(place.root) == set()
        assert files.swap(document, b"{}", seen) is None  # nor is its bundle published

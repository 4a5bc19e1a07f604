"""Files by address against real servers: what holds on every storage, and what is fetched."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.clusters import buckets
from tests.clusters.stores import Server, azure, azurite, google, gs, hdfs, moto, s3

from clinloom import files
from clinloom.errors import StoreError, UsageError
from clinloom.files._drivers import _ordered

pytestmark = pytest.mark.cluster
__all__ = ["azure", "azurite", "google", "gs", "hdfs", "moto", "s3"]


@pytest.fixture(params=["s3", "azure", "gs", "hdfs"])
def store(request: pytest.FixtureRequest) -> Server:
    """Every storage."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["s3", "azure", "gs"])
def counted(request: pytest.FixtureRequest) -> Server:
    """A storage with conditional puts, and one that tells what went over the wire."""
    return request.getfixturevalue(request.param)


def names(entries: Iterator[files.Entry], root: str) -> list[str]:
    return [e.address.relative_to(root) for e in entries]


def test_what_is_written_is_read(store: Server):
    a = store.root / "folder/ä file.bin"
    made = files.write(a, b"0123456789")
    assert files.read(a) == b"0123456789" and files.version(a) == made
    assert files.read(a, 3) == b"3456789" and files.read(a, 2, 4) == b"23"
    assert files.read(a, 10) == b"" and files.read(a, 99, 120) == b"" and files.read(a, 4, 4) == b""
    assert files.read(a, None, 3) == b"012" and files.read(a, 8, 99) == b"89"
    assert files.entry(a) == (a, 10, made)
    assert files.exists(a) and files.exists(a.parent) and files.exists(store.root)
    again = files.write(a, b"")
    assert again != made and files.read(a) == b"" and files.random(a).read() == b""


def test_a_missing_object_is_not_found(store: Server):
    a = store.root / "nothing"
    for verb in (files.read, files.entry, files.random):
        with pytest.raises(FileNotFoundError, match="nothing"):
            verb(a)
    assert files.version(a) is None and not files.exists(a) and list(files.listed(a)) == []
    files.remove(a)
    elsewhere = files.address(str(a).replace("test-", "none-"))
    assert not files.exists(elsewhere) and list(files.listed(elsewhere)) == []
    if store.wire:  # no such bucket: a folder is made, a bucket is not
        with pytest.raises(FileNotFoundError):
            files.write(elsewhere, b"x")


def test_only_one_creates_and_a_stale_version_swaps_nothing(store: Server):
    a = store.root / "manifest.json"
    first = files.create(a, b"1")
    assert first is not None and files.create(a, b"1") is None and files.read(a) == b"1"
    second = files.swap(a, b"2", first)
    assert second is not None and files.swap(a, b"3", first) is None and files.read(a) == b"2"
    assert files.swap(a, b"4", None) is None and files.version(a) == second
    files.remove(a)
    assert files.swap(a, b"5", second) is None and not files.exists(a)
    assert files.swap(a, b"6", None) is not None


def test_a_write_answers_the_version_of_its_own_file(hdfs: Server, monkeypatch):
    """On HDFS the name may be another writer's file when the write is over."""
    from clinloom.files.stores import store as opened

    a = hdfs.root / "manifest.json"
    driver, client = opened(a), opened(a)._client

    class Racing:
        """The client; another writer comes right after its rename."""

        def __getattr__(self, name: str):
            return getattr(client, name)

        def rename(self, *args: object) -> None:
            client.rename(*args)
            monkeypatch.setattr(driver, "_client", client)
            files.write(a, b"another's")

    monkeypatch.setattr(driver, "_client", Racing())
    mine = files.write(a, b"mine")
    assert files.read(a) == b"another's" and files.swap(a, b"2", mine) is None


def test_of_many_that_swap_at_once_one_wins(counted: Server):
    a = counted.root / "manifest.json"
    held = files.create(a, b"0")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: files.swap(a, f"{n}".encode(), held), range(1, 9)))
    assert sum(m is not None for m in made) == 1
    assert made[int(files.read(a)) - 1] == files.version(a)


def test_of_many_that_create_at_once_one_wins(store: Server):
    a = store.root / "lease"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: files.create(a, f"{n}".encode()), range(8)))
    (winner,) = [n for n, version in enumerate(made) if version is not None]
    assert files.read(a) == f"{winner}".encode() and files.version(a) == made[winner]
    assert [e.address for e in files.listed(store.root)] == [a]


def test_a_put_whose_answer_was_lost_counts_as_made(counted: Server, monkeypatch):
    from clinloom.files.stores import store as opened

    a = counted.root / "lease"
    driver = opened(a)
    send, calls = driver.send, []

    async def lost(*args, **kw):
        made = await send(*args, **kw)
        calls.append(made)
        if len(calls) == 1:
            raise ConnectionResetError("after the store had taken it")
        return made

    monkeypatch.setattr(driver, "send", lost)
    assert files.create(a, b"mine") == calls[0] == files.version(a)
    assert files.create(a, b"mine") is None


def test_a_file_is_built_whole_or_not_at_all(store: Server, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},/nowhere")
    a = store.root / "part.bin"
    with pytest.raises(ValueError, match="midway"), files.building(a) as path:
        path.write_bytes(b"half")
        assert path.parent == tmp_path and path.stat().st_mode & 0o077 == 0
        raise ValueError("midway")
    assert not files.exists(a) and list(tmp_path.iterdir()) == []
    large = np.random.default_rng(1).bytes(40 << 20)  # more than one part
    with files.building(a) as path:
        path.write_bytes(large)
        assert not files.exists(a)
    assert files.read(a) == large and list(tmp_path.iterdir()) == []


def test_an_upload_that_fails_leaves_no_part(s3: Server, monkeypatch):
    from clinloom.files.stores import store as opened

    driver = opened(s3.root)
    call = driver.fs._call_s3

    async def broken(method, *args, **kw):
        if method == "upload_part" and kw.get("PartNumber", 0) > 1:
            raise PermissionError("refused")
        return await call(method, *args, **kw)

    monkeypatch.setattr(driver.fs, "_call_s3", broken)
    with pytest.raises(PermissionError), files.building(s3.root / "large") as path:
        path.write_bytes(bytes(40 << 20))
    monkeypatch.undo()
    left = driver.fs.call_s3("list_multipart_uploads", Bucket=driver.bucket)
    assert not left.get("Uploads") and not files.exists(s3.root / "large")


def test_a_listing_is_whole_and_in_the_order_of_paths(store: Server, monkeypatch, tmp_path):
    from clinloom.files._drivers import _objects

    wanted = ["a", "a-1/x", "a.csv", "a/.hidden", "a/b", "a/b-c", "a/b/c", "b c", "ü", "a!/z/1"]
    wanted += [f"many-{n:02d}/part-{m}.parquet" for n in range(6) for m in range(3)]
    wanted += [f"many/{n}" for n in range(5)]
    local = [name for name in wanted if name not in ("a", "a/b")]  # no file beside its folder
    for name in local:
        files.write(files.address(tmp_path) / name, b"x")
        files.write(store.root / name, b"x")
    monkeypatch.setattr(_objects, "PAGE", 4)
    monkeypatch.setattr(_ordered, "HELD", 3)
    here = names(files.listed(tmp_path), str(tmp_path))
    assert names(files.listed(store.root), store.root) == here
    assert sorted(here) == sorted(local)
    own = names(files.listed(store.root, deep=False), store.root)
    assert own == [name for name in here if "/" not in name]
    assert names(files.listed(store.root / "many"), store.root) == [f"many/{n}" for n in range(5)]
    if store.wire:  # a bucket may hold a file and a folder of one name
        for name in ("a", "a/b"):
            files.write(store.root / name, b"x")
        found = names(files.listed(store.root), store.root)
        assert found == sorted(wanted, key=lambda name: name.split("/"))
    files.remove(store.root / "many")
    files.remove(store.root / "many-00/part-0.parquet")
    assert len(list(files.listed(store.root))) == len(here) + 2 * bool(store.wire) - 6


def test_a_listing_of_many_pages_is_streamed(s3: Server, monkeypatch):
    from clinloom.files._drivers import _objects

    monkeypatch.setattr(_objects, "PAGE", 25)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: files.write(s3.root / f"x/{n:04d}", b"1"), range(110)))
    s3.wire.reset()
    found = files.listed(s3.root)
    first = next(found)
    assert len([r for r in s3.wire.requests if b"list-type=2" in r]) <= 2
    rest = names(found, s3.root)
    assert [first.address.relative_to(s3.root), *rest] == [f"x/{n:04d}" for n in range(110)]
    files.remove(s3.root / "x")
    assert list(files.listed(s3.root)) == []


def wide(rows: int = 400_000) -> bytes:
    random = np.random.default_rng(3)
    table = pa.table({f"c{n}": random.random(rows) for n in range(8)})
    out = io.BytesIO()
    pq.write_table(table, out, compression="none", use_dictionary=False, row_group_size=rows // 4)
    return out.getvalue()


def test_a_parquet_column_costs_its_own_bytes(counted: Server):
    a = counted.root / "wide.parquet"
    data = wide()
    files.write(a, data)
    meta = pq.read_metadata(io.BytesIO(data))
    needed = sum(
        meta.row_group(n).column(3).total_compressed_size for n in range(meta.num_row_groups)
    )
    for buffered in (False, True):
        counted.wire.reset()
        read = pq.ParquetFile(files.random(a), pre_buffer=buffered).read(columns=["c3"])
        assert read.num_rows == 400_000
        assert needed <= counted.wire.answered <= 1.1 * needed


def archive(members: dict[str, bytes], kinds: Sequence[int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for number, (name, data) in enumerate(members.items()):
            made.writestr(name, data, compress_type=kinds[number % len(kinds)])
    return out.getvalue()


def test_members_of_an_archive_cost_their_own_bytes(counted: Server):
    random = np.random.default_rng(5)
    held = {f"x/{n:03d}.dcm": random.bytes(60_000 + n) for n in range(80)}
    data = archive(held, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    files.write(counted.root / "scans/all.zip", data)
    counted.wire.reset()
    pieces = list(files.listing(counted.root / "scans"))
    assert [p.name for p in pieces] == [f"all.zip!/{name}" for name in held]
    assert counted.wire.answered < len(data) / 50  # the directory alone
    counted.wire.reset()
    assert pieces[40].read() == held["x/040.dcm"]
    assert pieces[40].size <= counted.wire.answered <= 1.1 * pieces[40].size
    counted.wire.reset()
    group = files.adjoined(next(files.groups(pieces[10:50], cores=1, total=1 << 40)))
    assert len(group) == 40 and [p.read() for p in group] == [held[p.member] for p in group]
    assert counted.wire.answered <= 1.1 * sum(p.size for p in group)
    assert len(counted.wire.requests) == 1


def test_rarer_kinds_of_archives_are_read(store: Server):
    held = {"a": b"1" * 1000, "b": b"2" * 1000, "c": b""}
    files.write(store.root / "x.zip", archive(held, (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 0)))
    pieces = list(files.listing(store.root / "x.zip"))
    assert [p.name for p in pieces] == ["x.zip!/a", "x.zip!/b", "x.zip!/c"]
    assert [p.read() for p in pieces] == list(held.values())


def test_lines_of_a_long_file_cost_their_own_bytes(counted: Server, monkeypatch):
    from clinloom.files import pieces as room

    monkeypatch.setattr(room, "RANGE", 1 << 20)
    lines = b"".join(b"%d,%s\n" % (n, b"x" * (n % 97)) for n in range(60_000))
    files.write(counted.root / "long.csv", lines)
    (piece,) = files.listing(counted.root)
    parts = list(files.cut([piece]))
    assert len(parts) > 2
    counted.wire.reset()
    assert b"".join(p.read() for p in parts) == lines
    assert counted.wire.answered <= 1.1 * len(lines)
    assert all(lines[p.first_byte() :].startswith(p.read()[:20]) for p in parts)


def test_eight_threads_read_one_file(store: Server):
    data = np.random.default_rng(7).bytes(1 << 20)
    files.write(store.root / "shared", data)
    opened = files.random(store.root / "shared")
    places = [(n * 7919) % ((1 << 20) - 5000) for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda at: opened.read_at(5000, at), places))
    assert read == [data[at : at + 5000] for at in places]


def test_a_file_that_is_rewritten_while_it_is_read_is_a_fault(counted: Server):
    files.write(counted.root / "x", b"a" * 1000)
    opened = files.random(counted.root / "x")
    files.write(counted.root / "x", b"b" * 1000)
    with pytest.raises(OSError, match="rewritten"):
        opened.read_at(10, 0)


def _read_in_child(root: str, options: dict, queue: multiprocessing.Queue) -> None:
    files.use(options)
    try:
        queue.put(files.read(files.address(root) / "x"))
    except StoreError as error:
        queue.put(error.message)


def test_a_forked_worker_opens_its_own_or_is_told(store: Server):
    files.write(store.root / "x", b"told")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    told = (str(store.root), files.settings(), queue)
    child = context.Process(target=_read_in_child, args=told, daemon=True)
    child.start()
    forked = "HDFS was used before this process was forked"  # its library cannot be carried over
    assert queue.get(timeout=20) == (b"told" if store.wire else forked)
    child.join(10)


def test_what_goes_to_workers_holds_no_secret(store: Server):
    told = pickle.dumps((files.settings(), store.root))
    for secret in (buckets.ACCESS_KEY, buckets.SECRET_KEY, buckets.ACCOUNT_KEY):
        assert secret.encode() not in told


def test_who_may_not_is_told_so_without_a_secret(s3: Server, monkeypatch):
    wrong = {"endpoint_url": s3.options["s3"]["endpoint_url"], "profile": "nobody-here"}
    files.use({"s3": wrong})
    with pytest.raises(PermissionError, match="s3://") as caught:
        files.read(s3.root / "x")
    assert "nobody" not in str(caught.value)


def test_a_store_that_does_not_answer_is_a_fault_that_may_pass(monkeypatch):
    port = socket_that_refuses()
    for name in ("TEST_KEY", "TEST_SECRET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    files.use(
        {
            "s3": {
                "endpoint_url": f"http://127.0.0.1:{port}",
                "key": "env:TEST_KEY",
                "secret": "env:TEST_SECRET",
            }
        }
    )
    try:
        with pytest.raises(OSError, match="could not be reached") as caught:
            files.read("s3://bucket/x")
        assert not isinstance(caught.value, (FileNotFoundError, PermissionError))
    finally:
        files.use({})


def socket_that_refuses() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def test_threads_open_one_store_at_once(s3: Server):
    files.write(s3.root / "x", b"1")
    files.use(s3.options)
    gate = threading.Barrier(8)

    def read(_: int) -> bytes:
        gate.wait()
        return files.read(s3.root / "x")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {b"1"}


def test_an_address_without_a_name_node_is_the_clusters_own(hdfs: Server):
    files.write(hdfs.root / "x", b"1")
    a = files.address(f"hdfs:/{hdfs.root.key}") / "x"
    assert a == f"hdfs:///{hdfs.root.key}/x" and files.read(a) == b"1"
    assert [e.address for e in files.listed(a.parent)] == [a]
    files.use({})  # no cluster is configured: a fault of the study, told as one
    with pytest.raises((UsageError, OSError)) as caught:
        files.read(a)
    assert not isinstance(caught.value, FileNotFoundError)


def test_credentials_that_cannot_be_used_are_not_shown(monkeypatch):
    for broken in ('{"canary": 1}', "{canary"):
        monkeypatch.setenv("TEST_TOKEN", broken)
        files.use({"gs": {"token": "env:TEST_TOKEN"}})
        try:
            with pytest.raises(UsageError, match="cannot be used") as caught:
                files.read("gs://bucket/x")
            assert "canary" not in str(caught.value)
        finally:
            files.use({})

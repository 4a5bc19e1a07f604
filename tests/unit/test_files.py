"""Files by address on this machine: addresses, options, verbs, pieces and archives."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinloom import files
from clinloom.errors import MissingDependency, SourceError, UsageError
from clinloom.files import registry
from clinloom.files._drivers import _ordered
from clinloom.files._drivers._ordered import Found, ordered
from clinloom.files.address import Address, address


@pytest.mark.parametrize(
    ("text", "wanted", "uri"),
    [
        ("/x/y", "/x/y", "file:///x/y"),
        ("/x//y/./z/", "/x/y/z", "file:///x/y/z"),
        ("file:/x/y", "/x/y", "file:///x/y"),
        ("file:///x/y", "/x/y", "file:///x/y"),
        ("file://localhost/x", "/x", "file:///x"),
        ("s3://bucket/a/b.csv", "s3://bucket/a/b.csv", "s3a://bucket/a/b.csv"),
        ("s3a://bucket/a/", "s3://bucket/a", "s3a://bucket/a"),
        ("S3N://bucket", "s3://bucket", "s3a://bucket"),
        ("s3:/bucket/a", "s3://bucket/a", "s3a://bucket/a"),
        ("hdfs://node:8020/a", "hdfs://node:8020/a", "hdfs://node:8020/a"),
        ("hdfs:///a", "hdfs:///a", "hdfs:///a"),
        ("hdfs:/a", "hdfs:///a", "hdfs:///a"),
        ("gs://b/a", "gs://b/a", "gs://b/a"),
        ("gcs://b/a", "gs://b/a", "gs://b/a"),
        ("abfss://c@a.dfs.core.windows.net/k", *["abfss://c@a.dfs.core.windows.net/k"] * 2),
        ("/x/a:b.csv", "/x/a:b.csv", "file:///x/a:b.csv"),
        ("/x/s3a:/y", "/x/s3a:/y", "file:///x/s3a:/y"),
    ],
)
def test_a_text_is_an_address(text, wanted, uri):
    found = address(text)
    assert (str(found), found.uri) == (wanted, uri)
    assert address(found) is found and address(str(found)) == found
    assert pickle.loads(pickle.dumps(found)) == found and type(json.loads(json.dumps(found))) is str  # noqa: S301


def test_a_path_without_a_scheme_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert address("a/b") == f"{tmp_path}/a/b" and address("a:b.csv") == f"{tmp_path}/a:b.csv"
    assert address("~/x") == "/home/someone/x" and address("x", base="/y") == "/y/x"
    assert address("../x", base="/y") == "/y/../x"  # a link may stand there: the system resolves it
    assert address("data/x", base="s3://b/studies") == "s3://b/studies/data/x"
    assert address("../x", base=address("s3://b/studies")) == "s3://b/x"
    assert address("/x", base="s3://b/studies") == "/x" == address(Path("/x"))


def test_the_parts_of_an_address():
    a = address("s3://b/x/y.parquet")
    assert (a.name, a.suffix, a.scheme, a.local) == ("y.parquet", ".parquet", "s3", False)
    assert a.parent == "s3://b/x" and a.parent.parent == "s3://b" == a.parent.parent.parent
    assert a.parent / "z" / "" == "s3://b/x/z" and a.relative_to("s3://b/x/") == "y.parquet"
    here = address("/x/y")
    assert here.path == Path("/x/y") and here.parent == "/x" and here.parent.parent == "/"
    assert address("/") / "x" == "/x" and isinstance(here / "z", Address)
    assert address("hdfs:///x").parent == "hdfs:///" and address("hdfs:///") / "y" == "hdfs:///y"
    with pytest.raises(ValueError, match="not on this machine"):
        _ = a.path
    with pytest.raises(ValueError, match="below"):
        a.relative_to("s3://b/xx")
    for name in ("/etc", "../x", "x/../../y"):
        with pytest.raises(ValueError, match="below a folder"):
            _ = here / name


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("s4://b/x", "did you mean 's3"),
        ("hdf://b/x", "did you mean 'hdfs:'"),
        ("zzz:/x", "the schemes are"),
        ("wasbs://c@a.blob.core.windows.net/x", "abfss://"),
        ("dbfs:/x", "/dbfs/"),
        ("https://host/x", "fetch it first"),
        ("s3:///x", "s3://NAME"),
        ("abfss:///x", "abfss://NAME"),
        ("file://host/x", "file:///host/"),
    ],
)
def test_an_unknown_scheme_is_a_fault_with_its_mend(text, mend):
    with pytest.raises(UsageError) as caught:
        address(text)
    assert mend in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:canary@bucket/x",
        "hdfs://me:canary@node/x",
        "abfss://c@a.dfs.core.windows.net/x?sv=1&sig=canary",
        "s3://b/x?X-Amz-Signature=canary",
    ],
)
def test_an_address_carries_no_secret(text):
    with pytest.raises(UsageError, match="secret") as caught:
        address(text)
    assert "canary" not in str(caught.value)


def test_options_are_checked_and_secrets_are_named(tmp_path, monkeypatch):
    for wrong, told in [
        ({"s3": {"endpoint": "x"}}, "endpoint_url"),
        ({"s5": {}}, "did you mean"),
        ({"s3": {"secret": "canary"}}, "env:NAME"),
        ({"s3": {"endpoint_url": "http://u:canary@h"}}, "user or secret"),
        ({"abfs": {"account_key": "canary"}}, "env:NAME"),
        ({"hdfs": {"hadoop.x.password": "canary"}}, "env:NAME"),
        ({"s3": {"region": ["canary"]}}, "a text"),
    ]:
        with pytest.raises(UsageError) as caught:
            files.use(wrong)
        assert told in str(caught.value) and "canary" not in str(caught.value)
    assert files.settings() == {}
    (tmp_path / "secret").write_text("canary\n")
    monkeypatch.setenv("KEY", "canary")
    given = {"s3a": {"key": "env:KEY", "secret": f"file:{tmp_path}/secret", "region": "x"}}
    files.use(given)
    try:
        assert files.settings() == {"s3": given["s3a"]}
        assert b"canary" not in pickle.dumps(files.settings())
        from clinloom.files.options import resolved

        assert resolved(files.settings()["s3"], "s3")["secret"] == "canary"
        monkeypatch.delenv("KEY")
        with pytest.raises(UsageError, match="KEY is not set"):
            files.read("s3://b/x")
    finally:
        files.use({})


@pytest.mark.parametrize(
    ("text", "library", "extra"),
    [
        ("s3://b/x", "s3fs", "s3"),
        ("abfs://c@a.dfs.core.windows.net/x", "adlfs", "azure"),
        ("gs://b/x", "gcsfs.core", "gcs"),
        ("hdfs://n/x", "hdfs_native", "hdfs"),
    ],
)
def test_a_missing_library_says_how_to_install_it(text, library, extra, monkeypatch):
    import importlib

    load = importlib.import_module

    def absent(name):
        if name == library:
            raise ImportError(name)
        return load(name)

    monkeypatch.setattr(registry.importlib, "import_module", absent)
    with pytest.raises(MissingDependency) as caught:
        files.read(text)
    assert f"pip install 'clinloom[{extra}]'" in str(caught.value)


def test_every_driver_has_the_declared_shape():
    for scheme in registry.names().values():
        driver = registry.driver(scheme)
        assert scheme in driver.SCHEMES and driver.REQUIRES in (None, "s3", "azure", "gcs", "hdfs")
        assert all(meaning for meaning in driver.OPTIONS.values())
        assert not driver.takes("nonsense") and not driver.secret("nonsense")


def test_local_verbs(tmp_path):
    a = address(tmp_path) / "new folder" / "x.bin"
    made = files.write(a, b"0123456789")
    assert files.version(a) == made and files.read(a) == b"0123456789"
    assert (files.read(a, 3, 5), files.read(a, 8), files.read(a, None, 2)) == (b"34", b"89", b"01")
    assert files.read(a, 10, 20) == b"" == files.read(a, 5, 5)
    assert files.entry(a)[:2] == (a, 10) and files.exists(a) and files.exists(a.parent)
    assert files.create(a, b"x") is None and files.read(a) == b"0123456789"
    assert files.swap(a, b"new", made) is not None and files.swap(a, b"newer", made) is None
    assert files.read(a) == b"new" and files.random(a).read() == b"new"
    assert files.create(a.parent / "y", b"1") == files.version(a.parent / "y")
    assert sorted(p.name for p in a.parent.path.iterdir()) == ["x.bin", "y"]
    files.remove(a.parent)
    files.remove(a.parent)
    assert not files.exists(a.parent) and files.version(a) is None and list(files.listed(a)) == []
    for verb in (files.read, files.entry, files.random):
        with pytest.raises(FileNotFoundError):
            verb(a)
    assert files.folder(a) == a and a.path.is_dir()


def test_of_many_that_create_one_wins(tmp_path, monkeypatch):
    for links in (True, False):  # a mount may have none
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
        a = address(tmp_path) / f"lease-{links}"
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n, a=a: files.create(a, f"{n}".encode()), range(20)))
        (winner,) = [n for n, version in enumerate(made) if version is not None]
        assert files.read(a) == f"{winner}".encode() and made[winner] == files.version(a)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_built_whole_or_not_at_all(tmp_path):
    a = address(tmp_path) / "x" / "y.bin"
    with pytest.raises(ZeroDivisionError), files.building(a) as path:
        path.write_bytes(b"half")
        assert path.parent == tmp_path / "x" and path.name.startswith(".")
        _ = 1 / 0
    assert list(files.listed(tmp_path)) == []
    with files.building(a) as path:
        path.write_bytes(b"whole")
        assert not files.exists(a)
    assert files.read(a) == b"whole" and len(list(files.listed(tmp_path))) == 1


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    a = address(tmp_path) / "x"
    files.write(a, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space"):
                files.write(a, b"new")
    assert files.read(a) == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_local_listing_is_in_the_order_of_paths(tmp_path):
    wanted = ["a-1/x", "a.csv", "a/.hidden", "a/b-c", "a/b/c", "b c", "ü", "a!/z/1", ".h/x"]
    for name in wanted:
        files.write(address(tmp_path) / name, b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")  # could lead in a circle
    (tmp_path / "b c.link").symlink_to(tmp_path / "b c")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = [e.address.relative_to(str(tmp_path)) for e in files.listed(tmp_path)]
    assert found == sorted([*wanted, "b c.link"], key=lambda name: name.split("/"))
    (tmp_path / "a" / "b").rename(tmp_path / "later")
    own = [e.address.name for e in files.listed(tmp_path, deep=False)]
    assert own == ["a.csv", "b c", "b c.link", "ü"]


KEYS = st.sets(st.text("ab-./", min_size=1, max_size=6).filter(lambda k: k[-1] != "/"), max_size=40)


@given(KEYS, st.sampled_from(["", "a/", "a-/"]), st.integers(1, 5))
def test_keys_come_in_the_order_of_paths_however_few_are_held(keys, prefix, held):
    asked = []

    def find(of):
        asked.append(of)
        yield from (Found(k, 0, "") for k in sorted(keys) if k.startswith(of))

    before, _ordered.HELD = _ordered.HELD, held
    try:
        found = [f.key for f in ordered(prefix, find)]
    finally:
        _ordered.HELD = before
    wanted = [k for k in keys if k.startswith(prefix)]
    assert found == sorted(wanted, key=lambda k: k.split("/"))
    by_path = [Found(k, 0, "") for k in found]  # as hierarchical namespaces list
    assert list(ordered(prefix, lambda of: (f for f in by_path if f.key.startswith(of)))) == by_path


def test_few_keys_wait_and_few_folders_are_asked_for(monkeypatch):
    monkeypatch.setattr(_ordered, "HELD", 10)
    keys = [f"part-{n:05d}.parquet" for n in range(2000)]
    asked, drawn = [], []

    def find(of):
        asked.append(of)
        for key in keys:
            if key.startswith(of):
                drawn.append(key)
                yield Found(key, 0, "")

    for number, found in enumerate(ordered("", find)):
        assert found.key == keys[number] and len(drawn) <= number + 12
    assert asked == ["", "part/"]


def archive(path: Path, members: dict[str, bytes], kinds=(0, 8)) -> None:
    with zipfile.ZipFile(path, "w") as made:
        for number, (name, data) in enumerate(members.items()):
            made.writestr(name, data, compress_type=kinds[number % len(kinds)])


def test_pieces_of_folders_and_archives(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.csv").write_bytes(b"1\n")
    (tmp_path / ".hidden.csv").write_bytes(b"1\n")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"packed"))
    held = {"d/y.csv": b"2" * 5000, "__MACOSX/y.csv": b"", "d/.z.csv": b"", "e.csv": b""}
    archive(tmp_path / "a.zip", held)
    archive(tmp_path / ".a.zip", held)
    found = list(files.listing(str(tmp_path), include="*.csv*"))
    assert [p.name for p in found] == ["a.zip!/d/y.csv", "a.zip!/e.csv", "b/x.csv", "c.csv.gz"]
    assert [p.read() for p in found] == [b"2" * 5000, b"", b"1\n", b"packed"]
    assert [p.name for p in files.listing(str(tmp_path / "b/x.csv"))] == ["x.csv"]
    told = [files.Piece(**json.loads(json.dumps(vars(p)))) for p in found]  # as tasks carry them
    assert told == found and [p.read() for p in told] == [p.read() for p in found]
    assert files.fingerprint(found) == files.fingerprint(iter(told))
    os.utime(tmp_path / "b/x.csv", (1, 1))
    assert files.fingerprint(files.listing(str(tmp_path), include="*.csv*")) != files.fingerprint(
        found
    )


def test_an_archive_that_was_rewritten_is_fetched_anew(tmp_path):
    """A worker serves many runs: what it holds of an archive is of that archive as it was."""
    for content in (b"one", b"two"):
        held = {"a.csv": content, "b.csv": content}
        archive(tmp_path / "x.zip", held, (zipfile.ZIP_STORED,))
        os.utime(tmp_path / "x.zip", ns=(0, content[0]))
        pieces = files.adjoined(list(files.listing(str(tmp_path / "x.zip"))))
        assert all(piece.run for piece in pieces)
        assert {piece.member: piece.read() for piece in pieces} == held


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, 8, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_kind_of_archive_is_read(tmp_path, kind):
    held = {"ä/a": b"x" * 70_000, "b": b"", "c": bytes(range(256)) * 9}
    archive(tmp_path / "x.zip", held, (kind,))
    assert {p.member: p.read() for p in files.listing(str(tmp_path / "x.zip"))} == held


def test_an_archive_written_as_a_stream_is_read(tmp_path):
    class Stream:
        """No seeking: the sizes follow the data."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data)

        def flush(self):
            self.file.flush()

    held = {"a": b"x" * 70_000, "b": b"PK\3\4" * 100}
    with (tmp_path / "x.zip").open("wb") as file:
        file.write(b"a program that unpacks itself")
        with zipfile.ZipFile(Stream(file), "w") as made:
            for number, (name, data) in enumerate(held.items()):
                made.writestr(name, data, compress_type=(0, 8)[number])
    assert {p.member: p.read() for p in files.listing(str(tmp_path / "x.zip"))} == held


def test_a_broken_member_is_a_broken_archive(tmp_path):
    path = tmp_path / "x.zip"
    archive(path, {"a": b"x" * 5000, "b": b"y" * 5000, "c": b"z"}, (0, 8))
    data = bytearray(path.read_bytes())
    for member, at in (("a", 200), ("b", data.index(b"PK\3\4", 10) + 35)):
        path.write_bytes(bytes([*data[:at], data[at] ^ 0xFF, *data[at + 1 :]]))
        (piece,) = [p for p in files.listing(str(path)) if p.member == member]
        with pytest.raises(zipfile.BadZipFile):
            piece.read()
    flagged = bytearray(data)
    flagged[6] |= 1  # encrypted
    path.write_bytes(flagged)
    with pytest.raises(zipfile.BadZipFile, match="encrypted"):
        next(files.listing(str(path))).read()
    path.write_bytes(data[:300])
    with pytest.raises(SourceError, match="cannot be opened"):
        list(files.listing(str(path)))


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(SourceError, match="does not exist") as caught:
        list(files.listing(str(tmp_path / "no/such")))
    assert f"'{tmp_path}'" in str(caught.value)
    for include in ("*.csv", "*"):
        with pytest.raises(SourceError, match="is named like"):
            list(files.listing(str(tmp_path), include=include))


@given(
    st.lists(st.binary(max_size=9), max_size=9),
    st.integers(1, 12),
    st.integers(1, 5),
    st.booleans(),
)
def test_each_line_is_in_one_range(tmp_path_factory, lines, step, most, remote):
    from clinloom.files import pieces as room

    path = tmp_path_factory.mktemp("lines") / "x"
    data = b"\n".join(lines)
    path.write_bytes(data)
    path = f"file://{path}" if remote else path  # not told by its first sign as local
    before, room.LINE = room.LINE, most
    try:
        parts = [
            files.Piece("x", str(path), 0, None, at, min(at + step, len(data)))
            for at in range(0, len(data), step)
        ]
        read = [p.read() for p in parts]
        places = [p.first_byte() for p in parts]
    finally:
        room.LINE = before
    assert b"".join(read) == data
    assert all(data[at:].startswith(part) for at, part in zip(places, read, strict=True))
    assert all(part.endswith(b"\n") for part in read[:-1] if part and not data.endswith(part))


def test_groups_stream_and_hold_every_piece_once():
    sizes = [1 << (n % 25) for n in range(200)]
    pieces = [files.Piece(f"{n}.csv", f"/{n}.csv", size) for n, size in enumerate(sizes)]
    drawn = []

    def stream():
        for piece in pieces:
            drawn.append(piece)
            yield piece

    found = files.groups(stream(), cores=2, total=sum(sizes))
    first = next(found)
    assert len(drawn) < 60
    assert [p for g in [first, *found] for p in g] == pieces
    whole = files.groups(pieces, cores=2)
    assert list(whole) == list(files.groups(iter(pieces), cores=2, total=sum(sizes)))


def test_a_parquet_file_is_read_at_random_by_threads(tmp_path):
    table = pa.table({"x": list(range(10_000)), "y": ["a"] * 10_000})
    with files.building(tmp_path / "t.parquet") as path:
        pq.write_table(table, path)
    opened = files.random(tmp_path / "t.parquet")
    assert pq.ParquetFile(opened).read(columns=["x"]) == table.select(["x"])
    data = files.read(tmp_path / "t.parquet")
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda at: opened.read_at(100, at), range(0, 5000, 50))
        assert list(read) == [data[at : at + 100] for at in range(0, 5000, 50)]
    (tmp_path / "empty").touch()
    assert files.random(tmp_path / "empty").size() == 0

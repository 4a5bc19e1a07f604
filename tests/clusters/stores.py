"""Empty places in the storages: the clusters' own servers, and an imitated Google.

A proxy between counts the bytes that a server answers: what a test says was fetched was fetched.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from tests.clusters import buckets
from tests.clusters.hadoop import USER, Hadoop
from tests.clusters.imitation import Bucket, serve

from clinloom import files


@dataclass
class Server:
    """A store under test: the address of an empty bucket, and what went over the wire."""

    root: files.Address
    options: dict[str, dict[str, str]]
    wire: Wire | None


@dataclass
class Wire:
    """A proxy that forwards one port to another and counts what the server answers."""

    port: int = 0
    target: int = 0
    answered: int = 0
    requests: list[bytes] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket | None = None

    @classmethod
    @contextmanager
    def to(cls, url: str) -> Iterator[Wire]:
        """Listen on a port of its own while the server at ``url`` is needed."""
        wire = cls(target=urlsplit(url).port or 0)
        wire._listener = socket.create_server(("127.0.0.1", 0))
        wire.port = wire._listener.getsockname()[1]
        threading.Thread(target=wire._accept, daemon=True).start()
        try:
            yield wire
        finally:
            wire._listener.close()

    def reset(self) -> None:
        """Count from nothing."""
        with self._lock:
            self.answered, self.requests = 0, []

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, counts in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pump, args=(source, sink, counts), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    if counts:
                        self.answered += len(data)
                    elif data.startswith((b"GET", b"PUT", b"POST", b"HEAD", b"DELETE")):
                        self.requests.append(data[: data.find(b"\r\n")])
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


@contextmanager
def environment(**names: str) -> Iterator[None]:
    """Variables that hold only inside."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def moto(s3_server: buckets.S3) -> Iterator[Wire]:
    """moto's S3 behind a counting proxy."""
    with Wire.to(s3_server.endpoint) as wire:
        yield wire


@pytest.fixture
def s3(moto: Wire, s3_server: buckets.S3) -> Iterator[Server]:
    """An empty bucket of S3."""
    bucket = s3_server.bucket("test")
    names = {"TEST_KEY": buckets.ACCESS_KEY, "TEST_SECRET": buckets.SECRET_KEY}
    with environment(**names):
        given = {"endpoint_url": f"http://127.0.0.1:{moto.port}", "region": buckets.REGION}
        options = {"s3": given | {"key": "env:TEST_KEY", "secret": "env:TEST_SECRET"}}
        files.use(options)
        moto.reset()
        yield Server(files.address(f"s3://{bucket}"), options, moto)
        files.use({})


@pytest.fixture(scope="session")
def azurite(azure_server: buckets.Azure) -> Iterator[Wire]:
    """Azurite's blobs behind a counting proxy."""
    with Wire.to(f"http://{azure_server.endpoint}") as wire:
        yield wire


@pytest.fixture
def azure(azurite: Wire, azure_server: buckets.Azure) -> Iterator[Server]:
    """An empty container of Azure Blob Storage."""
    root = files.address(azure_server.container("test"))
    through = buckets.Azure(f"127.0.0.1:{azurite.port}")
    with environment(TEST_CONNECTION=through.connection):
        options = {"abfs": {"connection_string": "env:TEST_CONNECTION"}}
        files.use(options)
        azurite.reset()
        yield Server(root, options, azurite)
        files.use({})


@pytest.fixture(scope="session")
def google() -> Iterator[tuple[Wire, dict[str, Bucket]]]:
    """The imitation of Google Cloud Storage behind a counting proxy."""
    made: dict[str, Bucket] = {}
    server = serve(made)
    with Wire.to(f"http://127.0.0.1:{server.server_address[1]}") as wire:
        yield wire, made
    server.shutdown()


@pytest.fixture
def gs(google: tuple[Wire, dict[str, Bucket]], request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty bucket of Google Cloud Storage."""
    wire, made = google
    bucket = f"test-{abs(hash(request.node.nodeid)):x}"
    made[bucket] = Bucket()
    options = {"gs": {"anon": True, "endpoint_url": f"http://127.0.0.1:{wire.port}"}}
    files.use(options)
    wire.reset()
    yield Server(files.address(f"gs://{bucket}"), options, wire)
    files.use({})


@pytest.fixture
def hdfs(hadoop: Hadoop, request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty folder of HDFS."""
    options = {"hdfs": {"config_dir": str(hadoop.conf_dir)}}
    with environment(HADOOP_USER_NAME=USER):
        files.use(options)
        root = files.folder(f"{hadoop.address}/test-{abs(hash(request.node.nodeid)):x}")
        yield Server(root, options, None)
        files.use({})

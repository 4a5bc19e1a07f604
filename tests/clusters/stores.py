"""Storages for tests, each a server on loopback: moto's S3, Azurite, HDFS, an imitated Google.

Each counts the bytes that it answers, by a proxy between: what a test says was fetched was fetched.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.clusters.imitation import Bucket, serve

from clinloom import files

AZURITE = "azurite@3.37.0"
# Azurite's published development account; it opens nothing else.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


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

    def start(self) -> Wire:
        """Listen on a port of its own."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def reset(self) -> None:
        """Count from nothing."""
        with self._lock:
            self.answered, self.requests = 0, []

    def stop(self) -> None:
        """Take no more connections."""
        if self._listener:
            self._listener.close()

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


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


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
def moto() -> Iterator[Wire]:
    """moto's S3 behind a counting proxy."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    wire = Wire(target=server.get_host_and_port()[1]).start()
    yield wire
    wire.stop()
    server.stop()


@pytest.fixture
def s3(moto: Wire, request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty bucket of S3."""
    import boto3

    bucket = f"test-{abs(hash(request.node.nodeid)):x}"
    where = f"http://127.0.0.1:{moto.port}"
    names = {"TEST_KEY": "AKIATESTTESTTESTTEST", "TEST_SECRET": "canary-secret"}
    with environment(**names):
        client = boto3.client(
            "s3",
            endpoint_url=where,
            region_name="us-east-1",
            aws_access_key_id=names["TEST_KEY"],
            aws_secret_access_key=names["TEST_SECRET"],
        )
        client.create_bucket(Bucket=bucket)
        given = {"endpoint_url": where, "region": "us-east-1"}
        options = {"s3": given | {"key": "env:TEST_KEY", "secret": "env:TEST_SECRET"}}
        files.use(options)
        moto.reset()
        yield Server(files.address(f"s3://{bucket}"), options, moto)
        files.use({})


def _azurite(folder: Path) -> list[str]:
    """The command that starts Azurite, installed where it is not yet."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: Azurite cannot be fetched")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "clinloom-azurite"
    program = cache / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--no-audit", "--no-fund", "--silent", AZURITE]
        if subprocess.run(install, cwd=cache, capture_output=True).returncode:
            pytest.skip("the package registry does not answer: Azurite cannot be fetched")
    where = ["--blobHost", "127.0.0.1", "--location", str(folder)]
    return [str(program), "--skipApiVersionCheck", "--silent", *where]


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """Azurite's blobs behind a counting proxy."""
    port = _free()
    command = _azurite(tmp_path_factory.mktemp("azurite"))
    process = subprocess.Popen([*command, "--blobPort", str(port)], stdout=subprocess.DEVNULL)
    wire = Wire(target=port).start()
    try:
        _answers(f"http://127.0.0.1:{port}/", process)
        yield wire
    finally:
        wire.stop()
        process.kill()  # it holds nothing, and would wait for connections that are kept alive
        process.wait(10)


def _answers(url: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2)  # noqa: S310 - on loopback
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not start")


@pytest.fixture
def azure(azurite: Wire, request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty container of Azure Blob Storage."""
    from azure.storage.blob import BlobServiceClient

    container = f"test-{abs(hash(request.node.nodeid)):x}"
    told = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint=http://127.0.0.1:{azurite.port}/{ACCOUNT};"
    )
    with environment(TEST_CONNECTION=told):
        with BlobServiceClient.from_connection_string(told) as client:
            client.create_container(container)
        options = {"abfs": {"connection_string": "env:TEST_CONNECTION"}}
        files.use(options)
        azurite.reset()
        root = files.address(f"abfs://{container}@{ACCOUNT}.dfs.core.windows.net")
        yield Server(root, options, azurite)
        files.use({})


@pytest.fixture(scope="session")
def google() -> Iterator[tuple[Wire, dict[str, Bucket]]]:
    """The imitation of Google Cloud Storage behind a counting proxy."""
    buckets: dict[str, Bucket] = {}
    server = serve(buckets)
    wire = Wire(target=server.server_address[1]).start()
    yield wire, buckets
    wire.stop()
    server.shutdown()


@pytest.fixture
def gs(google: tuple[Wire, dict[str, Bucket]], request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty bucket of Google Cloud Storage."""
    wire, buckets = google
    bucket = f"test-{abs(hash(request.node.nodeid)):x}"
    buckets[bucket] = Bucket()
    options = {"gs": {"anon": True, "endpoint_url": f"http://127.0.0.1:{wire.port}"}}
    files.use(options)
    wire.reset()
    yield Server(files.address(f"gs://{bucket}"), options, wire)
    files.use({})


@pytest.fixture(scope="session")
def name_node() -> Iterator[tuple[str, Path]]:
    """HDFS alone, a NameNode and a DataNode: its address and its configuration."""
    from tests.clusters import hadoop
    from tests.clusters.daemons import Daemons, free_ports, started

    def start(daemons: Daemons) -> tuple[str, Path]:
        conf, ports = daemons.folder / "conf", free_ports(hadoop.PORTS)
        hadoop.write_configuration(daemons.folder, conf, ports)
        hadoop.start_hdfs(daemons, hadoop.java(daemons.folder))
        hadoop.await_hdfs(daemons, ports[1])
        return f"hdfs://127.0.0.1:{ports[0]}", conf

    with started("hdfs", start) as made:
        yield made


@pytest.fixture
def hdfs(name_node: tuple[str, Path], request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty folder of HDFS."""
    at, conf = name_node
    options = {"hdfs": {"config_dir": str(conf)}}
    with environment(HADOOP_USER_NAME="clinloom"):
        files.use(options)
        root = files.folder(f"{at}/test-{abs(hash(request.node.nodeid)):x}")
        yield Server(root, options, None)
        files.use({})

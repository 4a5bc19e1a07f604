"""Object stores in processes of their own, with what Spark and Python need to reach them.

moto serves S3, Azurite serves Azure Blob Storage. ``settings`` goes to a Spark client and through
it to its workers, ``env`` to a process that Spark does not start.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.clusters import parts
from tests.clusters.daemons import Daemons, answer, free_ports, listens, started
from tests.clusters.sparks import hadoop_settings

# Azurite's published development account; it opens nothing else.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
ACCESS_KEY, SECRET_KEY, REGION = "AKIATESTTESTTESTTEST", "secret-of-tests", "us-east-1"


@dataclass(frozen=True)
class S3:
    """A running S3 server."""

    endpoint: str  # http://127.0.0.1:PORT

    @property
    def env(self) -> dict[str, str]:
        """What AWS's libraries read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",  # it is asked off this machine
        }

    @property
    def settings(self) -> dict[str, str]:
        """What Spark needs for ``s3a:`` addresses, and its Python workers for their own."""
        s3a = {
            "fs.s3a.endpoint": self.endpoint,
            "fs.s3a.endpoint.region": REGION,
            "fs.s3a.path.style.access": "true",
            "fs.s3a.connection.ssl.enabled": "false",
            "fs.s3a.aws.credentials.provider": (
                "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider"
            ),
            "fs.s3a.access.key": ACCESS_KEY,
            "fs.s3a.secret.key": SECRET_KEY,
        }
        return {"spark.jars": parts.S3A.listed(), **hadoop_settings(s3a), **for_workers(self.env)}

    def bucket(self, name: str = "clinloom") -> str:
        """The name of a new, empty bucket."""
        self.client.create_bucket(Bucket=(made := f"{name}-{next(_number)}"))
        return made

    @functools.cached_property
    def client(self):  # type: ignore[no-untyped-def]  # boto3 makes its classes when it runs
        """boto3's client of this server: one, as making it reads megabytes of descriptions."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )


@dataclass(frozen=True)
class Azure:
    """A running Azure Blob Storage."""

    endpoint: str  # 127.0.0.1:PORT

    @property
    def connection(self) -> str:
        """Azure's connection string."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint=http://{self.endpoint}/{ACCOUNT};"
        )

    @property
    def env(self) -> dict[str, str]:
        """What Azure's libraries read."""
        return {"AZURE_STORAGE_CONNECTION_STRING": self.connection}

    @property
    def settings(self) -> dict[str, str]:
        """What Spark needs for ``abfs:`` addresses, and its Python workers for their own."""
        abfs = {
            "fs.azure.abfs.endpoint": self.endpoint,
            "fs.azure.account.hns.enabled": "false",
            "fs.azure.fns.account.service.type": "BLOB",
            "fs.azure.ingress.service.type": "BLOB",
            "fs.azure.always.use.https": "false",
            "fs.azure.account.auth.type": "SharedKey",
            f"fs.azure.account.key.{ACCOUNT}.dfs.core.windows.net": ACCOUNT_KEY,
            "fs.azure.networking.library": "JDK_HTTP_URL_CONNECTION",
            # The first algorithm renames folders, which a flat namespace cannot.
            "mapreduce.fileoutputcommitter.algorithm.version": "2",
        }
        return {"spark.jars": parts.ABFS.listed(), **hadoop_settings(abfs), **for_workers(self.env)}

    def container(self, name: str = "clinloom") -> str:
        """The ``abfs:`` address of a new, empty container."""
        from azure.storage.blob import BlobServiceClient

        made = f"{name}-{next(_number)}"
        with BlobServiceClient.from_connection_string(self.connection) as client:
            client.create_container(made)
        return f"abfs://{made}@{ACCOUNT}.dfs.core.windows.net"


def for_workers(env: Mapping[str, str]) -> dict[str, str]:
    """Variables for Spark's Python workers, and on YARN for the driver in its container."""
    return {
        f"{kind}.{name}": value
        for name, value in env.items()
        for kind in ("spark.executorEnv", "spark.yarn.appMasterEnv")
    }


@contextmanager
def s3() -> Iterator[S3]:
    """Start an S3 server. Raises NotReady."""

    def start(daemons: Daemons) -> S3:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        daemons.start("moto", command)
        made = S3(f"http://127.0.0.1:{port}")
        ready = functools.partial(answer, f"{made.endpoint}/moto-api/data.json")
        daemons.await_ready(lambda: ready() is not None, what="moto")
        return made

    with started("s3", start) as made:
        yield made


@contextmanager
def azure() -> Iterator[Azure]:
    """Start an Azure Blob Storage. Raises Missing, NotReady."""

    def start(daemons: Daemons) -> Azure:
        (port,) = free_ports(1)
        program = parts.azurite() / "dist" / "src" / "blob" / "main.js"
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", daemons.folder]
        quiet = ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
        daemons.start("azurite", [parts.program("node", package="nodejs"), program, *where, *quiet])
        daemons.await_ready(lambda: listens(port), what="Azurite")
        return Azure(f"127.0.0.1:{port}")

    with started("azure", start) as made:
        yield made


_number = itertools.count()

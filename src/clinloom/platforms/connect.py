"""A Spark Connect server: this process is a client without Java, the cluster does the work.

The server's Python workers must have Clinloom and open the storage by themselves; a local path
holds only where client and server share the disk.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from clinloom.errors import UsageError
from clinloom.platforms import Check, Outcome, Task, _child, _probe
from clinloom.study import Model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REQUIRES: str | None = "connect"
PORT = 15002  # Spark's own default
NEEDED = "platform.connect.url"


class Options(Model):
    """The server, and who asks."""

    url: str | None = Field(
        default=None,
        description="sc://HOST:PORT; none: CLINLOOM_SPARK_REMOTE, else SPARK_REMOTE",
    )
    token: str | None = Field(
        default=None,
        pattern=r"^(env:[A-Za-z_]\w*|file:/.+)$",
        examples=["env:NAME", "file:/PATH"],
        description="the bearer token, as env:NAME or file:PATH; the channel is then TLS",
    )

    @field_validator("url")
    @classmethod
    def _clear(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith("sc://"):
            raise ValueError("is written sc://HOST:PORT")
        if url is not None and ";token=" in url:
            raise ValueError("a secret is named, never written: give `token: env:NAME`")
        return url


def session(options: Options) -> SparkSession:
    """A session of the server. Raises UsageError where no server is named."""
    from clinloom.spark import session as spark

    return spark.session(remote=_url(options), token=options.token)


def submit(task: Task, options: Options, *, note: Callable[[str], None]) -> Outcome:
    """Run the command in a process of its own on this machine, a client of the server."""
    env = {"CLINLOOM_SPARK_REMOTE": _url(options)}
    if options.token:
        env["CLINLOOM_SPARK_TOKEN"] = options.token
    return _child.clinloom(task, env)


def checks(options: Options) -> Iterator[Check]:
    """Whether the server answers, has this Spark's version, and workers that know Clinloom."""
    mend = "give platform.connect.url, or set CLINLOOM_SPARK_REMOTE to sc://HOST:PORT"
    try:
        url = _url(options)
    except UsageError as error:
        yield Check("server", False, error.message, mend)
        return
    where = urlsplit(url)
    host, port = where.hostname or "", where.port or PORT
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        yield Check(
            "server",
            False,
            f"{host}:{port} does not answer ({error.strerror or type(error).__name__})",
            "start it there: sbin/start-connect-server.sh",
        )
        return
    try:
        made = session(options)
        version = made.version
    except Exception as error:  # grpc's, pyspark's: whatever it is, it is the finding
        mend = "is it a Spark Connect server, and the token right?"
        yield Check("server", False, f"{host}:{port} answers with {type(error).__name__}", mend)
        return
    yield Check("server", True, f"{host}:{port}")
    own = metadata.version("pyspark")
    same = version.split(".")[:2] == own.split(".")[:2]
    mend = f"install the server's version here: pip install 'pyspark=={version}'"
    yield Check("Spark there", same, f"{version}, here {own}", mend)
    yield from _probe.workers(made)


def _url(options: Options) -> str:
    named = (options.url, os.environ.get("CLINLOOM_SPARK_REMOTE"), os.environ.get("SPARK_REMOTE"))
    found = next((url for url in named if url), None)
    if found is None:
        raise UsageError(
            "no Spark Connect server is named",
            where=NEEDED,
            mend="give its address, like sc://spark.example.org:15002",
        )
    return found

"""The clusters of the tests: each starts when a test first asks, and ends with the run.

A machine that lacks a part of one skips its tests with that part's name;
``CLINLOOM_TEST_CLUSTERS=required`` makes that a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from tests.clusters import buckets
from tests.clusters.connect import Connect
from tests.clusters.connect import connect as start_connect
from tests.clusters.hadoop import Hadoop
from tests.clusters.hadoop import hadoop as start_hadoop
from tests.clusters.hapi import Hapi
from tests.clusters.hapi import hapi as start_hapi
from tests.clusters.kerberos import Kerberos
from tests.clusters.kerberos import kerberos as start_kerberos
from tests.clusters.parts import Missing
from tests.clusters.standalone import Standalone
from tests.clusters.standalone import standalone as start_standalone

Cluster = TypeVar("Cluster")


def begun(stack: ExitStack, cluster: AbstractContextManager[Cluster]) -> Cluster:
    """The cluster, running until the stack closes; a missing part skips or fails the test."""
    try:
        return stack.enter_context(cluster)
    except Missing as missing:
        if os.environ.get("CLINLOOM_TEST_CLUSTERS") == "required":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def running() -> Iterator[ExitStack]:
    """All that was started; closed at the end of the run."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def s3_server(running: ExitStack) -> buckets.S3:
    """S3 in a process of its own."""
    return begun(running, buckets.s3())


@pytest.fixture(scope="session")
def azure_server(running: ExitStack) -> buckets.Azure:
    """Azure Blob Storage in a process of its own."""
    return begun(running, buckets.azure())


@pytest.fixture(scope="session")
def hadoop(running: ExitStack) -> Hadoop:
    """HDFS and YARN."""
    return begun(running, start_hadoop())


@pytest.fixture(scope="module")
def kerberos() -> Iterator[Kerberos]:
    """HDFS that asks for a ticket; it ends with the one module that asks for it."""
    with ExitStack() as stack:
        yield begun(stack, start_kerberos())


@pytest.fixture(scope="module")
def hapi() -> Iterator[Hapi]:
    """A FHIR server and judges; they end with the one module that asks for them."""
    with ExitStack() as stack:
        yield begun(stack, start_hapi())


@pytest.fixture(scope="session")
def standalone(running: ExitStack) -> Standalone:
    """A Spark master and two workers that share nothing."""
    return begun(running, start_standalone())


@pytest.fixture(scope="session")
def connect(running: ExitStack, s3_server: buckets.S3) -> Connect:
    """A Spark Connect server that reaches the S3 server."""
    return begun(running, start_connect(lambda: s3_server.settings, env=s3_server.env))


@pytest.fixture(scope="session")
def local(finished: Path) -> Path:
    """A run on this machine, on as many cores as the cluster has."""
    return finished

"""A Kafka broker, its own controller (KRaft)."""

from __future__ import annotations

import base64
import subprocess
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.clusters import parts
from tests.clusters.daemons import JAVA_OPTIONS, Daemons, free_ports, listens, started

SERVER = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{inner}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{inner}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/logs
num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"""


@dataclass(frozen=True)
class Kafka:
    """A running broker."""

    daemons: Daemons
    address: str  # HOST:PORT


def kafka() -> AbstractContextManager[Kafka]:
    """Start a broker. Raises Missing, NotReady."""
    return started("kafka", _start)


def _start(daemons: Daemons) -> Kafka:
    port, inner = free_ports(2)
    file = daemons.folder / "server.properties"
    file.write_text(SERVER.format(port=port, inner=inner, folder=daemons.folder))
    java = [parts.java(), "-Xmx256m", *JAVA_OPTIONS, "-cp", parts.KAFKA.class_path()]
    mark = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    made = [*java, "kafka.tools.StorageTool", "format", "-t", mark, "-c", str(file)]
    subprocess.run(made, check=True, capture_output=True, cwd=daemons.folder)
    daemons.start("broker", [*java, "kafka.Kafka", file])
    daemons.await_ready(lambda: listens(port), what="the Kafka broker")
    return Kafka(daemons, f"127.0.0.1:{port}")

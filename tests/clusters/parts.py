"""The packages that the clusters are made of: versions, and one cache that holds them whole.

A set of jars is resolved by Maven from a small pom, a JavaScript package by npm, each into a folder
of its own that is renamed into the cache when it is complete. ``CLINLOOM_TEST_CACHE`` names another
cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HADOOP = "3.5.0"  # what pyspark 4.2 bundles; a client of this version reads these servers
KEY_SERVER = "3.4.3"  # its last; it asks for a Hadoop of that version
AWS_SDK = "2.35.4"
AZURITE = "3.37.0"
BROKER, CONNECTOR = "4.3.1", "4.2.0"  # Kafka's, and that of Spark 4.2
DELTA_LAKE = "4.4.0"  # for Spark 4.2
PGJDBC = "42.7.8"
HAPI = "8.8.0"  # HAPI FHIR: a server, a validator, and CDS Hooks's forms
ECLIPSE = "org.eclipse.jdt.internal.compiler.batch.Main"
NOT_SPARKS = "io.netty,org.slf4j,commons-logging,commons-codec,org.apache.httpcomponents"


class Missing(Exception):
    """A part of a cluster that this machine lacks: one line that says which and how to get it."""


@dataclass(frozen=True)
class Jars:
    """Jars of one purpose: Maven coordinates, each perhaps with artifacts it must not bring."""

    name: str
    wanted: tuple[str, ...]  # group:artifact:version
    without: tuple[str, ...] = ()  # group:artifact, left out of all of them
    left_out: str = ""  # groups that Spark ships itself
    versions: str = ""  # group:artifact:version of the project that tells those not named

    def pom(self) -> str:
        """The project that Maven resolves."""
        dropped = "".join(f"<exclusion>{_coordinates(name)}</exclusion>" for name in self.without)
        dependencies = "".join(
            f"<dependency>{_coordinates(name)}<exclusions>{dropped}</exclusions></dependency>\n"
            for name in self.wanted
        )
        managed = ""
        if self.versions:
            managed = (
                f"<dependencyManagement><dependencies><dependency>{_coordinates(self.versions)}"
                "<type>pom</type><scope>import</scope></dependency></dependencies>"
                "</dependencyManagement>\n"
            )
        return (
            '<project xmlns="http://maven.apache.org/POM/4.0.0">'
            "<modelVersion>4.0.0</modelVersion>"
            f"<groupId>clinloom</groupId><artifactId>{self.name}</artifactId><version>1</version>\n"
            f"{managed}<dependencies>\n{dependencies}</dependencies></project>\n"
        )

    def folder(self) -> Path:
        """Where these jars lie, fetched the first time. Raises Missing without Maven."""
        pom = self.pom()
        return kept(f"{self.name}-{_digest(pom + self.left_out)}", lambda at: self._fetch(pom, at))

    def class_path(self) -> str:
        """Every jar, for ``-cp`` or ``spark.driver.extraClassPath``."""
        return f"{self.folder()}/*"

    def listed(self) -> str:
        """Every jar by name, for ``spark.jars``, which also carries them to the executors."""
        return ",".join(sorted(map(str, self.folder().glob("*.jar"))))

    def _fetch(self, pom: str, at: Path) -> None:
        program("mvn", package="maven")
        (at / "pom.xml").write_text(pom)
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        _done([*command, f"-DexcludeGroupIds={self.left_out}", f"-DoutputDirectory={at}"], at)
        (at / "pom.xml").unlink()


def _hadoop(*names: str) -> tuple[str, ...]:
    return tuple(f"org.apache.hadoop:{name}:{HADOOP}" for name in names)


DAEMONS = Jars(
    "hadoop",
    _hadoop(
        "hadoop-common",
        "hadoop-hdfs",
        "hadoop-hdfs-client",
        "hadoop-yarn-server-resourcemanager",
        "hadoop-yarn-server-nodemanager",
        "hadoop-yarn-server-timelineservice",  # the ResourceManager dies without it
        "hadoop-yarn-client",
    ),
)
KDC = Jars("kdc", _hadoop("hadoop-minikdc"))
KMS = Jars("kms", (f"org.apache.hadoop:hadoop-kms:{KEY_SERVER}",))
S3A = Jars(
    "s3a",
    _hadoop("hadoop-aws")
    + tuple(
        f"software.amazon.awssdk:{name}:{AWS_SDK}"
        for name in ("s3", "s3-transfer-manager", "sts", "apache-client")
    ),
    without=("software.amazon.awssdk:bundle",),
    left_out=NOT_SPARKS,
)
# Without what Spark ships itself, which is all that they ask for.
DELTA = Jars(
    "delta",
    (f"io.delta:delta-spark_4.2_2.13:{DELTA_LAKE}", f"io.delta:delta-storage:{DELTA_LAKE}"),
    without=("*:*",),
)
POSTGRESQL = Jars("postgresql", (f"org.postgresql:postgresql:{PGJDBC}",), without=("*:*",))
ABFS = Jars("abfs", _hadoop("hadoop-azure"), left_out=NOT_SPARKS)
KAFKA = Jars("kafka", (f"org.apache.kafka:kafka_2.13:{BROKER}",))
FROM_KAFKA = Jars(
    "spark-kafka",
    (f"org.apache.spark:spark-sql-kafka-0-10_2.13:{CONNECTOR}",),
    left_out=f"{NOT_SPARKS},org.apache.hadoop,org.scala-lang",
)
COMPILER = Jars("compiler", ("org.eclipse.jdt:ecj:3.40.0",))  # of Java, where only Java runs
HAPI_FHIR = Jars(
    "hapi",
    tuple(
        f"ca.uhn.hapi.fhir:{name}:{HAPI}"
        for name in (
            "hapi-fhir-jpaserver-base",
            "hapi-fhir-storage-batch2-jobs",
            "hapi-fhir-caching-caffeine",
            "hapi-fhir-server-cds-hooks",
        )
    )
    + (
        "com.h2database:h2",
        "org.eclipse.jetty.ee10:jetty-ee10-servlet",
        "org.apache.commons:commons-dbcp2",
        "org.slf4j:slf4j-simple:2.0.16",
        "org.jboss.logging:jboss-logging:3.6.1.Final",  # the one that is told lacks what is used
    ),
    versions=f"ca.uhn.hapi.fhir:hapi-fhir:{HAPI}",
)


def compiled(source: Path, jars: Sequence[Path]) -> Path:
    """The folder of a Java program's classes, compiled the first time. Raises Missing."""
    paths = ":".join(map(str, jars))
    mark = _digest(source.read_text() + paths)

    def compile_(at: Path) -> None:
        command = [java(), "-XX:TieredStopAtLevel=1", "-cp", COMPILER.class_path(), ECLIPSE]
        told = ["-17", "-nowarn", "-proc:none", "-classpath", paths, "-d", at, source]
        _done([*command, *map(str, told)], at)

    return kept(f"{source.stem.lower()}-{mark}", compile_)


def azurite() -> Path:
    """The Azurite package's folder, fetched the first time. Raises Missing without npm."""

    def fetch(at: Path) -> None:
        program("npm", package="npm")
        (at / "package.json").write_text("{}")
        _done(["npm", "install", "--no-audit", "--no-fund", f"azurite@{AZURITE}"], at)

    return kept(f"azurite-{AZURITE}", fetch) / "node_modules" / "azurite"


def program(name: str, *, package: str) -> str:
    """Where a program of this machine is. Raises Missing with Debian's name of its package."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed (apt-get install {package})")
    return found


def java() -> str:
    """The Java that Spark would take. Raises Missing."""
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else program("java", package="openjdk-17-jre-headless")


def cache() -> Path:
    """The folder that keeps what was fetched between runs."""
    named = os.environ.get("CLINLOOM_TEST_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else home / "clinloom-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made whole or not at all; of two makers at once the first stays."""
    place = cache() / name
    if place.is_dir():
        return place
    made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache()))
    try:
        make(made)
        made.chmod(0o755)
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return place


def _done(command: list[str], folder: Path) -> None:
    run = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if run.returncode:
        said = (run.stderr + run.stdout).strip().splitlines()
        raise Missing(f"{command[0]} could not fetch {folder.name[1:]}: {said[0] if said else ''}")


def _coordinates(name: str) -> str:
    tags = ("groupId", "artifactId", "version")
    return "".join(
        f"<{tag}>{part}</{tag}>" for tag, part in zip(tags, name.split(":"), strict=False)
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]

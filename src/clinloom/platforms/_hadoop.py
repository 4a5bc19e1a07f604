"""A Hadoop cluster as its client sees it: its configuration, its own programs, its web service."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import re
import shutil
import subprocess
import urllib.request
import xml.etree.ElementTree as xml
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clinloom.errors import MissingDependency, UsageError

FOLDERS = ("HADOOP_CONF_DIR", "YARN_CONF_DIR")
FILES = ("core-site.xml", "hdfs-site.xml", "yarn-site.xml")
YARN = "org.apache.hadoop.yarn.client.cli"
SHELL = "org.apache.hadoop.fs.FsShell"
WAIT = 60  # seconds that a program of Hadoop has: it tries a dead server again and again
NOISE = re.compile(r"WARNING: |SLF4J|Picked up |\d\d[:/]\d\d|log4j", re.IGNORECASE)


@dataclass(frozen=True)
class Hadoop:
    """The cluster of a folder of settings, asked with variables of its own."""

    folder: Path
    own: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, str]:
        """What the cluster's files say, later files over earlier ones."""
        found: dict[str, str] = {}
        for name in FILES:
            try:
                root = xml.parse(self.folder / name).getroot()  # noqa: S314 - the administrator's
            except (OSError, xml.ParseError):
                continue
            for node in root.iter("property"):
                found[node.findtext("name", "").strip()] = node.findtext("value", "").strip()
        return found

    def get(self, key: str) -> str | None:
        """A setting with its references to others filled in."""
        value = self.settings.get(key)
        for _ in range(20):
            if value is None or not (inner := re.search(r"\$\{([^}]+)\}", value)):
                return value
            other = self.settings.get(inner[1], "")
            value = value[: inner.start()] + other + value[inner.end() :]
        return value

    @property
    def kerberos(self) -> bool:
        """Whether the cluster answers only who has a ticket."""
        return self.get("hadoop.security.authentication") == "kerberos"

    @property
    def encrypts(self) -> bool:
        """Whether there is a server of the keys of encryption zones."""
        return bool(self.get("hadoop.security.key.provider.path"))

    @property
    def managers(self) -> list[str]:
        """The web addresses of the ResourceManager, or of each that stands by for it."""
        tls = self.get("yarn.http.policy") == "HTTPS_ONLY"
        kind, port = ("webapp.https", 8090) if tls else ("webapp", 8088)
        ids = [""] + [f".{i.strip()}" for i in (self.get(f"{RM}.ha.rm-ids") or "").split(",") if i]
        found = []
        for each in ids:
            host = self.get(f"{RM}.hostname{each}")
            address = self.get(f"{RM}.{kind}.address{each}") or (host and f"{host}:{port}")
            if address:
                found.append(f"http{'s' if tls else ''}://{address}")
        return found

    def ask(self, path: str) -> dict[str, Any] | None:
        """What the ResourceManager's web service answers; None where none does, or may."""
        for manager in self.managers:
            try:
                found = json.loads(fetched(f"{manager}/ws/v1/cluster/{path}"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                return found
        return None

    def limit(self, key: str) -> int | None:
        """A number of the ResourceManager's own configuration, else of this client's."""
        for manager in self.managers:
            try:
                found = re.search(rb"value\W+(\d+)", fetched(f"{manager}/conf?name={key}"))
            except OSError:
                continue
            if found:
                return int(found[1])
        told = self.get(key) or ""
        return int(told) if told.isdigit() else None

    def program(
        self, main: str, *args: str, env: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run a program of Hadoop's in the JVM that spark-submit takes; its status and output.

        It speaks the cluster's own protocols, so a Kerberos ticket is enough.
        """
        return self._run([str(home() / "bin" / "spark-class"), main, *args], env or {})

    @property
    def collects(self) -> bool:
        """Whether Hadoop's own client is installed here, which reads what YARN has collected."""
        return shutil.which("yarn") is not None

    def logs(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        """What ``yarn logs`` says; nothing where Hadoop's own client is not installed here.

        Spark's jars lack what it needs.
        """
        program = shutil.which("yarn")
        return self._run([program, "logs", *args], env or {})[1] if program else ""

    def _run(self, command: list[str], env: Mapping[str, str]) -> tuple[int, str]:
        own = {**os.environ, **environment(self.folder), **self.own, **env}
        try:
            done = subprocess.run(  # noqa: S603 - Spark's launcher, or Hadoop's client
                command, capture_output=True, text=True, timeout=WAIT, check=False, env=own
            )
        except subprocess.TimeoutExpired:
            return 1, f"no answer in {WAIT} s"
        except OSError as error:
            return 1, type(error).__name__
        return done.returncode, done.stdout + done.stderr


RM = "yarn.resourcemanager"


def here() -> Hadoop:
    """The cluster that this process's environment names. Raises UsageError where none is."""
    for name in FOLDERS:
        folder = os.environ.get(name)
        if folder:
            if not (Path(folder) / "core-site.xml").is_file():
                raise UsageError(
                    f"{name} holds no core-site.xml",
                    where=folder,
                    mend="let it name the folder of the cluster's client configuration",
                )
            return Hadoop(Path(folder).resolve())
    raise UsageError(
        "HADOOP_CONF_DIR is not set",
        mend="let it name the folder of the cluster's core-site.xml, hdfs-site.xml, yarn-site.xml",
    )


def home() -> Path:
    """The folder of the pyspark that is installed here, with spark-submit. Raises without one."""
    found = importlib.util.find_spec("pyspark")
    if found is None or not found.origin:
        raise MissingDependency("pyspark is not installed", mend="pip install pyspark")
    return Path(found.origin).parent


def environment(folder: Path) -> dict[str, str]:
    """The variables of Spark's programs as a client of the cluster."""
    conf = str(folder)
    return {"HADOOP_CONF_DIR": conf, "YARN_CONF_DIR": conf, "SPARK_HOME": str(home())}


def user() -> str:
    """Whom a cluster without Kerberos takes this process for."""
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


def fetched(url: str, *, seconds: float = 10) -> bytes:
    """What a page of the cluster's web service holds. Raises OSError."""
    if not url.startswith(("http://", "https://")):
        raise OSError("no web address")
    with urllib.request.urlopen(url, timeout=seconds) as page:  # noqa: S310 - checked above
        data: bytes = page.read()
    return data


def last_words(output: str) -> str:
    """The line of a program's output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if not NOISE.match(line) and not line.startswith("at ")]
    return (said or lines or ["no answer"])[0][:200]

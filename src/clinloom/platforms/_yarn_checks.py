"""What a YARN cluster lacks for a run, asked by Hadoop's own programs and web service."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from clinloom.checks import Check
from clinloom.errors import UsageError
from clinloom.files import Address
from clinloom.platforms import _archive
from clinloom.platforms._hadoop import SHELL, YARN, Hadoop, here, last_words, user

if TYPE_CHECKING:
    from clinloom.platforms.yarn import Options

LIMIT = "yarn.scheduler.maximum-allocation-mb"


def checks(options: Options) -> Iterator[Check]:
    """Each finding; those that cannot be asked without another are left out."""
    try:
        hadoop = here()
    except UsageError as error:
        yield Check("HADOOP_CONF_DIR", False, error.message, error.mend or "")
        return
    yield Check("HADOOP_CONF_DIR", True, str(hadoop.folder))
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        yield Check("Java here", False, "not on the path", "spark-submit needs Java 17")
        return
    yield from ticket(hadoop, options)
    with tempfile.TemporaryDirectory(prefix="clinloom-") as folder:
        refused, hadoop = _by_keys(hadoop, options, Path(folder))
        if refused:
            yield refused
            return
        yield from _manager(hadoop, options)
        yield from _storage(hadoop, options)
        yield _environment(hadoop, options)


def ticket(hadoop: Hadoop, options: Options) -> Iterator[Check]:
    """Whether this process is somebody where the cluster asks for that."""
    if not hadoop.kerberos:
        yield Check("Kerberos", True, f"not asked for; this user is {user()}")
        return
    if options.keytab:
        there = Path(options.keytab).is_file()
        detail = f"{options.principal}, keytab {'there' if there else 'missing'}"
        yield Check("Kerberos", there, detail, "give the path of the keytab")
        return
    program = shutil.which("klist")
    if program is None:
        mend = "install krb5-user, or give principal and keytab"
        yield Check("Kerberos", False, "klist is not here to tell", mend, required=False)
        return
    done = subprocess.run([program, "-s"], check=False)  # noqa: S603 - klist, found on the path
    detail = "a valid ticket" if done.returncode == 0 else "no valid ticket"
    yield Check("Kerberos", done.returncode == 0, detail, "kinit, or give principal and keytab")


def _by_keys(hadoop: Hadoop, options: Options, folder: Path) -> tuple[Check | None, Hadoop]:
    """The cluster as the keytab's owner asks it, with a ticket of its own; or who refuses that."""
    program = shutil.which("kinit")
    if not (hadoop.kerberos and options.keytab and options.principal and program):
        return None, hadoop
    cache = f"FILE:{folder / 'ticket'}"
    command = [program, "-k", "-t", options.keytab, "-c", cache, options.principal]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - kinit
    if done.returncode:
        mend = "is it this principal's, and does the KDC of krb5.conf answer?"
        return Check("keytab", False, last_words(done.stderr), mend), hadoop
    return None, replace(hadoop, own={"KRB5CCNAME": cache})


def _manager(hadoop: Hadoop, options: Options) -> Iterator[Check]:
    status, said = hadoop.program(f"{YARN}.NodeCLI", "-list", "-states", "RUNNING")
    nodes = re.search(r"Total Nodes:(\d+)", said)
    if status or nodes is None:
        mend = "is it up, and yarn-site.xml its own?"
        yield Check("ResourceManager", False, last_words(said), mend)
        return
    info = (hadoop.ask("cluster") or hadoop.ask("info") or {}).get("clusterInfo", {})
    version = info.get("resourceManagerVersion")
    told = f"Hadoop {version}, " if version else ""
    enough = int(nodes[1]) > 0
    yield Check("ResourceManager", enough, f"{told}{nodes[1]} nodes", "start the NodeManagers")
    queue = options.queue or "default"
    status, said = hadoop.program(f"{YARN}.QueueCLI", "-status", queue)
    state = re.search(r"State : (\w+)", said)
    open_ = status == 0 and state is not None and state[1] == "RUNNING"
    detail = f"{queue}: {state[1].lower() if state else 'there is no such queue'}"
    yield Check("queue", open_, detail, "give platform.yarn.queue; `yarn queue -list all` tells")
    yield from _room(hadoop, options)


def _room(hadoop: Hadoop, options: Options) -> Iterator[Check]:
    """Whether an executor is to be had: by the cluster's limit, a node's size, the queue's share.

    Asked where the web service answers.
    """
    wanted = _megabytes(options.memory) + _megabytes(options.overhead)
    detail, mend = f"an executor asks for {wanted} MB", "ask for less `memory` and `overhead`"
    if limit := hadoop.limit(LIMIT):
        more = f"{mend}, or raise {LIMIT}"
        yield Check("executor", wanted <= limit, f"{detail}, a container has {limit} MB", more)
    listed = ((hadoop.ask("nodes") or {}).get("nodes") or {}).get("node") or []
    sizes = [n["usedMemoryMB"] + n["availMemoryMB"] for n in listed if n["state"] == "RUNNING"]
    if sizes:
        detail = f"{detail}, the largest node has {max(sizes)} MB"
        yield Check("memory there", wanted <= max(sizes), detail, mend)
    metrics = (hadoop.ask("metrics") or {}).get("clusterMetrics", {})
    total, free = metrics.get("totalMB"), metrics.get("availableMB")
    least = _driver(options) + wanted
    detail = f"{_driver(options)} MB for the driver's container and {wanted} MB for an executor"
    share = _share(hadoop.ask("scheduler"), options.queue or "default")
    if total and share is not None:
        has = int(total * share / 100)
        yield Check("room in the queue", least <= has, f"{detail}, of {has} MB", mend)
    if free is not None:
        later = "the run waits until others are done"
        yield Check("room now", least <= free, f"{detail}; {free} MB are free", later, False)


def _driver(options: Options) -> int:
    """MB of the application's first container: the driver's, or its deputy's there."""
    asked = _megabytes(options.driver_memory) if options.mode == "cluster" else 512
    return asked + max(384, asked // 10)


def _share(found: Any, queue: str) -> float | None:
    """The percentage of the cluster that the capacity scheduler lets a queue have at most."""
    if isinstance(found, dict):
        if queue in (found.get("queueName"), found.get("queuePath")):
            share: float | None = found.get("absoluteMaxCapacity")
            return share
        found = list(found.values())
    parts = found if isinstance(found, list) else []
    shares = (_share(part, queue) for part in parts if isinstance(part, (dict, list)))
    return next((share for share in shares if share is not None), None)


def _storage(hadoop: Hadoop, options: Options) -> Iterator[Check]:
    root = options.conf.get("spark.yarn.stagingDir")  # else the home of whom the cluster knows
    folder = f"{root}/.sparkStaging" if root else ".sparkStaging"
    status, said = hadoop.program(SHELL, "-mkdir", "-p", folder)
    if status:
        refused = "Permission denied" in said
        name = "staging folder" if refused else "NameNode"
        mend = f"may this user write {folder}?" if refused else "is it up, and core-site.xml right?"
        yield Check(name, False, last_words(said), mend)
        return
    yield Check("NameNode", True, hadoop.get("fs.defaultFS") or "answers")
    probe = f"{folder}/clinloom-{uuid4().hex[:8]}"
    status, said = hadoop.program(SHELL, "-touchz", probe)
    if status == 0:
        status, said = hadoop.program(SHELL, "-rm", "-skipTrash", probe)
    detail = folder if status == 0 else last_words(said)
    yield Check("staging folder", status == 0, detail, f"may this user write {folder}?")


def _environment(hadoop: Hadoop, options: Options) -> Check:
    version = metadata.version("pyspark")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if options.python:
        detail = f"{options.python} of every node; `--spark` asks them"
        return Check("environment", True, detail)
    if options.archive:
        place = Address(options.archive)
        if place.local:
            there = place.path.is_file()
        else:
            there = hadoop.program(SHELL, "-test", "-f", place.uri)[0] == 0
        return Check("archive", there, str(place), "put it there, or leave `archive` out")
    names = len(list(_archive.distributions()))
    if importlib.util.find_spec("venv_pack") is None:
        return Check("environment", False, "venv-pack is missing", "pip install 'clinloom[yarn]'")
    base = Path(sys.base_prefix, "bin", f"python{python}")
    detail = f"{names} packages are packed; each node needs {base}; Spark {version} is brought"
    return Check("environment", True, detail)


def _megabytes(size: str) -> int:
    return int(int(size[:-1]) * {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1 << 20}[size[-1]])
